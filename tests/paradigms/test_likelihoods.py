"""One Gaussian, scored by every kind of likelihood: exact and ODE agree with it, and bounds stay below."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from genlab.codec import Vectors
from genlab.flows.bijection import Chain
from genlab.flows.continuous import Continuous
from genlab.flows.linear import Mixing
from genlab.gaussian import samplers
from genlab.gaussian.denoiser import Denoiser, Time
from genlab.gaussian.grids import Trailing
from genlab.gaussian.likelihood import Exact, ProbabilityFlow
from genlab.gaussian.parametrization import X
from genlab.gaussian.path import VP
from genlab.gaussian.tables import Table, linear_betas
from genlab.gaussian.thresholds import Clip
from genlab.gaussian.times import Steps, Uniform
from genlab.gaussian.variances import Large
from genlab.gaussian.variational import DiscreteBound
from genlab.gaussian.weights import Unit
from genlab.likelihood_heads import FixedGaussian
from genlab.paradigms.diffusion import Diffusion
from genlab.paradigms.flow import Flow
from genlab.paradigms.vae import VAE
from genlab.variational.objectives import Beta
from genlab.variational.posterior import Diagonal
from genlab.variational.prior import StandardNormal

SCALE = 3.0  # of the data over model space, so that volumes count
DEVIATION, NOISE = torch.tensor([0.6, 1.5], dtype=torch.float64), 0.5
DATA = Independent(Normal(torch.zeros(2, dtype=torch.float64), SCALE * DEVIATION), 1)


def flow(common):
    """z = x/s, by the layer that mixes channels."""
    layer = Mixing(2).double()
    with torch.no_grad():
        layer.permutation.copy_(torch.eye(2))
        layer.sign.fill_(1)
        layer.lsu.copy_((-DEVIATION.log()).diag())
    return Flow(bijection=Chain([layer]), **common(2, codec=Vectors(SCALE)))


class Shrinking(nn.Module):
    """dx/dt = -log(s) x, which ends at x/s."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(-DEVIATION.log())

    def forward(self, x, t, y=None):
        return self.rate * x


def continuous(common):
    return Flow(bijection=Continuous(Shrinking(), Exact(), 1e-7, 1000), **common(2, codec=Vectors(SCALE)))


class Known(nn.Module):
    """E[x | x_t] of N(0, diag(s²))."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def forward(self, x_t, c, y=None):
        alpha, sigma, *_ = self.path.coefficients(c[:, None])
        return alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2) * x_t


def diffusion(path, density):
    def build(common):
        return Diffusion(
            denoiser=Denoiser(Known(path), path, X(), Time(1.0)),
            times=Uniform(1e-3, 1.0) if path.twin is None else Steps(int(path.t_max)),
            weight=Unit(),
            sampler=samplers.Euler(2, Trailing())
            if path.twin is None
            else samplers.Ancestral(2, Trailing(), Large(), Clip()),
            density=density,
            label_drop=0.0,
            **common(2, codec=Vectors(SCALE)),
        )

    return build


def vae(common):
    """x = A z + n ε with A² + n² = s², and q wider than the posterior by a fifth."""

    class Encoder(nn.Module):
        def forward(self, x, y=None):
            variance = NOISE**2 / DEVIATION**2
            mean = (DEVIATION**2 - NOISE**2).sqrt() / DEVIATION**2 * x
            return torch.cat([mean, (1.2 * variance.sqrt()).log().expand(len(x), 2)], dim=1)

    class Decoder(nn.Module):
        def forward(self, z, y=None):
            return (DEVIATION**2 - NOISE**2).sqrt() * z

    parts = {"head": FixedGaussian(NOISE), "posterior": Diagonal(), "prior": StandardNormal(2)}
    sizes = {"latent": 2, "importance": 1, "noisy": False, "objective": Beta(1.0, 0)}
    return VAE(encoder=Encoder(), decoder=Decoder(), **parts, **sizes, **common(2, codec=Vectors(SCALE)))


CASES = {
    "flow": (flow, "exact", 1e-6),
    "continuous": (continuous, "ode", 1e-4),
    "probability-flow": (diffusion(VP(), ProbabilityFlow(Exact(), 1e-5, 1e-6)), "ode", 1e-3),
    "diffusion": (diffusion(Table(linear_betas(20, 5e-3, 0.9)), DiscreteBound(Large(), None, False)), "bound", None),
    "vae": (vae, "bound", None),
}


@torch.no_grad()
@pytest.mark.parametrize(("build", "kind", "tolerance"), CASES.values(), ids=CASES)
def test_kinds_of_likelihood_of_one_density(build, kind, tolerance, common):
    torch.manual_seed(0)
    model = build(common)
    assert model.likelihood == kind
    x = DATA.sample((1000 if tolerance else 40_000,))
    found, exact = model.nats(x), DATA.log_prob(x)
    bits = -exact / (2 * math.log(2))
    if tolerance is not None:
        torch.testing.assert_close(found, exact, rtol=0, atol=tolerance)
        torch.testing.assert_close(model.bits_per_dim(x), bits, rtol=0, atol=tolerance)
    else:
        gap = model.bits_per_dim(x) - bits
        assert gap.mean() - 3 * gap.std() / math.sqrt(len(x)) > 0
        assert gap.mean() < 0.3
