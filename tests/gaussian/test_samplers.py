"""What samplers end with: Gaussian data, where it is known exactly, and a mixture.

A sampler that is affine in its start and in its noise turns Gaussians into Gaussians. `law` reads the map off unit
impulses, so that only the error of the discretization is left, and no sampling error.
"""

import math

import pytest
import torch

from genlab.gaussian.grids import Linspace, Trailing
from genlab.gaussian.path import VE, Levels
from genlab.gaussian.samplers import AnnealedLangevin, Heun
from genlab.noise import NoiseStream

ANY = ("ancestral-small", "ancestral-large", "ddim-0", "ddim-0.5", "ddim-1", "reverse-diffusion")
PAIRS = [(path, name) for path in ("VP", "VE", "Linear", "Table", "Levels") for name in ANY]
PAIRS += [(path, name) for path in ("VP", "VE") for name in ("euler-maruyama", "euler", "heun")]
PAIRS += [("Linear", "euler"), ("Linear", "heun")]  # the drift of its reverse SDE is infinite at t = 1
every_pair = pytest.mark.parametrize(("path", "make"), PAIRS, indirect=True)
T_END = {"VP": 1e-3, "VE": 1e-5, "Linear": 1e-3, "Table": 1.0, "Levels": 1.0}
GRIDS = {"trailing": lambda path: Trailing(), "linspace": lambda path: Linspace(T_END[type(path).__name__])}


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


@every_pair
def test_order_of_convergence(gaussian, make):
    """Twice the steps halve the error, and quarter that of Heun; exponents are within 0.15 at 200 steps."""
    coarse, fine = (error(make(steps, down_to(0.1)), gaussian) for steps in (100, 200))
    assert math.log2(coarse / fine) > (1.85 if make is Heun else 0.85)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@every_pair
def test_samples_have_the_mean_and_variance_of_data(path, gaussian, make, grid):
    coarse, fine = (error(make(steps, grid(path)), gaussian) for steps in (50, 200))
    assert fine < coarse / 2
    assert fine < (0.005 if make is Heun else 0.23)


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
    x = (samples(make(200, GRIDS["linspace"](path)), wide_gaussian, n) - wide_gaussian.means) / wide_gaussian.stds
    covariance, five = x.T.cov(), 5 / math.sqrt(n)  # five standard errors
    variance = covariance.diag()
    assert x.mean(0).abs().max() < five
    assert abs(variance.mean() - 1) < bias
    assert (variance - variance.mean()).abs().max() < math.sqrt(2) * five + bias / 2
    assert (covariance - variance.diag()).abs().max() < (1 + bias) * five


# ------------------------------------------------------------------ a mixture

MIXED = [(path, name) for path in ("VP", "VE", "Linear", "Table", "Levels") for name in ("ddim-0", "ancestral-small")]
MIXED += [(path, name) for path in ("VP", "VE") for name in ("euler-maruyama", "heun")] + [("Linear", "heun")]


@pytest.mark.parametrize(("path", "make"), MIXED, indirect=True)
def test_modes_of_a_mixture_get_their_share(mixture, make):
    n = 2000
    x = samples(make(100, Trailing()), mixture, n)
    distance, mode = torch.cdist(x, mixture.means).min(1)
    share = mode.bincount(minlength=3) / n
    assert ((share - mixture.weights).abs() < 4 * (mixture.weights * (1 - mixture.weights) / n).sqrt()).all()
    assert (distance < 0.5).double().mean() > 0.99  # of width 0.1, and 1.3 apart
    assert 0.075 < (distance**2 / 2).mean().sqrt() < 0.11  # 100 steps leave the variance up to 40% too small


# ------------------------------------------------------------------ rows

INDEPENDENT = [*PAIRS, ("VP", "corrector-sample"), ("Levels", "langevin")]


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
