"""What samplers end with: Gaussian data, where it is known exactly, and a mixture.

A sampler that is affine in its start and in its noise turns Gaussians into Gaussians. `law` reads the map off unit
impulses, so that only the error of the discretization is left, and no sampling error.
"""

import math
from functools import partial

import pytest
import torch

from genlab.gaussian.grids import KarrasRho, Linspace, LogSNR, Trailing
from genlab.gaussian.path import VE, Karras
from genlab.gaussian.samplers import AnnealedLangevin, DPMSolverPP, Euler, ProbabilityFlow
from genlab.gaussian.tables import Levels
from genlab.noise import NoiseStream

CONTINUOUS = ("VP", "SubVP", "Cosine", "VE", "Karras", "Linear")
EVERY = (*CONTINUOUS, "Table", "Levels")
ANY = ("ancestral-small", "ancestral-large", "ancestral-learned", "ddim-0", "ddim-0.5", "ddim-1", "reverse-diffusion")
MULTISTEP = ("dpmpp-2m", "dpmpp-3m", "dpmpp-2m-sde", "unipc-2", "unipc-3", "unipc-2-bh1")
PAIRS = [(path, name) for path in EVERY for name in (*ANY, *MULTISTEP)]
PAIRS += [(path, name) for path in CONTINUOUS for name in ("euler", "heun", "churn")]
PAIRS += [
    (path, "euler-maruyama") for path in CONTINUOUS[:-1]
]  # the drift of Linear's reverse SDE is infinite at t = 1
T_END = {"VP": 1e-3, "SubVP": 1e-3, "Cosine": 1e-3, "VE": 1e-5, "Linear": 1e-3, "Table": 1.0, "Levels": 1.0}


def trailing(path):
    """Equal steps, but on Karras, whose time is the noise level, where nobody takes them."""
    return KarrasRho(0.002, 80.0, 7.0) if isinstance(path, Karras) else Trailing()


def linspace(path):
    return LogSNR(0.002) if isinstance(path, Karras) else Linspace(T_END[type(path).__name__])


ORDERS = {"dpmpp-2m": 2, "dpmpp-3m": 3, "dpmpp-2m-sde": 2, "unipc-2": 3, "unipc-2-bh1": 3, "unipc-3": 4}
ORDERS |= {"heun": 2, "churn": 2}  # where no other is given: 1; UniC raises the order of UniP by one


class Impulses:
    """A noise stream whose draw k is 1 in row 2 + k, and 0 everywhere else."""

    def __init__(self):
        self.draws = 0

    def normal(self, shape):
        z = torch.zeros(shape, dtype=torch.float64)
        z[2 + self.draws] = 1
        self.draws += 1
        return z


def down_to(fraction):
    """A grid of equal steps that stops before data, at a fraction of t_max."""

    def grid(path, steps):
        times = torch.linspace(path.t_max, fraction * path.t_max, steps + 1, dtype=torch.float64)
        return times if path.twin is None else times.round()

    return grid


def marginal(gaussian, t):
    p = gaussian.at(t)
    return p.alpha * gaussian.means[0], p.alpha**2 * gaussian.stds**2 + p.sigma**2


def law(sampler, gaussian, draws):
    """Mean and variance at the end of `sampler` started from the path's own law, and the time of the end."""
    x = torch.zeros(2 + draws, 2, dtype=torch.float64)
    x[1] = 1
    *_, end = sampler.trajectory(gaussian, x, Impulses())
    origin, slope, responses = end.x_t[0], end.x_t[1] - end.x_t[0], end.x_t[2:] - end.x_t[0]
    mean, variance = marginal(gaussian, gaussian.path.t_max)
    return origin + slope * mean, slope**2 * variance + responses.square().sum(0), end.t


def error(sampler, gaussian):
    """The largest relative error of mean (in standard deviations) and variance."""
    mean, variance, t = law(sampler, gaussian, sampler.steps)
    true_mean, true_variance = marginal(gaussian, t)
    return max(((mean - true_mean) / true_variance.sqrt()).abs().max(), (variance / true_variance - 1).abs().max())


def samples(sampler, denoiser, n, start=0):
    """Rows start, start + 1, ... of the stream, from the sampler's own prior."""
    noise = NoiseStream(0, start)
    *_, end = sampler.trajectory(denoiser, denoiser.prior(noise, n), noise)
    return end.x_t


# ------------------------------------------------------------------ Gaussian data


# A multistep solver begins with a step of first order, which leaves an error of h² for good; where the noise hides the
# data at t_max it is nothing, but Cosine and Linear begin with x̂ already moving.
SLOW_START = {("Cosine", "dpmpp-3m"), ("Linear", "dpmpp-3m"), ("Linear", "unipc-3")}
CONVERGENCE = [(path, name, 2 if (path, name) in SLOW_START else ORDERS.get(name, 1)) for path, name in PAIRS]


