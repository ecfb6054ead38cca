"""The law of training times, and the weight of each."""

import pytest
import scipy.stats
import torch

from genlab.errors import GenlabError
from genlab.gaussian import weights
from genlab.gaussian.parametrization import Eps, Karras, ScaledScore, Score, V, Velocity, X
from genlab.gaussian.path import VP, Cosine, Linear
from genlab.gaussian.path import Karras as Sigma
from genlab.gaussian.tables import Table, linear_betas
from genlab.gaussian.times import (
    Antithetic,
    Independent,
    LogitNormal,
    LogNormal,
    LossSecondMoment,
    LowDiscrepancy,
    Steps,
    Uniform,
)
from genlab.gaussian.weights import P2, Likelihood, MinSNR, SigmaSquared, Unit, Zero

CPU = torch.device("cpu")
DRAWS = {kind.__name__: kind() for kind in (Independent, Antithetic, LowDiscrepancy)}
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1e-5, 1.0), (0.2, 0.7)])
def test_uniform(low, high):
    torch.manual_seed(0)
    t = Uniform(low, high)(20_000, CPU)
    assert t.dtype == torch.float32
    assert low <= t.min()
    assert t.max() <= high
    assert scipy.stats.kstest(t.numpy(), "uniform", (low, high - low)).pvalue > 1e-3


def test_steps_are_equally_likely_and_start_at_1():
    torch.manual_seed(0)
    t = Steps(10)(20_000, CPU)
    assert t.dtype == torch.float32
    assert t.unique().tolist() == list(range(1, 11))
    assert scipy.stats.chisquare(t.long().bincount()[1:].numpy()).pvalue > 1e-3


def test_sigma_squared_makes_a_score_loss_that_of_its_scaled_score(path):
    """½σ² ‖s + ε/σ‖² = ½ ‖σs + ε‖²: NCSN's loss does not depend on the noise level."""
    p = path(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64) * path.t_max, 2)
    x, eps, score = torch.randn(3, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weighted = SigmaSquared()(p, Score()) * (score - Score().target(x, eps, p)) ** 2
    torch.testing.assert_close(weighted, (p.sigma * score - ScaledScore().target(x, eps, p)) ** 2 / 2)
    assert Unit()(p, Score()) == 1
    assert Zero()(p, Score()) == 0


LAWS = {
    "Uniform": (Uniform(0.1, 0.9), scipy.stats.uniform(0.1, 0.8)),
    "LogNormal": (LogNormal(-1.2, 1.2), scipy.stats.lognorm(1.2, scale=2.718281828459045**-1.2)),
    "LogitNormal": (LogitNormal(-0.5, 0.8), None),
}


@every_draw
@pytest.mark.parametrize("name", LAWS)
def test_laws_are_what_they_are_called_however_they_are_drawn(name, draw):
    """One time of each of many batches, which are independent of each other whatever happens within one."""
    law, truth = LAWS[name]
    law.draw = draw
    torch.manual_seed(0)
    t = torch.stack([law(6, CPU) for _ in range(3000)])  # (3000, 6)
    for column in (0, 5):
        x = t[:, column].double()
        x, cdf = (x.logit() + 0.5, scipy.stats.norm(0, 0.8).cdf) if truth is None else (x, truth.cdf)
        assert scipy.stats.kstest(x.numpy(), cdf).pvalue > 1e-3
    law.draw = Independent()


@every_draw
def test_steps_however_drawn_are_equally_likely(draw):
    torch.manual_seed(0)
    t = torch.cat([Steps(10, draw)(7, CPU) for _ in range(3000)])
    assert scipy.stats.chisquare(t.long().bincount(minlength=11)[1:].numpy()).pvalue > 1e-3


def test_antithetic_steps_are_the_pairs_of_ddim():
    torch.manual_seed(0)
    t = Steps(1000, Antithetic())(128, CPU)
    assert ((t[:64] + t[64:]) == 1001).float().mean() > 0.98  # but where u sits on a border in float32
    assert Steps(1000, Antithetic())(7, CPU).shape == (7,)


def test_low_discrepancy_times_fill_every_interval_once():
    torch.manual_seed(0)
    t = Uniform(0.0, 1.0, LowDiscrepancy())(64, CPU)
    assert sorted((t * 64).long().tolist()) == list(range(64))


def test_extreme_uniform_numbers_give_finite_times():
    u = torch.tensor([0.0, 1.0])
    assert LogNormal(-1.2, 1.2).quantile(u).isfinite().all()
    assert Steps(10).quantile(u).tolist() == [1, 10]


# ------------------------------------------------------------------ weights

PARAMETRIZATIONS = (Eps(), X(), V(), Score(), ScaledScore(), Velocity(), Karras(0.5))


def errors(path, parametrization, weight):
    """The weighted error of an output that is off by δ, with the errors of ε̂, x̂ and the score that it makes."""
    p = path(path.t_max * torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), 2)
    x, eps, delta = torch.randn(3, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_t = p.alpha * x + p.sigma * eps
    x_hat = parametrization.denoise(x_t, parametrization.target(x, eps, p) + delta, p)
    return p, weight(p, parametrization) * delta**2, p.eps(x_t, x_hat) - eps, x_hat - x


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("path", ["VP", "SubVP", "Linear", "Karras"], indirect=True)
def test_weights_mean_the_same_for_every_output(path, parametrization):
    p, weighted, eps, _ = errors(path, parametrization, SigmaSquared())
    torch.testing.assert_close(weighted, eps**2 / 2)
    p, weighted, eps, _ = errors(path, parametrization, Likelihood())
    torch.testing.assert_close(weighted, p.diffusion2 * (eps / p.sigma) ** 2)
    p, weighted, eps, _ = errors(path, parametrization, P2(1.0, 1.0))
    torch.testing.assert_close(weighted, eps**2 / (1 + p.alpha**2 / p.sigma**2))
    p, weighted, eps, x = errors(path, parametrization, MinSNR(5.0))
    snr = p.alpha**2 / p.sigma**2
    torch.testing.assert_close(weighted, snr.clamp(max=5.0) * x**2)
    torch.testing.assert_close(weighted, (5.0 / snr).clamp(max=1.0) * eps**2)


@pytest.mark.parametrize("path", ["VP"], indirect=True)
def test_min_snr_of_v_is_that_of_the_paper(path):
    """min(SNR, γ)/(SNR + 1)."""
    p = path(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), 2)
    snr = p.alpha**2 / p.sigma**2
    torch.testing.assert_close(MinSNR(5.0)(p, V()), snr.clamp(max=5.0) / (snr + 1))


