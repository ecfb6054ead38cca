"""The variational bound against closed forms: Gaussian data, whose best denoiser and whose density are known."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from genlab.errors import GenlabError
from genlab.gaussian import variational
from genlab.gaussian.denoiser import Denoiser, Index
from genlab.gaussian.parametrization import Eps, X
from genlab.gaussian.path import VP, GaussianPath, Linear
from genlab.gaussian.tables import Levels, Table, cosine_betas, linear_betas
from genlab.gaussian.variances import Large, Learned, Small
from genlab.gaussian.variational import DiscreteBound, LearnedVariance

MEAN, STD = 0.2, 0.35
DATA = Normal(torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64))


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def scaled(steps: int) -> Table:
    """The VP path at t/T: DDPM's linear schedule, whatever the number of steps."""
    bar = VP()(torch.linspace(0, 1, steps + 1, dtype=torch.float64), 1).alpha ** 2
    return Table(1 - bar[1:] / bar[:-1])


class Known(nn.Module):
    """E[x | x_t] of data N(MEAN, STD²), and beside it whatever v is given."""

    def __init__(self, path: GaussianPath, v: float | None = None):
        super().__init__()
        self.path, self.v = path, v

    def forward(self, x_t: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        p = self.path(c + 1, x_t.ndim)
        x_hat = MEAN + p.alpha * STD**2 / (p.alpha**2 * STD**2 + p.sigma**2) * (x_t - p.alpha * MEAN)
        return x_hat if self.v is None else torch.cat([x_hat, torch.full_like(x_hat, 2 * self.v - 1)], dim=1)


def known(path: GaussianPath, v: float | None = None) -> Denoiser:
    return Denoiser(Known(path, v), path, X(), Index(), learned_variance=v is not None)


@pytest.mark.parametrize(
    "path",
    [scaled(10), Table(cosine_betas(10)), Levels(0.01, 2.0, 10), VP(), Linear(0.1)],
    ids=lambda p: type(p).__name__,
)
def test_posterior_is_bayes_rule_on_a_grid(path: GaussianPath) -> None:
    """q(x_s | x_t, x) ∝ q(x_t | x_s) q(x_s | x), on any path and over any interval."""
    whole = 10.0 if path.twin else 1.0
    p, q = path(tensor(0.7 * whole), 1), path(tensor(0.4 * whole), 1)
    x, x_t = tensor(0.3), tensor(-0.8)
    grid = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    a, b2 = p.bridge(q)
    log_weight = Normal(a * grid, b2.sqrt()).log_prob(x_t) + Normal(q.alpha * x, q.sigma).log_prob(grid)
    weight = log_weight.softmax(0)
    mean = (weight * grid).sum()
    found_mean, found_variance = p.posterior(q, x_t, x)
    torch.testing.assert_close(found_mean, mean, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found_variance, (weight * (grid - mean) ** 2).sum(), rtol=1e-6, atol=1e-9)


def test_posterior_of_the_published_table() -> None:
    """coef1 = √ᾱ_{t-1} β/(1 - ᾱ), coef2 = √α (1 - ᾱ_{t-1})/(1 - ᾱ), β̃ = β (1 - ᾱ_{t-1})/(1 - ᾱ)."""
    betas = linear_betas(1000, 1e-4, 0.02)
    bars = (1 - betas).cumprod(0)
    path, t = Table(betas), tensor([2.0, 500.0, 1000.0])
    p, q, i = path(t, 1), path(t - 1, 1), t.long() - 1
    of_x, variance = p.posterior(q, 0.0, 1.0)
    of_x_t, _ = p.posterior(q, 1.0, 0.0)
    torch.testing.assert_close(of_x, bars[i - 1].sqrt() * betas[i] / (1 - bars[i]), rtol=1e-9, atol=0)
    torch.testing.assert_close(of_x_t, (1 - betas[i]).sqrt() * (1 - bars[i - 1]) / (1 - bars[i]), rtol=1e-9, atol=0)
    torch.testing.assert_close(variance, betas[i] * (1 - bars[i - 1]) / (1 - bars[i]), rtol=1e-9, atol=0)
    assert math.isclose(variance[0].item(), 5.453188e-5, rel_tol=1e-6), "the published β̃ of their index 1"


def test_kl_of_gaussians() -> None:
    m, n, s, r = torch.randn(4, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = kl_divergence(Normal(m, (s / 2).exp()), Normal(n, (r / 2).exp()))
    torch.testing.assert_close(variational.gaussian_kl(m, s, n, r), expected)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.01), (0.31, 0.003), (-1.2, 0.1), (0.9, 5.0)])
