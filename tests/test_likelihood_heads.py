"""Heads against naive float64 formulas and torch.distributions; draws against masses."""

import math

import pytest
import torch
from torch.distributions import Normal

from genlab.codec import Pixels
from genlab.errors import GenlabError
from genlab.likelihood_heads import Bernoulli, DiscretizedLogistic, FixedGaussian, Gaussian, OptimalGaussian

MEANS = (-30.0, -1.0, -0.3, 0.01, 1.0, 2.5, 1e6)
LOG_SCALES = (-50.0, -7.0, -3.0, 0.0, 3.0, 10.0)
levels_of = pytest.mark.parametrize("levels", [2, 17, 256])


def every_level(levels, mu, log_s, dtype=torch.float64):
    """x (levels, 1) and parameters (levels, 2) that put every level under one logistic."""
    x = torch.linspace(-1, 1, levels, dtype=torch.float64).to(dtype)[:, None]
    return x, torch.tensor([[mu, log_s]], dtype=dtype).repeat(levels, 1)


@levels_of
@pytest.mark.parametrize("log_s", LOG_SCALES)
@pytest.mark.parametrize("mu", MEANS)
def test_masses_of_all_levels_sum_to_1(levels, mu, log_s):
    """In float32, where logits of 1e3 (s = e^-7) are known to 6e-5."""
    masses = DiscretizedLogistic(levels).log_prob(*every_level(levels, mu, log_s, torch.float32)).exp()
    assert masses.sum().item() == pytest.approx(1, abs=1e-4)


@levels_of
@pytest.mark.parametrize("log_s", [-7.0, -3.0, 0.0, 3.0])
@pytest.mark.parametrize("mu", [-1.5, -0.3, 0.0, 0.99])
def test_logistic_masses_are_differences_of_sigmoids(levels, mu, log_s):
    x, parameters = every_level(levels, mu, log_s)
    s, half = torch.tensor(log_s).double().exp(), 1 / (levels - 1)
    upper, lower = ((x + half - mu) / s).sigmoid(), ((x - half - mu) / s).sigmoid()
    upper[-1], lower[0] = 1.0, 0.0
    naive = (upper - lower)[:, 0]
    masses = DiscretizedLogistic(levels).log_prob(x, parameters).exp()
    torch.testing.assert_close(masses, naive, rtol=1e-6, atol=1e-15)  # the naive difference loses digits, not ours


@pytest.mark.parametrize("log_s", LOG_SCALES)
@pytest.mark.parametrize("mu", MEANS)
def test_logistic_is_finite_and_right_at_extremes(mu, log_s):
    """Log-masses of float32 and their gradients, where probabilities underflow: against float64."""
    head = DiscretizedLogistic(256)
    x, parameters = every_level(256, mu, log_s, torch.float32)
    log_p = head.log_prob(x, parameters.requires_grad_())
    log_p.sum().backward()
    assert log_p.isfinite().all()
    assert parameters.grad.isfinite().all()
    torch.testing.assert_close(log_p.double(), head.log_prob(*every_level(256, mu, log_s)), rtol=1e-4, atol=1e-4)


def test_each_number_has_its_own_parameters():
    """Images: means are the first half of the channels and log-scales the second; rows do not mix."""
    head, generator = DiscretizedLogistic(17), torch.Generator().manual_seed(0)
    x = torch.randint(17, (4, 3, 2, 2), generator=generator).double() / 8 - 1
    mu, log_s = torch.randn(2, 4, 3, 2, 2, generator=generator).double()
    total = head.log_prob(x, torch.cat([mu, log_s], dim=1))
    single = head.log_prob(x.reshape(-1, 1), torch.stack([mu.flatten(), log_s.flatten()], dim=1))
    torch.testing.assert_close(total, single.reshape(4, -1).sum(1))