@pytest.mark.parametrize("path", ["Karras"], indirect=True)
def test_unit_weight_of_karras_is_that_of_edm(path):
    """λ(σ) = (σ² + s²)/(σs)² on the error of x̂."""
    p, weighted, _, x = errors(path, Karras(0.5), Unit())
    torch.testing.assert_close(weighted, (p.sigma**2 + 0.25) / (p.sigma * 0.5) ** 2 * x**2)


def test_reductions():
    error = torch.arange(12.0).reshape(2, 2, 3)
    assert weights.mean(error).tolist() == [2.5, 8.5]
    assert weights.total(error).tolist() == [15.0, 51.0]
    assert weights.half_sum(error).tolist() == [7.5, 25.5]


@pytest.mark.parametrize(
    ("times", "path", "remedy"),
    [
        (LogNormal(-1.2, 1.2), VP(), "to 1: use .*Uniform"),
        (Uniform(), Table(linear_betas(1000, 1e-4, 0.02)), "a whole number from 1 to 1000: use .*Steps"),
        (Steps(1001), Table(linear_betas(1000, 1e-4, 0.02)), "from 1 to 1001"),
        (Uniform(1e-5), Sigma(80.0), "to 80: use .*LogNormal"),
        (Uniform(), Linear(t_max=0.9), "to 0.9"),
    ],
)
def test_a_law_that_does_not_fit_the_path_is_refused(times, path, remedy):
    with pytest.raises(GenlabError, match=remedy):
        times.check(path)


@pytest.mark.parametrize(
    ("times", "path"),
    [
        (LogNormal(-2.0, 1.6), Sigma(80.0)),
        (LogitNormal(-1.0, 0.5), Linear()),
        (Uniform(1e-5), Cosine()),
        (LossSecondMoment(10), Table(linear_betas(10, 1e-4, 0.02))),
    ],
)
def test_a_law_that_prefers_some_times_fits(times, path):
    times.check(path)
