"""Every path, every sampler, and data whose best denoiser is known."""

from functools import partial

import pytest
import torch

from genlab.gaussian.path import VE, VP, Levels, Linear, Table, linear_betas
from genlab.gaussian.samplers import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    Euler,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    ReverseDiffusion,
)

PATHS = {
    "VP": VP(),
    "VE": VE(0.01, 50.0),
    "Linear": Linear(),
    "Table": Table(linear_betas(1000, 1e-4, 0.02)),
    "Levels": Levels(0.01, 50.0, 500),
}

CORRECTOR = partial(PredictorCorrector, predictor=ReverseDiffusion, snr=0.16)
SAMPLERS = {
    "ancestral-small": partial(Ancestral, large_variance=False, clip=False),
    "ancestral-large": partial(Ancestral, large_variance=True, clip=False),
    "ddim-0": partial(DDIM, eta=0.0, clip=False),
    "ddim-0.5": partial(DDIM, eta=0.5, clip=False),
    "ddim-1": partial(DDIM, eta=1.0, clip=False),
    "reverse-diffusion": ReverseDiffusion,
    "euler-maruyama": EulerMaruyama,
    "euler": Euler,
    "heun": Heun,
    "corrector-batch": partial(CORRECTOR, corrections=1, per_sample=False),
    "corrector-sample": partial(CORRECTOR, corrections=1, per_sample=True),
    "corrector-none": partial(CORRECTOR, corrections=0, per_sample=False),
    "corrector-euler-maruyama": partial(CORRECTOR, predictor=EulerMaruyama, corrections=1, per_sample=False),
    "langevin": partial(AnnealedLangevin, inner=3, step_size=1e-5, denoise=True),
}


class Mixture:
    """Σ_k w_k N(m_k, diag(s²)) and its exact E[x | x_t], called like a Denoiser; `calls` counts evaluations."""

    def __init__(self, path, weights, means, stds):
        self.path, self.calls = path, 0
        self.weights, self.means, self.stds = (torch.tensor(v, dtype=torch.float64) for v in (weights, means, stds))

    def __call__(self, x_t, t, y=None):
        self.calls += 1
        p = self.path(t, 3)
        variance = p.alpha**2 * self.stds**2 + p.sigma**2
        residual = x_t[:, None] - p.alpha * self.means  # (B, K, D)
        responsibility = (self.weights.log() - (residual**2 / variance).sum(2) / 2).softmax(1)
        each = self.means + p.alpha * self.stds**2 / variance * residual
        return (responsibility[..., None] * each).sum(1)

    def at(self, t):
        """The path's point at t, in float64."""
        return self.path(torch.as_tensor(t, dtype=torch.float64), 2)

    def prior(self, noise, n):
        """n rows of N(0, σ(t_max)²), from which samplers start."""
        return self.at(self.path.t_max).sigma * noise.normal((n, len(self.stds))).double()


@pytest.fixture(params=PATHS)
def path(request):
    """Every path; a test that wants only some parametrizes "path" by name, indirectly."""
    return PATHS[request.param]


@pytest.fixture
def make(request):
    """A sampler given its steps and grid; parametrize it by name, indirectly."""
    return SAMPLERS[request.param]


@pytest.fixture
def gaussian(path):
    """N(m, diag(s²)) in the plane."""
    return Mixture(path, [1.0], [[0.7, -0.4]], [0.3, 0.8])


@pytest.fixture
def wide_gaussian(path):
    """N(m, diag(s²)) in 32 dimensions, where norms of vectors vary little."""
    return Mixture(path, [1.0], [[0.3] * 32], torch.linspace(0.3, 0.8, 32).tolist())


@pytest.fixture
def mixture(path):
    """Three modes of unequal weight, far apart against their width."""
    return Mixture(path, [0.5, 0.3, 0.2], [[0.8, 0.8], [-0.9, 0.3], [0.2, -0.9]], [0.1, 0.1])
