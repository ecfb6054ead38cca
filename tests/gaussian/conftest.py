"""Every path, every sampler, and data whose best denoiser is known."""

from functools import partial

import pytest
import torch

from genlab.gaussian.denoiser import Prediction
from genlab.gaussian.path import VE, VP, Cosine, Karras, Linear, SubVP
from genlab.gaussian.samplers import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPP,
    Euler,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseDiffusion,
    UniPC,
)
from genlab.gaussian.tables import Levels, Table, linear_betas
from genlab.gaussian.thresholds import within
from genlab.gaussian.variances import Large, Learned, Small

PATHS = {
    "VP": VP(),
    "SubVP": SubVP(),
    "Cosine": Cosine(),
    "VE": VE(0.01, 50.0),
    "Karras": Karras(80.0),
    "Linear": Linear(),
    "Table": Table(linear_betas(1000, 1e-4, 0.02)),
    "Levels": Levels(0.01, 50.0, 500),
}

CORRECTOR = partial(PredictorCorrector, predictor=ReverseDiffusion, snr=0.16)
SAMPLERS = {
    "ancestral-small": partial(Ancestral, variance=Small()),
    "ancestral-large": partial(Ancestral, variance=Large()),
    "ancestral-learned": partial(Ancestral, variance=Learned()),
    "ddim-0": partial(DDIM, eta=0.0),
    "ddim-0.5": partial(DDIM, eta=0.5),
    "ddim-1": partial(DDIM, eta=1.0),
    "reverse-diffusion": ReverseDiffusion,
    "euler-maruyama": EulerMaruyama,
    "euler": Euler,
    "heun": Heun,
    "churn": partial(Heun, churn=15.0, s_min=0.05, s_max=30.0),
    "dpmpp-1": partial(DPMSolverPP, order=1),
    "dpmpp-2m": partial(DPMSolverPP, order=2, lower_order_final=False),
    "dpmpp-3m": partial(DPMSolverPP, order=3, lower_order_final=False),
    "dpmpp-1-sde": partial(DPMSolverPP, order=1, stochastic=True),
    "dpmpp-2m-sde": partial(DPMSolverPP, order=2, stochastic=True),
    "unip-2": partial(UniPC, order=2, corrector=False, lower_order_final=False),
    "unip-3": partial(UniPC, order=3, corrector=False, lower_order_final=False),
    "unipc-2": partial(UniPC, order=2, lower_order_final=False),
    "unipc-3": partial(UniPC, order=3, lower_order_final=False),
    "unipc-2-bh1": partial(UniPC, order=2, bh1=True, lower_order_final=False),
    "probability-flow": partial(ProbabilityFlow, t_end=1e-4, tolerance=1e-3, denoise=True),
    "corrector-batch": partial(CORRECTOR, corrections=1, per_sample=False),
    "corrector-sample": partial(CORRECTOR, corrections=1, per_sample=True),
    "corrector-none": partial(CORRECTOR, corrections=0, per_sample=False),
    "corrector-euler-maruyama": partial(CORRECTOR, predictor=EulerMaruyama, corrections=1, per_sample=False),
    "langevin": partial(AnnealedLangevin, inner=3, step_size=1e-5, denoise=True),
}


class Mixture:
    """Σ_k w_k N(m_k, diag(s²)) and its exact E[x | x_t], called like a Denoiser; `calls` counts evaluations."""

    learned_variance = True

    def __init__(self, path, weights, means, stds):
        self.path, self.calls = path, 0
        self.weights, self.means, self.stds = (torch.tensor(v, dtype=torch.float64) for v in (weights, means, stds))

    def __call__(self, x_t, t, y=None):
        return self.predict(x_t, t, y).x_hat

    def predict(self, x_t, t, y=None, threshold=None):
        """With v = 1/2 everywhere, the geometric mean of both variances."""
        self.calls += 1
        p = self.path(t, 3)
        variance = p.alpha**2 * self.stds**2 + p.sigma**2
        residual = x_t[:, None] - p.alpha * self.means  # (B, K, D)
        responsibility = (self.weights.log() - (residual**2 / variance).sum(2) / 2).softmax(1)
        each = self.means + p.alpha * self.stds**2 / variance * residual
        return Prediction(within((responsibility[..., None] * each).sum(1), threshold), torch.full_like(x_t, 0.5))

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
def samplers():
    """All of them by name, each to be given its steps and grid."""
    return SAMPLERS


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


@pytest.fixture
def two_points():
    """0.8 of the data at (5, 5) and 0.2 at (-5, -5), on a path of one's own."""
    return lambda path: Mixture(path, [0.8, 0.2], [[5.0, 5.0], [-5.0, -5.0]], [0.0, 0.0])