def test_the_probabilities_of_all_levels_add_up_to_one(levels: int, mean: float, std: float) -> None:
    x = torch.linspace(-1, 1, levels)
    log_p = variational.decoder_log_prob(x, torch.tensor(mean), torch.tensor(2 * math.log(std)), levels)
    assert torch.isfinite(log_p).all()
    torch.testing.assert_close(log_p.exp().sum(), torch.tensor(1.0), rtol=2e-5, atol=0)


def test_the_probability_of_a_level_is_the_mass_of_its_cell() -> None:
    law = Normal(tensor(0.13), tensor(0.2))
    x = torch.linspace(-1, 1, 17, dtype=torch.float64)
    inner = law.cdf(x + 1 / 16) - law.cdf(x - 1 / 16)
    expected = torch.cat([law.cdf(x[:1] + 1 / 16), inner[1:-1], 1 - law.cdf(x[-1:] - 1 / 16)])
    found = variational.decoder_log_prob(x, law.mean, 2 * law.stddev.log(), 17)
    torch.testing.assert_close(found.exp(), expected, rtol=1e-9, atol=1e-12)


def test_far_from_the_mean_probability_and_gradient_are_finite() -> None:
    mean = torch.tensor([50.0, -3.0, 0.0], requires_grad=True)
    log_p = variational.decoder_log_prob(torch.tensor([0.0, 1.0, -1.0]), mean, torch.tensor(-10.0), 256)
    log_p.sum().backward()
    assert torch.isfinite(log_p).all()
    assert torch.isfinite(mean.grad).all()  # pyright: ignore
    assert (mean.grad * torch.tensor([-1.0, 1.0, -1.0]) > 0).all(), "towards x"  # pyright: ignore


def quadrature(nodes: int = 5) -> tuple[Tensor, Tensor]:
    """z and w with Σ w f(z) = E f(z), z ~ N(0, 1), exact for the polynomials of degree 2 that all terms are."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    return torch.from_numpy(z), torch.from_numpy(w / w.sum())


def expected_terms(path: GaussianPath, x: Tensor, v: Tensor) -> Tensor:
    """(N, T + 1) E[L_T], E[L_0], ..., E[L_{T-1}] of the data's own denoiser for the (N,) x, with the (T,) variances v."""
    z, w = quadrature()
    pairs = torch.cartesian_prod(x, z)
    end = path(tensor(path.t_max), 1)
    columns = [kl_divergence(Normal(end.alpha * x, end.sigma), Normal(0, end.sigma))]
    for step in range(1, int(path.t_max) + 1):
        t = tensor([float(step)])
        p = path(t, 2)
        x_hat = known(path)(p.alpha * pairs[:, :1] + p.sigma * pairs[:, 1:], t)
        nats = variational.term(path, pairs[:, :1], x_hat, t, v[step - 1], None)
        columns.append((nats.reshape(len(x), -1) * w).sum(1))
    return torch.stack(columns, dim=1)


def expected_bound(path: GaussianPath, v: Tensor) -> float:
    """E over the data of -log p's bound, without any sampling."""
    z, w = quadrature()
    return (w * expected_terms(path, MEAN + STD * z, v).sum(1)).sum().item()


def best(path: GaussianPath) -> Tensor:
    """(T,) v of the true Var[x_{t-1} | x_t], by the law of total variance."""
    t = torch.arange(1, path.t_max + 1, dtype=torch.float64)
    p, q, second = path(t, 1), path(t - 1, 1), t.clamp(min=2)
    slope, posterior = p.posterior(q, 0.0, 1.0)
    spread = p.sigma**2 * STD**2 / (p.alpha**2 * STD**2 + p.sigma**2)  # Var[x | x_t]
    low = path(second, 1).posterior(path(second - 1, 1), 0.0, 1.0)[1].log()
    return ((posterior + slope**2 * spread).log() - low) / (p.bridge(q)[1].log() - low)


