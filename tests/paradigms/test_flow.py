"""Flows against densities that are known, and against themselves: what they say of x is what they draw."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from genlab.codec import Latents, Pixels, Tokens, Vectors
from genlab.errors import GenlabError
from genlab.flows.autoregressive import Autoregressive, autoregressive
from genlab.flows.bijection import Bijection, Chain, summed
from genlab.flows.continuous import Continuous
from genlab.flows.coupling import ChannelCoupling
from genlab.flows.dequantization import Variational
from genlab.flows.elementwise import Affine, RationalQuadratic, Scaled
from genlab.flows.linear import ActNorm, Mixing, Reverse
from genlab.flows.logit import Logit
from genlab.flows.multiscale import glow, realnvp
from genlab.flows.temperature import Tempered
from genlab.gaussian.likelihood import Exact
from genlab.networks.coupling import GlowNet, RealNVPNet
from genlab.networks.mlp import MLP, ConcatSquash
from genlab.noise import NoiseStream
from genlab.paradigms.flow import Flow

SPLINE = partial(RationalQuadratic, bins=6, bound=3.0)


def mlp(inputs, outputs):
    return MLP(inputs, outputs, 16, 2, 0)


PLANE = {
    "coupling": lambda: Chain([ChannelCoupling(2, mlp, Affine), Mixing(2), ChannelCoupling(2, mlp, SPLINE)]),
    "maf": lambda: autoregressive((2,), Scaled, 3, 16, 2, 0),
    "spline": lambda: autoregressive((2,), SPLINE, 3, 16, 2, 0),
    "ffjord": lambda: Continuous(ConcatSquash((2,), 16, 2, 0.5, 0), Exact(), 1e-6, 2000),
}


def stirred(bijection, by=0.1):
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in bijection.parameters():
            parameter += by * torch.randn_like(parameter)
    return bijection


@pytest.fixture
def plane(common, request):
    """A flow in the plane of no particular density."""
    torch.manual_seed(0)
    return Flow(bijection=stirred(PLANE[request.param]()), **common(2)).double().eval()


@torch.no_grad()
@pytest.mark.parametrize("plane", PLANE, indirect=True)
def test_the_density_integrates_to_one(plane):
    axis = torch.arange(-9, 9, 0.15, dtype=torch.float64)
    log_p = plane.log_prob(torch.cartesian_prod(axis, axis))
    assert (log_p.exp().sum() * 0.15**2).item() == pytest.approx(1, abs=2e-3)


@torch.no_grad()
@pytest.mark.parametrize("plane", PLANE, indirect=True)
def test_samples_have_the_moments_of_the_density(plane):
    """E[x] and E[x²] of draws against integrals of x p(x) and x² p(x)."""
    axis = torch.arange(-9, 9, 0.15, dtype=torch.float64)
    grid, n = torch.cartesian_prod(axis, axis), 5000
    p = plane.log_prob(grid).exp() * 0.15**2
    x = plane.float().sample(NoiseStream(0), n).double()
    for power in (1, 2):
        expected, found = (p[:, None] * grid**power).sum(0), x**power
        assert ((found.mean(0) - expected).abs() < 5 * found.std(0) / math.sqrt(n) + 0.02).all()


@torch.no_grad()
@pytest.mark.parametrize("plane", PLANE, indirect=True)
def test_codes_render_back_and_the_way_ends_at_the_sample(plane):
    plane, x = plane.float(), torch.randn(5, 2)
    torch.testing.assert_close(plane.render(plane.encode(x)), x, rtol=0, atol=1e-5)
    frames = [frame.x_t for frame in plane.trajectory(NoiseStream(0), 4)]
    sample = plane.sample(NoiseStream(0), 4)
    torch.testing.assert_close(frames[-1], sample, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat([plane.sample(NoiseStream(0), 3), plane.sample(NoiseStream(0, 3), 1)]), sample)


class Affinely(Bijection):
    """z = L⁻¹ (x - m): the flow that is exact for N(m, L Lᵀ)."""

    def __init__(self, mean, factor):
        super().__init__()
        self.mean, self.factor = mean, factor
        self.unused = nn.Parameter(torch.zeros(()))

    def transform(self, x, y):
        z = torch.linalg.solve_triangular(self.factor, (x - self.mean).T, upper=False).T
        return z, -self.factor.diag().log().sum().expand(len(x))

    def inverse(self, z, y):
        return z.to(self.factor.dtype) @ self.factor.T + self.mean


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_likelihood_of_a_gaussian_and_the_volume_of_the_codec(common, scale):
    mean, factor = torch.tensor([1.0, -2.0]).double(), torch.tensor([[0.5, 0.0], [0.7, 2.0]]).double()
    exact = torch.distributions.MultivariateNormal(scale * mean, scale_tril=scale * factor)
    flow = Flow(bijection=Affinely(mean, factor), **common(2, codec=Vectors(scale)))
    x = torch.randn(7, 2).double()
    torch.testing.assert_close(flow.nats(x), exact.log_prob(x))
    torch.testing.assert_close(
        flow.loss(flow.codec.encode(x), None)["loss"], -exact.log_prob(x).mean().float().double() / (2 * math.log(2)),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip
    assert (flow.likelihood, flow.bound, flow.discrete) == ("exact", None, False)


@torch.no_grad()
def test_temperature_shrinks_the_latents(common):
    factor, n = torch.eye(2).double(), 20_000
    flow = Flow(bijection=Affinely(torch.zeros(2), factor), sampler=Tempered(0.5), **common(2))
    deviation = flow.sample(NoiseStream(0), n).std(0)
    assert ((deviation - 0.5).abs() < 5 * 0.5 / math.sqrt(2 * n)).all()
    assert flow.log_prob(torch.zeros(1, 2).double()).item() == pytest.approx(-math.log(2 * math.pi))


class Probit(Bijection):
    """z = Φ⁻¹((x/r + 1)/2): the flow whose density is uniform on [-r, r]."""

    def __init__(self, reach):
        super().__init__()
        self.reach = reach

    def transform(self, x, y):
        z = torch.special.ndtri(((x.double() / self.reach + 1) / 2).clamp(1e-12, 1 - 1e-12))
        return z, summed(0.5 * z.square() + 0.5 * math.log(2 * math.pi) - math.log(2 * self.reach))

    def inverse(self, z, y):
        return self.reach * (2 * torch.special.ndtr(z) - 1)


def images(n, levels=256):
    torch.manual_seed(0)
    return (torch.randint(levels, (n, 1, 4, 4)) * (255 // (levels - 1))).to(torch.uint8)


def pictured(common, bijection, levels=256, **more):
    return Flow(bijection=bijection, **more, **common(1, codec=Pixels(levels)) | {"shape": (1, 4, 4)})


@torch.no_grad()
@pytest.mark.parametrize(("levels", "bits"), [(256, 8.0), (2, 1.0), (16, 4.0)])
def test_a_uniform_flow_scores_the_logarithm_of_the_levels(common, levels, bits):
    flow = pictured(common, Probit(1 + 1 / (levels - 1)), levels)
    x = images(6, levels)
    torch.testing.assert_close(flow.bits_per_dim(x).double(), torch.full((6,), bits).double(), rtol=0, atol=1e-4)
    assert flow.loss(flow.codec.encode(x), None)["loss"].item() == pytest.approx(bits, abs=1e-4)


@torch.no_grad()
def test_the_logit_carries_the_edges_of_the_data_to_its_own(common):
    """u = 0 and 1 at the outer edges of black and white; 0.05 and 0.95 after α."""
    layer = Logit(0.05, 256)
    edges = torch.tensor([[-1 - 1 / 255, 1 + 1 / 255]])
    torch.testing.assert_close(layer(edges)[0].sigmoid(), torch.tensor([[0.05, 0.95]]))


@torch.no_grad()
def test_learned_noise_stays_in_its_cell_and_has_the_density_that_it_says(common):
    """E_q[p(v)/q(v | x)] = P(x), and E_q[log p(v)/q(v | x)] <= log P(x): of a uniform p, P(x) = 4^-4 everywhere."""
    torch.manual_seed(0)
    levels, n = 4, 20_000
    noise = stirred(Variational((1, 2, 2), levels, layers=3, width=8), by=0.3)
    x = Pixels(levels).encode(torch.tensor([[0, 85], [170, 255]], dtype=torch.uint8)).expand(n, 1, 2, 2)
    v, log_q = noise(x)
    assert ((v - x).abs() <= 1 / (levels - 1)).all()
    log_p = torch.full((n,), -4 * math.log(2 * (1 + 1 / (levels - 1))))
    ratio = (log_p - log_q).double()
    assert abs(ratio.exp().mean() - 4.0**-4) < 5 * ratio.exp().std() / math.sqrt(n)
    assert ratio.mean() + 5 * ratio.std() / math.sqrt(n) < -4 * math.log(4)


@torch.no_grad()
def test_with_learned_noise_the_likelihood_is_a_bound_and_says_so(common):
    flow = pictured(common, Probit(1 + 1 / 255), dequantization=stirred(Variational((1, 4, 4), 256, 2, 8), by=0.3))
    assert (flow.likelihood, flow.bound, flow.discrete) == ("bound", "variational dequantization", True)
    bits = flow.bits_per_dim(images(2000))
    assert bits.mean() > 8 + 5 * bits.std() / math.sqrt(2000)
    assert "dequantization" in flow.averaged


@torch.no_grad()
def test_untrained_learned_noise_is_nearly_uniform(common):
    flow = pictured(common, Probit(1 + 1 / 255), dequantization=Variational((1, 4, 4), 256, 2, 8))
    assert flow.bits_per_dim(images(500)).mean().item() == pytest.approx(8, abs=0.05)


GLOW = partial(glow, depth=1, conditioner=GlowNet, elementwise=Affine, width=8, split=True)
REALNVP = partial(realnvp, conditioner=RealNVPNet, elementwise=Affine, width=4, blocks=1)


@torch.no_grad()
@pytest.mark.parametrize(
    "build",
    [
        partial(GLOW, (1, 8, 8), levels=2),
        partial(REALNVP, (1, 8, 8), levels=2),
        partial(autoregressive, (1, 8, 8), Scaled, 2, 70, 1),
        lambda classes: Continuous(ConcatSquash((1, 8, 8), 8, 1, 0.5, classes), Exact(), 1e-3, 2000),
    ],
    ids=["glow", "realnvp", "maf", "ffjord"],
)
def test_a_label_conditions_every_flow(build, common):
    torch.manual_seed(0)
    arguments = common(1, classes=3, codec=Pixels(256)) | {"shape": (1, 8, 8)}
    flow = Flow(bijection=stirred(build(classes=3)), **arguments).eval()
    x = torch.rand(1, 1, 8, 8).expand(3, 1, 8, 8)
    y = torch.arange(3)
    log_p = flow.log_prob(x, y)
    assert len(set(log_p.tolist())) == 3
    torch.testing.assert_close(flow.render(flow.encode(x, y), y), x, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GLOW((1, 7, 8), levels=1, classes=0), "7 x 8 cannot be halved 1 times"),
        (lambda: GLOW((3, 12, 12), levels=3, classes=0), "12 x 12 cannot be halved 3 times"),
        (lambda: REALNVP((3, 9, 8), levels=2, classes=0), "9 x 8 cannot be halved 1 times"),
        (lambda: GLOW((2,), levels=1, classes=0), "this flow is for images"),
        (lambda: GLOW((1, 8, 8), levels=0, classes=0), "at least one level"),
        (lambda: REALNVP((1, 8, 8), levels=0, classes=0), "at least one level"),
        (lambda: REALNVP((1, 1, 1), levels=1, classes=0), "a checkerboard of 1 x 1"),
        (lambda: ChannelCoupling(1, mlp, Affine), "a coupling of 1 channel"),
        (lambda: Autoregressive(1, Affine, 8, 1, 0), "an autoregressive flow of 1 dimension"),
        (lambda: RationalQuadratic(1, 3.0), "at least 2 bins"),
        (lambda: RationalQuadratic(4, 0.0), "bound above 0"),
        (lambda: Logit(0.5, 256), "between 0 and 0.5"),
        (lambda: Logit(0.05, None), "grey levels"),
        (lambda: Variational((2,), None, 2, 8), "for images of grey levels"),
        (lambda: Variational((1, 8, 8), 256, 1, 8), "need 2 or more"),
        (lambda: Tempered(0.0), "temperature=0.0: above 0"),
        (lambda: Tempered(float("nan")), "above 0"),
        (lambda: Continuous(nn.Identity(), Exact(), 0.0, 10), "a tolerance above 0"),
        (lambda: ConcatSquash((2,), 8, 1, 0.0, 0), "more than no time"),
    ],
)
def test_mistakes_have_one_line(build, message):
    with pytest.raises(GenlabError, match=message):
        build()


def test_data_that_a_flow_cannot_have_a_density_of_are_refused(common):
    """Bytes and codes have none that is bounded, and latents are no grey levels."""
    with pytest.raises(GenlabError, match="model=transformer"):
        Flow(bijection=Reverse(), **common(2, codec=Tokens(256)))
    with pytest.raises(GenlabError, match=r"network\.before=null"):
        Flow(bijection=Chain([Logit(0.05, 256), Reverse()]), **common(2, codec=Latents(1.0)))
    with pytest.raises(GenlabError, match="leave dequantization out"):
        Flow(bijection=Reverse(), dequantization=Variational((1, 8, 8), 256, 2, 8), **common(2, codec=Latents(1.0)))
    with pytest.raises(GenlabError, match=r"weight_decay=-1"):
        Flow(bijection=Reverse(), weight_decay=-1, **common(2))


def test_another_familys_sampler_and_data_that_are_no_numbers_are_refused(common):
    with pytest.raises(GenlabError, match="sampler=Identity is of another family"):
        Flow(bijection=Reverse(), sampler=nn.Identity(), **common(2))  # pyright: ignore
    flow = Flow(bijection=ActNorm(2), **common(2))
    bad = torch.tensor([[0.0, math.nan]])
    with pytest.raises(GenlabError, match="not finite"):
        flow.loss(bad, None)
    with pytest.raises(GenlabError, match="not finite"):
        flow.log_prob(bad)


def test_gradients_through_the_solver_are_those_of_the_density(common):
    """d log p/dθ of FFJORD by backpropagation against a central difference."""
    torch.manual_seed(0)
    flow = Flow(bijection=stirred(PLANE["ffjord"]()), **common(2)).double()
    flow.bijection.tolerance = 1e-9
    x, weight = torch.randn(3, 2, dtype=torch.float64), flow.bijection.field.layers[0].weight
    (slope,) = torch.autograd.grad(flow.log_prob(x).sum(), weight)
    with torch.no_grad():
        weight[0, 0] += 1e-4
        above = flow.log_prob(x).sum()
        weight[0, 0] -= 2e-4
        below = flow.log_prob(x).sum()
    assert slope[0, 0].item() == pytest.approx(((above - below) / 2e-4).item(), rel=1e-4)


@pytest.mark.parametrize("plane", ["coupling"], indirect=True)
def test_latents_of_an_autoencoder_are_trained_on_as_they_are(plane):
    """Decoding and encoding them again would make them others: the loss is -log p of what it is given."""
    x = torch.randn(7, 2, dtype=torch.float64)
    plane.codec = Latents(0.5)
    plane.codec.dequantize = plane.codec.decode = None
    torch.testing.assert_close(plane.loss(x, None)["loss"], plane.bits(plane.log_prob(x)).mean())
