"""The probability flow's log-density and latents against densities that are known."""

import math

import pytest
import torch
from torch import nn

from genlab.errors import GenlabError
from genlab.evaluation.protocol import counted
from genlab.gaussian.denoiser import Denoiser, Time
from genlab.gaussian.likelihood import Exact, Flow, Gaussian, Hutchinson, ProbabilityFlow, Rademacher
from genlab.gaussian.parametrization import X
from genlab.gaussian.path import VE, VP, Cosine, GaussianPath, Karras, Linear, SubVP
from genlab.gaussian.tables import Levels, Table, linear_betas

PATHS = {
    "VP": VP(),
    "SubVP": SubVP(),
    "VE": VE(1e-3, 50.0),
    "Karras": Karras(80.0),
    "Cosine": Cosine(),
    "Linear": Linear(),
}
GAUSSIAN = ([1.0], [[0.5, -1.0]], [0.6, 1.5])
MIXTURE = ([0.5, 0.3, 0.2], [[0.8, 0.8], [-0.9, 0.3], [0.2, -0.9]], [0.2, 0.3])
LAWS = {"gaussian": GAUSSIAN, "mixture": MIXTURE}


class Known(nn.Module):
    """Σ_k w_k N(m_k, diag(s²)): E[x | x_t], and log p_t, of which t = 0 is the data's own."""

    def __init__(self, path: GaussianPath, law: tuple[list[float], list[list[float]], list[float]]):
        super().__init__()
        self.path = path
        self.weights, self.means, self.stds = (torch.tensor(v, dtype=torch.float64) for v in law)

    def components(self, x_t: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        alpha, sigma, _, _ = self.path.coefficients(t)
        variance = alpha**2 * self.stds**2 + sigma**2
        return alpha, variance, x_t[:, None] - alpha * self.means  # (B, K, D)

    def forward(self, x_t: torch.Tensor, c: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        alpha, variance, residual = self.components(x_t, c[0])
        responsibility = (self.weights.log() - (residual**2 / variance).sum(2) / 2).softmax(1)
        each = self.means + alpha * self.stds**2 / variance * residual
        return (responsibility[..., None] * each).sum(1)

    def log_prob(self, x_t: torch.Tensor, t: float = 0.0) -> torch.Tensor:
        _, variance, residual = self.components(x_t, torch.tensor(t, dtype=torch.float64))
        each = -(residual**2 / variance + (2 * math.pi * variance).log()).sum(2) / 2
        return (self.weights.log() + each).logsumexp(1)

    def sample(self, n: int) -> torch.Tensor:
        k = torch.multinomial(self.weights, n, replacement=True)
        return self.means[k] + self.stds * torch.randn(n, 2, dtype=torch.float64)


def denoiser(path: GaussianPath, law: tuple = GAUSSIAN) -> Denoiser:
    return Denoiser(Known(path, law), path, X(), Time(1.0))


def sigma(path: GaussianPath, t: float) -> float:
    return path(torch.tensor(t, dtype=torch.float64), 1).sigma.item()


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_density_to_four_digits(path: GaussianPath, law: tuple) -> None:
    """Once the one thing that it takes for granted is made good: the prior N(0, σ_T²) for the true p_T."""
    torch.manual_seed(0)
    model = denoiser(path, law)
    x = model.network.sample(16)
    flow = ProbabilityFlow(Exact(), 1e-5, 1e-6)
    found = flow.log_prob(model, x)
    z, scale = flow.flow.encode(model, x), sigma(path, path.t_max)
    prior = torch.distributions.Normal(0.0, scale).log_prob(scale * z).sum(1)
    bias = prior - model.network.log_prob(scale * z, path.t_max)
    torch.testing.assert_close(found - bias, model.network.log_prob(x), rtol=1e-4, atol=1e-4)
    assert bias.abs().max() < 0.1  # and it takes little for granted


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_latent_of_a_gaussian_is_the_closed_form(path: GaussianPath) -> None:
    """The flow carries quantiles to quantiles: z = (α_T m + s_T (x - α_ε m)/s_ε)/σ_T with s_t² = α_t² s² + σ_t²."""
    model = denoiser(path)
    x = torch.randn(32, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (mean,), std = model.network.means, model.network.stds
    start, end = (path(torch.tensor(t, dtype=torch.float64), 1) for t in (1e-5, path.t_max))
    ratio = ((end.alpha**2 * std**2 + end.sigma**2) / (start.alpha**2 * std**2 + start.sigma**2)).sqrt()
    expected = (end.alpha * mean + ratio * (x - start.alpha * mean)) / end.sigma
    torch.testing.assert_close(Flow(1e-5, 1e-6, 2000).encode(model, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_rendering_undoes_encoding_to_the_tolerance(path: GaussianPath) -> None:
    torch.manual_seed(0)
    model = denoiser(path, MIXTURE)
    x = model.network.sample(32)
    errors = []
    for tolerance in (1e-3, 1e-5):
        flow = Flow(1e-5, tolerance, 2000)
        errors.append((flow.render(model, flow.encode(model, x)) - x).square().mean().sqrt().item())
        assert errors[-1] < 100 * tolerance * max(1, sigma(path, path.t_max) / 10)
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_latents_of_data_are_standard_normal(path: GaussianPath) -> None:
    """Kolmogorov and Smirnov's distance of each dimension, at the level of one in a thousand; and no correlation."""
    n = 4000
    torch.manual_seed(1)
    model = denoiser(path, MIXTURE)
    z = Flow(1e-5, 1e-4, 2000).encode(model, model.network.sample(n))
    ranks = torch.arange(1, n + 1) / n
    for column in z.T:
        u = torch.special.ndtr(column.sort().values)
        distance = torch.maximum((ranks - u).max(), (u - ranks + 1 / n).max())
        assert distance < 1.95 / n**0.5
    assert abs(torch.corrcoef(z.T)[0, 1]) < 3.3 / n**0.5


def test_rademacher_probes_are_exact_for_a_diagonal_jacobian() -> None:
    """eᵀJe = tr J with e = ±1, whatever the signs; and that is the case of a Gaussian's flow."""
    model = denoiser(Linear())
    x = model.network.sample(32)
    exact = ProbabilityFlow(Exact(), 1e-5, 1e-4).log_prob(model, x)
    torch.testing.assert_close(ProbabilityFlow(Hutchinson(), 1e-5, 1e-4).log_prob(model, x), exact)


@pytest.mark.parametrize("diagonal", [True, False])
def test_probes_are_unbiased_and_their_variances_the_known_ones(diagonal: bool) -> None:
    """Var = 2 Σ_ij S_ij² of Gaussian probes, without its diagonal of Rademacher ones; S = (J + Jᵀ)/2."""
    n = 100_000
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 4, dtype=torch.float64, generator=generator) + (2 * torch.eye(4) if diagonal else 0)
    symmetric = (matrix + matrix.T) / 2
    whole = 2 * symmetric.square().sum().item()
    expected = {Gaussian: whole, Rademacher: whole - 2 * symmetric.diagonal().square().sum().item()}
    torch.manual_seed(0)
    x = torch.randn(n, 4, dtype=torch.float64).requires_grad_()
    for probe, variance in expected.items():
        divergence = Hutchinson(probe())
        divergence.start(x)
        found = divergence(x @ matrix.T, x)
        assert abs(found.mean() - matrix.trace()) < 4 * (variance / n) ** 0.5
        assert found.var().item() == pytest.approx(variance, rel=0.05)
    assert expected[Rademacher] <= expected[Gaussian]
    torch.testing.assert_close(Exact()(x @ matrix.T, x), matrix.trace().expand(n))


def test_probes_stay_while_a_trajectory_lasts() -> None:
    """So that the estimate is one ODE's, and its mean over probes the density."""
    torch.manual_seed(0)
    model = denoiser(Linear(), MIXTURE)
    x = model.network.sample(1).expand(2000, -1)
    found = ProbabilityFlow(Hutchinson(Gaussian()), 1e-5, 1e-4).log_prob(model, x)
    assert abs(found.mean() - model.network.log_prob(x)[0]) < 4 * found.std() / len(x) ** 0.5


def test_every_evaluation_passes_the_network_and_is_counted() -> None:
    model = denoiser(Linear())
    with counted(model.network) as evaluations:
        ProbabilityFlow(Exact(), 1e-5, 1e-3).log_prob(model, torch.zeros(5, 2, dtype=torch.float64))
    needed = evaluations.rows // 5
    with pytest.raises(GenlabError, match=f"in {needed - 1} evaluations"):
        ProbabilityFlow(Exact(), 1e-5, 1e-3, most=needed - 1).log_prob(model, torch.zeros(5, 2, dtype=torch.float64))
    ProbabilityFlow(Exact(), 1e-5, 1e-3, most=needed).log_prob(model, torch.zeros(5, 2, dtype=torch.float64))


def test_refusals() -> None:
    flow = ProbabilityFlow(Exact(), 1e-5, 1e-8, most=10)
    table, levels = Table(linear_betas(10, 1e-4, 0.02)), Levels(0.01, 1.0, 5)
    with pytest.raises(GenlabError, match="use the path VP"):
        flow.check(denoiser(table))
    with pytest.raises(GenlabError, match="use the path VE"):
        flow.flow.encode(denoiser(levels), torch.zeros(2, 2))
    for t_end in (0.0, 1.5):
        with pytest.raises(GenlabError, match=rf"likelihood\.t_end={t_end:g}: .* the VP path ends at 1"):
            ProbabilityFlow(Exact(), t_end, 1e-8).check(denoiser(VP()))
    with pytest.raises(GenlabError, match="tolerance 1e-08 in 10 evaluations"):
        flow.log_prob(denoiser(VP()), torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(GenlabError, match=r"tolerance 1e-08: .* NaN"):
        ProbabilityFlow(Exact(), 1e-5, 1e-8).log_prob(denoiser(VP()), torch.full((2, 2), torch.nan))
    with pytest.raises(GenlabError, match="repeats=0"):
        ProbabilityFlow(Exact(), 1e-5, 1e-8, repeats=0)