@pytest.mark.parametrize("steps", [2, 20, 200])
def test_with_the_best_variances_the_bound_is_the_density_but_for_the_prior(steps: int) -> None:
    """x_{t-1} given x_t is Gaussian here, so that the reverse chain is exact and log p lacks KL(q(x_T) ‖ N(0, σ_T²)) only."""
    path = scaled(steps)
    v, end = best(path), path(tensor(path.t_max), 1)
    assert ((v[1:] > 0) & (v[1:] <= 1)).all(), "between β̃ and β, as Ho et al. say"
    marginal = Normal(end.alpha * MEAN, (end.alpha**2 * STD**2 + end.sigma**2).sqrt())
    missing = kl_divergence(marginal, Normal(tensor(0.0), end.sigma)).item()
    entropy = DATA.entropy().item()
    assert math.isclose(expected_bound(path, v), entropy + missing, abs_tol=1e-9)


def test_the_bound_is_above_the_entropy_and_falls_to_it_as_steps_grow() -> None:
    gaps = []
    for steps in (25, 50, 100, 200, 400):
        path, entropy = scaled(steps), DATA.entropy().item()
        gaps.append(expected_bound(path, torch.ones(steps, dtype=torch.float64)) - entropy)
        assert expected_bound(path, torch.zeros(steps, dtype=torch.float64)) > entropy
    assert all(0 < later < 0.6 * sooner for sooner, later in itertools.pairwise(gaps))
    assert gaps[-1] < 0.02


def test_the_bound_of_each_sample_in_closed_form() -> None:
    """Averaged over its noise: to four standard errors."""
    path, x = scaled(20), tensor([-0.5, 0.2, 1.1])
    torch.manual_seed(0)
    parts = DiscreteBound(Small(), None, clip=False).parts(known(path), x.repeat_interleave(5000)[:, None])
    expected = expected_terms(path, x, torch.zeros(20, dtype=torch.float64))
    for name, terms in {"rate": expected[:, [0, *range(2, 21)]].sum(1), "distortion": expected[:, 1]}.items():
        found = -parts[name].reshape(3, -1)
        error = found.std(1) / math.sqrt(found.shape[1])
        assert ((found.mean(1) - terms).abs() < 4 * error).all(), name