STEEP = [case for case in CONVERGENCE if case[2] > 1 or case[0] in ("VP", "Linear", "Levels")]


@pytest.mark.parametrize(("path", "make", "order"), STEEP, indirect=["path", "make"])
def test_order_of_convergence(gaussian, make, order):
    """Twice the steps divide the error by 2^order, nearly so from 50 steps to 100."""
    coarse, fine = (error(make(steps, down_to(0.1)), gaussian) for steps in (50, 100))
    assert math.log2(coarse / fine) > order - (0.3 if order == 1 else 0.45 if order < 4 else 0.6)


def holds_the_law(gaussian, make, grid, limit):
    coarse, fine = (error(make(steps, grid), gaussian) for steps in (25, 100))
    assert fine < coarse / 2 or fine < 0.01
    assert fine < limit


@pytest.mark.parametrize(("path", "make", "order"), CONVERGENCE, indirect=["path", "make"])
def test_samples_have_the_mean_and_variance_of_data(path, gaussian, make, order):
    steep = isinstance(path, VE) and make is Euler  # dσ/dt = 8.5 σ
    holds_the_law(gaussian, make, trailing(path), 0.4 if steep else 0.2 if order == 1 else 0.05)


ENDS = [(path, name) for path in T_END for name in ("ancestral-small", "ddim-0", "dpmpp-2m", "unipc-3")]


@pytest.mark.parametrize(("path", "make"), ENDS, indirect=True)
def test_grids_that_end_before_data_hold_the_law_as_well(path, gaussian, make):
    holds_the_law(gaussian, make, linspace(path), 0.25)


@pytest.mark.parametrize("make", ["dpmpp-2m", "dpmpp-3m", "unipc-3", "heun"], indirect=True)
@pytest.mark.parametrize("path", ["VP", "SubVP", "Cosine", "Karras"], indirect=True)
@pytest.mark.parametrize("grid", [KarrasRho(0.002, 80.0, 7.0), LogSNR(2e-3)], ids=["karras", "logsnr"])
def test_grids_in_the_noise_level_hold_the_law_as_well(path, gaussian, make, grid):
    holds_the_law(gaussian, make, grid, 0.02)


@pytest.mark.parametrize("path", [VE(0.001, 200.0), Karras(200.0)], ids=["VE", "Karras"])
def test_a_grid_that_begins_below_the_end_of_its_path_has_the_noise_of_its_beginning(gaussian):
    holds_the_law(gaussian, partial(DPMSolverPP, order=2), KarrasRho(0.002, 80.0, 7.0), 0.02)


@pytest.mark.parametrize("path", ["VP", "SubVP", "Cosine", "VE", "Karras", "Linear"], indirect=True)
def test_probability_flow_is_the_exact_map(path, gaussian):
    """Gaussians flow by (x_t - α m)/√(α²s² + σ²) = constant; at t_end the denoiser, and all states on the same curve."""
    t_end, x = 1e-2, gaussian.prior(NoiseStream(0), 5)
    sampler = ProbabilityFlow(4, Trailing(), t_end, tolerance=1e-8, denoise=True)
    mean, variance = marginal(gaussian, path.t_max)
    z = (x - mean) / variance.sqrt()
    *between, end = sampler.trajectory(gaussian, x, NoiseStream(1))
    for state in between:
        mean, variance = marginal(gaussian, state.t)
        torch.testing.assert_close(state.x_t, mean + variance.sqrt() * z, rtol=1e-5, atol=1e-5)
    mean, variance = marginal(gaussian, t_end)
    expected = gaussian(mean + variance.sqrt() * z, torch.tensor(t_end, dtype=torch.float64))
    torch.testing.assert_close(end.x_t, expected, rtol=1e-5, atol=1e-5)
    assert (len(between), end.t) == (3, 0)


LANGEVIN = {"Levels": (Levels(0.3, 5.0, 5), Linspace(1.0)), "VE": (VE(0.3, 5.0), Linspace(1e-9))}


@pytest.mark.parametrize(("path", "grid"), LANGEVIN.values(), ids=LANGEVIN)
def test_annealed_langevin_ends_with_the_smallest_noise(gaussian, grid):
    """x ← x - (h/V)(x - m) + √(2h) z has the stationary law N(m, V/(1 - h/2V)), V = s² + σ_1²."""
    h, inner, v = 0.02, 300, gaussian.stds**2 + 0.3**2
    mean, variance, _ = law(AnnealedLangevin(5, grid, inner, h, denoise=False), gaussian, 5 * inner)
    torch.testing.assert_close(mean, gaussian.means[0], rtol=0, atol=1e-3)  # (1 - h/V)^300 is 2e-4 of where it began
    torch.testing.assert_close(variance, v / (1 - h / (2 * v)), rtol=1e-3, atol=0)
    mean, variance, _ = law(AnnealedLangevin(5, grid, inner, h, denoise=True), gaussian, 5 * inner)
    torch.testing.assert_close(mean, gaussian.means[0], rtol=0, atol=1e-3)
    torch.testing.assert_close(variance, (gaussian.stds**2 / v) ** 2 * v / (1 - h / (2 * v)), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("make", "bias"), [("corrector-batch", 0.05), ("corrector-sample", 0.2)], indirect=["make"])