@levels_of
@pytest.mark.parametrize(("mu", "log_s"), [(0.0, -1.0), (0.9, -3.0), (-2.0, 0.5)])
def test_logistic_draws_fall_on_levels_with_their_masses(levels, mu, log_s):
    """u runs over n equal steps, so that frequencies are the masses up to 1/n."""
    n, head = 100_000, DiscretizedLogistic(levels)
    u = (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / n
    draws = head.sample(torch.tensor([[mu, log_s]], dtype=torch.float64), u)
    frequencies = ((draws[:, 0] + 1) * (levels - 1) / 2).round().long().bincount(minlength=levels) / n
    masses = head.log_prob(*every_level(levels, mu, log_s)).exp()
    torch.testing.assert_close(frequencies.double(), masses, rtol=0, atol=1.1 / n)


def test_logistic_mean_is_its_location_within_the_range():
    parameters = torch.tensor([[0.3, 1.0], [-4.0, 1.0]])
    assert DiscretizedLogistic(17).mean(parameters).tolist() == [[pytest.approx(0.3)], [-1.0]]


@pytest.mark.parametrize("logit", [-1000.0, -3.0, 0.0, 0.5, 1000.0])
def test_bernoulli(logit):
    head, parameters = Bernoulli(2), torch.full((2, 1), logit, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    log_p = head.log_prob(x, parameters)
    exact = torch.distributions.Bernoulli(logits=torch.tensor(logit).double())
    torch.testing.assert_close(log_p, exact.log_prob(torch.tensor([0.0, 1.0]).double()))
    log_p.sum().backward()
    assert parameters.grad.isfinite().all()
    assert head.mean(parameters)[0].item() == pytest.approx((log_p.exp() * x[:, 0]).sum().item())


def test_bernoulli_draws():
    u = (torch.arange(1000)[:, None] + 0.5) / 1000
    draws = Bernoulli(2).sample(torch.full((1000, 1), 0.7), u)
    assert draws.unique().tolist() == [-1.0, 1.0]
    assert (draws > 0).float().mean().item() == pytest.approx(torch.tensor(0.7).sigmoid().item(), abs=1e-3)


def test_bernoulli_refuses_grey_levels():
    with pytest.raises(GenlabError, match="DiscretizedLogistic"):
        Bernoulli(17)


def test_gaussian():
    x, mu, log_s = torch.randn(3, 5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters, exact = torch.cat([mu, log_s], dim=1), Normal(mu, log_s.exp())
    torch.testing.assert_close(Gaussian().log_prob(x, parameters), exact.log_prob(x).sum((1, 2)))
    assert torch.equal(Gaussian().mean(parameters), mu)
    u = torch.rand(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(Gaussian().sample(parameters, u), exact.icdf(u))


def errors(seed=0, s=0.3):
    """x and a prediction of it that is off by s."""
    x, noise = torch.randn(2, 6, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x, (x + s * noise).requires_grad_()


def test_fixed_gaussian():
    x, mu = errors()
    exact = Normal(mu, 0.7)
    torch.testing.assert_close(FixedGaussian(0.7).log_prob(x, mu), exact.log_prob(x).sum((1, 2)))
    u = torch.rand(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(FixedGaussian(0.7).sample(mu, u), exact.icdf(u))
    assert torch.equal(FixedGaussian(0.7).mean(mu), mu)


def test_a_given_s_is_not_rounded_to_what_autocast_made_of_the_mean():
    x, mu = torch.randn(4, 3), torch.randn(4, 3).bfloat16()
    head = FixedGaussian(0.21909)
    torch.testing.assert_close(head.log_prob(x, mu), head.log_prob(x, mu.float()), rtol=1e-6, atol=1e-5)


def test_the_optimal_s_is_the_best_and_its_gradient_that_of_half_the_log_of_the_squared_error():
    """max_s Σ log N(x; μ, s²) by a fine grid; at the best s the gradient does not go through s."""
    x, mu = errors()
    best = OptimalGaussian(0.9).log_prob(x, mu).sum()
    grid = torch.linspace(0.05, 1.0, 400, dtype=torch.float64)
    others = torch.stack([Normal(mu, s).log_prob(x).sum() for s in grid])
    assert others.max() <= best
    assert others.max().item() == pytest.approx(best.item(), rel=1e-3)
    (gradient,) = torch.autograd.grad(best, mu)
    (direct,) = torch.autograd.grad(-x.numel() / 2 * (x - mu).square().mean().log(), mu)
    torch.testing.assert_close(gradient, direct)


def test_outside_of_training_s_is_what_the_batches_of_training_left():
    head = OptimalGaussian(0.5).double()
    s = [0.1, 0.3, 0.2]
    logs = []
    for seed, scale in enumerate(s):
        x, mu = errors(seed, scale)
        head.log_prob(x, mu)
        logs.append((x - mu).square().mean().log().item() / 2)
    kept = (logs[0] + logs[1]) / 4 + logs[2] / 2  # the first two alike, then by half
    x, mu = errors(9, 0.7)
    exact = Normal(mu, math.exp(kept)).log_prob(x).sum((1, 2))
    with torch.no_grad():
        torch.testing.assert_close(head.log_prob(x, mu), exact)  # also where nobody has said eval()
    head.eval()
    torch.testing.assert_close(head.log_prob(x, mu), exact)
    assert head.log_s.item() == pytest.approx(kept)


def test_an_exact_autoencoder_has_a_finite_likelihood():
    x, _ = errors()
    assert OptimalGaussian(0.9).log_prob(x, x.clone()).isfinite().all()


@pytest.mark.parametrize("head", [Bernoulli(2), DiscretizedLogistic(2)])
def test_lattice_heads_refuse_what_is_off_their_levels(head):
    head.check(torch.tensor([[-1.0, 1.0]]))
    for wrong in ([0.0, 1.0], [-1.0, 0.3], [-1.0, 3.0], [math.nan, 1.0], [math.inf, 1.0]):
        with pytest.raises(GenlabError, match="2 levels"):
            head.check(torch.tensor([wrong]))


def test_every_level_of_eight_bits_is_on_the_lattice():
    head = DiscretizedLogistic(256)
    head.check(Pixels(256).encode(torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)))
    with pytest.raises(GenlabError, match="reach from -1 to 255"):
        head.check(torch.tensor([-1.0, 255.0]))


def test_densities_refuse_only_what_is_not_finite():
    Gaussian().check(torch.tensor([7.3]))
    with pytest.raises(GenlabError, match="not finite"):
        Gaussian().check(torch.tensor([7.3, -math.inf]))


@pytest.mark.parametrize(
    "make", [lambda: FixedGaussian(0.0), lambda: OptimalGaussian(1.0), lambda: DiscretizedLogistic(1)]
)
def test_impossible_heads_are_refused(make):
    with pytest.raises(GenlabError):
        make()