def test_the_bound_of_a_lattice_is_above_its_entropy() -> None:
    """Seventeen levels of a Gaussian, whose best denoiser is a finite sum."""
    levels = torch.linspace(-1, 1, 17, dtype=torch.float64)
    probability = DATA.log_prob(levels).softmax(0)

    class Lattice(Known):
        def forward(self, x_t: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
            p = self.path(c + 1, x_t.ndim)
            likelihood = -((x_t - p.alpha * levels) ** 2) / (2 * p.sigma**2)
            return ((likelihood + probability.log()).softmax(1) * levels).sum(1, keepdim=True)

    entropy = -(probability * probability.log()).sum().item()
    torch.manual_seed(0)
    gaps = {}
    for steps in (10, 40):
        bound = DiscreteBound(Large(), 17, clip=True)
        assert bound.discrete
        path = scaled(steps)
        nats = bound.log_prob(Denoiser(Lattice(path), path, X(), Index()), levels.repeat(150)[:, None])
        gaps[steps] = -(nats.reshape(150, 17) * probability).sum(1).mean().item() - entropy
    assert gaps[10] > gaps[40] > 0
    assert gaps[40] < 0.15, "of 2.4 nats"


def test_drawn_terms_estimate_the_whole_bound() -> None:
    path, x = scaled(20), tensor([0.6]).expand(2000)[:, None]
    torch.manual_seed(0)
    whole = DiscreteBound(Large(), None, clip=False).log_prob(known(path), x)
    drawn = DiscreteBound(Large(), None, clip=False, terms=5).log_prob(known(path), x)
    error = ((whole.var() + drawn.var()) / len(x)).sqrt()
    assert (whole.mean() - drawn.mean()).abs() < 3 * error
    assert drawn.std() > whole.std()


def test_every_term_is_evaluated_once_and_drawn_ones_in_their_own_stratum() -> None:
    times: list[Tensor] = []

    class Seen(Known):
        def forward(self, x_t: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
            times.append(c + 1)
            return super().forward(x_t, c, y)

    path = scaled(13)
    denoiser = Denoiser(Seen(path), path, X(), Index())
    DiscreteBound(Small(), None, clip=False).log_prob(denoiser, torch.zeros(6, 1, dtype=torch.float64))
    assert torch.stack(times).sort(0).values.tolist() == [[float(t)] * 6 for t in range(1, 14)]
    times.clear()
    DiscreteBound(Small(), None, clip=False, terms=3).log_prob(denoiser, torch.zeros(500, 1, dtype=torch.float64))
    assert [set(t.tolist()) for t in times] == [{2, 3, 4, 5}, {6, 7, 8, 9}, {10, 11, 12, 13}, {1}]


def test_the_number_is_that_of_the_seed_whose_x_hat_is_clipped() -> None:
    bounds = []
    for clip in (True, True, False):
        torch.manual_seed(7)
        x = 1 + STD / 10 * torch.randn(200, 1, dtype=torch.float64)
        bounds.append(DiscreteBound(Small(), None, clip=clip).log_prob(known(scaled(30)), x))
    assert torch.equal(bounds[0], bounds[1])
    assert not torch.equal(bounds[0], bounds[2]), "x̂ beyond 1 is clipped"


@pytest.mark.parametrize("t", [2.0, 30.0, 1000.0])
def test_the_weight_of_an_error_of_eps_is_the_published_one(t: float) -> None:
    """KL = β²/(2σ²α(1 - ᾱ)) ‖ε - ε̂‖² with Σ = σ² = β̃ (Ho et al. 2020, arXiv:2006.11239, eq. 12)."""
    betas = linear_betas(1000, 1e-4, 0.02)
    path, i = Table(betas), int(t) - 1
    bars = (1 - betas).cumprod(0)
    sigma2 = betas[i] * (1 - bars[i - 1]) / (1 - bars[i])
    weight = betas[i] ** 2 / (2 * sigma2 * (1 - betas[i]) * (1 - bars[i]))
    x, eps, eps_hat = torch.randn(3, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = path(tensor([t] * 4), 2)
    x_hat = Eps().denoise(p.alpha * x + p.sigma * eps, eps_hat, p)
    found = variational.term(path, x, x_hat, p.t[:, 0], tensor(0.0), None)
    torch.testing.assert_close(found, weight * (eps - eps_hat).square().sum(1), rtol=1e-6, atol=0)


def test_large_small_and_learned_are_points_of_one_range() -> None:
    path, x = scaled(10), tensor([[0.4]])
    beta, x_hat = 1 - (path.alpha[1:] / path.alpha[:-1]) ** 2, tensor([[0.1]])
    for t in range(1, 11):
        p, q = path(tensor([float(t)]), 2), path(tensor([float(t - 1)]), 2)
        posterior = path(tensor([float(max(t, 2))]), 2).posterior(path(tensor([max(t, 2) - 1.0]), 2), 0.0, 1.0)[1]
        slope, own = p.posterior(q, 0.0, 1.0)
        for recipe, variance in ((Small(), posterior), (Large(), beta[t - 1] if t > 1 else posterior)):
            model = Normal(slope * x_hat, variance.sqrt())
            expected = kl_divergence(Normal(slope * x, own.sqrt()), model) if t > 1 else -model.log_prob(x)
            found = variational.term(path, x, x_hat, p.t[:, 0], recipe(p, None) * (t > 1), None)
            torch.testing.assert_close(found, expected[:, 0], msg=f"{type(recipe).__name__} at {t}")
    v = torch.rand(2, 3)
    assert Learned()(path(tensor([1.0, 5.0]), 2), v) is v


def test_the_learned_variance_of_gaussian_data_is_the_best_one() -> None:
    """The hybrid term, convex in log Σ, has gradient zero at the true Var[x_{t-1} | x_t] and falls towards it elsewhere."""
    path, (z, w) = scaled(10), quadrature()
    pairs, weight = torch.cartesian_prod(MEAN + STD * z, z), torch.cartesian_prod(w, w).prod(1)
    t = torch.arange(1, 11, dtype=torch.float64).repeat_interleave(25)  # 25 pairs at each of 10 steps
    x, eps = (column.repeat(10)[:, None] for column in pairs.T)
    p, term = path(t, 2), LearnedVariance(1e-3, frozen_mean=True, levels=None)
    x_t = p.alpha * x + p.sigma * eps

    def gradient(v: Tensor) -> Tensor:
        v = v.clone().requires_grad_()
        losses = term(known(path), x, x_t, t, known(path)(x_t, t), v.repeat_interleave(25)[:, None])
        (found,) = torch.autograd.grad((1000 * losses * weight.repeat(10)).sum(), v)
        return found

    torch.testing.assert_close(gradient(best(path)), torch.zeros(10, dtype=torch.float64), rtol=0, atol=1e-9)
    assert (gradient(best(path) + 0.1) > 1e-8).all()
    assert (gradient(best(path) - 0.1) < -1e-8).all()


@pytest.mark.parametrize("levels", [None, 17])
def test_the_hybrid_term_teaches_the_variance_alone(levels: int | None) -> None:
    path, t = scaled(10), torch.tensor([1.0, 2.0, 9.0])
    x = torch.linspace(-1, 1, 17)[torch.tensor([[0, 3], [8, 16], [5, 6]])]
    out, v = torch.randn(3, 2, requires_grad=True), torch.rand(3, 2, requires_grad=True)
    p = path(t, 2)
    x_t = p.alpha * x + p.sigma * torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(nn.Identity(), path, Eps(), Index(), learned_variance=True)
    frozen = LearnedVariance(1e-3, True, levels)(denoiser, x, x_t, t, out, v)
    free = LearnedVariance(1e-3, False, levels)(denoiser, x, x_t, t, out, v)
    assert torch.equal(frozen, free), "freezing changes the gradient and not the value"
    of_out, of_v = torch.autograd.grad(frozen.sum(), (out, v), allow_unused=True)
    assert of_out is None
    assert (of_v != 0).all()
    of_out, same = torch.autograd.grad(free.sum(), (out, v))
    assert (of_out != 0).all()
    torch.testing.assert_close(same, of_v)


@pytest.mark.parametrize("levels", [None, 17])
def test_the_term_times_uniform_steps_is_the_bound_in_bits(levels: int | None) -> None:
    """E_t[T L_{t-1}] over all t, with the same noise, is -log₂ p/D but for L_T, and hybrid's scale is published."""
    path, v = scaled(12), 0.3
    denoiser = known(path, v)
    x = torch.linspace(-1, 1, 17, dtype=torch.float64)[torch.tensor([[2, 9], [16, 0]])]
    term, total = LearnedVariance(1e-3, True, levels), torch.zeros(2, dtype=torch.float64)
    torch.manual_seed(3)
    expected = -DiscreteBound(Learned(), levels, clip=False).log_prob(denoiser, x)
    torch.manual_seed(3)
    for step in [*range(2, 13), 1]:
        t = tensor([float(step)] * 2)
        if step > 1:
            torch.rand(2, dtype=torch.float64)  # what the bound draws its strata with
        p = path(t, 2)
        x_t = p.alpha * x + p.sigma * torch.randn_like(x)
        out, learned = denoiser.output(x_t, p)
        total += term(denoiser, x, x_t, t, out, learned) / 12
    end = path(tensor(12.0), 2)
    prior = kl_divergence(Normal(end.alpha * x, end.sigma), Normal(0, end.sigma)).sum(1)
    torch.testing.assert_close(total, 1e-3 * (expected - prior) / (2 * math.log(2)))


def test_an_untrained_network_on_the_cosine_path_has_finite_gradients() -> None:
    """ᾱ_T is 2e-9 there, and x̂ wrong by tens of thousands."""
    path = Table(cosine_betas(4000))
    t = torch.tensor([1.0, 2.0, 3999.0, 4000.0])
    x, out = torch.full((4, 3), -1.0), torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    p = path(t, 2)
    x_t = p.alpha * x + p.sigma * torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    v = torch.full((4, 3), 0.5, requires_grad=True)
    denoiser = Denoiser(nn.Identity(), path, Eps(), Index(0.25), learned_variance=True)
    found = LearnedVariance(1.0, False, 256)(denoiser, x, x_t, t, out, v)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(out.grad).all()  # pyright: ignore
    assert torch.isfinite(v.grad).all()  # pyright: ignore


def test_refusals() -> None:
    path = scaled(10)
    bound = DiscreteBound(Learned(), 17, clip=True)
    with pytest.raises(GenlabError, match="VP path is continuous"):
        bound.check(Denoiser(nn.Identity(), VP(), X(), Index()))
    with pytest.raises(GenlabError, match="learns no variance"):
        bound.check(known(path))
    bound.check(known(path, 0.5))
    with pytest.raises(GenlabError, match="at least 2 steps"):
        bound.check(known(Table(linear_betas(1, 0.1, 0.1)), 0.5))
    with pytest.raises(GenlabError, match="at least one is needed"):
        DiscreteBound(Small(), 17, clip=True, terms=0)
    with pytest.raises(GenlabError, match="outputs_per_channel=2"):
        LearnedVariance(1.0, True, None)(known(path), *torch.zeros(2, 3, 1), torch.ones(3), torch.zeros(3, 1), None)