@pytest.mark.parametrize("path", ["VP", "VE", "Table", "Levels"], indirect=True)
def test_predictor_corrector_has_the_moments_of_data(path, wide_gaussian, make, bias):
    """Langevin at a finite step is biased, and more so where each sample's step depends on its own score."""
    n = 2000
    x = (samples(make(200, linspace(path)), wide_gaussian, n) - wide_gaussian.means) / wide_gaussian.stds
    covariance, five = x.T.cov(), 5 / math.sqrt(n)  # five standard errors
    variance = covariance.diag()
    assert x.mean(0).abs().max() < five
    assert abs(variance.mean() - 1) < bias
    assert (variance - variance.mean()).abs().max() < math.sqrt(2) * five + bias / 2
    assert (covariance - variance.diag()).abs().max() < (1 + bias) * five


# ------------------------------------------------------------------ a mixture

MIXED = [(path, name) for path in ("VP", "VE", "Linear", "Table", "Levels") for name in ("ddim-0", "ancestral-small")]
MIXED += [(path, name) for path in ("VP", "VE") for name in ("euler-maruyama", "heun", "churn")] + [("Linear", "heun")]
MIXED += [(path, name) for path in ("VP", "Linear", "Levels") for name in ("dpmpp-2m", "dpmpp-2m-sde", "unipc-3")]
MIXED += [
    ("Cosine", "ancestral-learned"),
    ("SubVP", "ddim-0"),
    ("VP", "probability-flow"),
    ("Linear", "probability-flow"),
]


@pytest.mark.parametrize(("path", "make"), MIXED, indirect=True)
def test_modes_of_a_mixture_get_their_share(mixture, make):
    n = 2000
    x = samples(make(100, Trailing()), mixture, n)
    distance, mode = torch.cdist(x, mixture.means).min(1)
    share = mode.bincount(minlength=3) / n
    assert ((share - mixture.weights).abs() < 4 * (mixture.weights * (1 - mixture.weights) / n).sqrt()).all()
    assert (distance < 0.5).double().mean() > 0.99  # of width 0.1, and 1.3 apart
    assert 0.075 < (distance**2 / 2).mean().sqrt() < 0.115  # 100 steps leave the variance up to 40% too small


def share_of_the_large_mode(two_points, levels, inner):
    """NCSN's toy: weights 0.8 and 0.2 at ±(5, 5), width 1, chains from U[-8, 8]², step h = 0.05 σ².

    Two points have at the noise σ the score that its code gives the mixture there, whose width becomes σ.
    """
    noise = NoiseStream(0)
    x = 16 * noise.uniform((2000, 2)).double() - 8
    sampler = AnnealedLangevin(int(levels.t_max), Linspace(1.0), inner, 0.05, denoise=False)
    *_, end = sampler.trajectory(two_points(levels), x, noise)
    return (end.x_t.sum(1) > 0).double().mean()


def test_annealing_finds_the_weights_that_plain_langevin_does_not(two_points):
    """Song & Ermon 2019, figure 3: about one half without annealing, where the chains began, and 0.78 with it."""
    assert 0.48 < share_of_the_large_mode(two_points, Levels(1.0, 1.0, 1), inner=1000) < 0.54
    assert 0.755 < share_of_the_large_mode(two_points, Levels(1.0, 20.0, 10), inner=100) < 0.805


# ------------------------------------------------------------------ rows

INDEPENDENT = [pair for pair in PAIRS if pair[0] in ("VP", "Linear", "Levels")]
INDEPENDENT += [("VP", "corrector-sample"), ("Levels", "langevin")]


@pytest.mark.parametrize(("path", "make"), INDEPENDENT, indirect=True)
def test_samples_do_not_depend_on_their_batch(mixture, make):
    sampler = make(10, Trailing())
    whole = samples(sampler, mixture, 8)
    parts = torch.cat([samples(sampler, mixture, 5), samples(sampler, mixture, 3, start=5)])
    torch.testing.assert_close(whole, parts, rtol=1e-9, atol=1e-9)
    assert len(whole.unique(dim=0)) == 8


@pytest.mark.parametrize(("path", "make"), [("VP", "corrector-batch")], indirect=True)
def test_batch_norms_of_the_published_corrector_couple_samples(mixture, make):
    pair, alone = (samples(make(10, Trailing()), mixture, n) for n in (2, 1))
    assert (pair[0] - alone[0]).abs().max() > 1e-3
