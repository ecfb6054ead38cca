"""Every transform of a flow, with parameters of its own, not those it begins with."""

from functools import partial

import pytest
import torch

from genlab.flows.autoregressive import Autoregressive, autoregressive
from genlab.flows.bijection import Chain, Flattened
from genlab.flows.continuous import Continuous
from genlab.flows.coupling import ChannelCoupling, CheckerboardCoupling
from genlab.flows.elementwise import Additive, Affine, Exponential, RationalQuadratic, Scaled
from genlab.flows.linear import ActNorm, BatchNorm, Gaussian, Mixing, Reverse
from genlab.flows.logit import Logit
from genlab.flows.multiscale import Split, Squeezed, glow, realnvp
from genlab.gaussian.likelihood import Exact
from genlab.networks.coupling import GlowNet, RealNVPNet, SplineNet
from genlab.networks.mlp import MLP, ConcatSquash

POINT, IMAGE = (3,), (2, 4, 4)
SPLINE = partial(RationalQuadratic, bins=4, bound=2.0)
ELEMENTWISE = {"additive": Additive, "affine": Affine, "exponential": Exponential, "scaled": Scaled, "spline": SPLINE}


def mlp(inputs, outputs, classes=0):
    return MLP(inputs, outputs, 16, 2, classes)


def convolutional(inputs, outputs, classes=0):
    return GlowNet(inputs, outputs, 8, classes)


def continuous(shape, classes=0):
    return Continuous(ConcatSquash(shape, 16, 2, 0.5, classes), Exact(), 1e-9, 5000)


GLOW = partial(glow, levels=2, depth=2, conditioner=GlowNet, elementwise=Affine, width=8, split=True)
NSF = partial(
    glow, levels=2, depth=1, conditioner=partial(SplineNet, blocks=1, dropout=0.0), elementwise=SPLINE, width=8
)
REALNVP = partial(realnvp, levels=2, conditioner=RealNVPNet, elementwise=Exponential, width=4, blocks=1)
BIJECTIONS = {
    **{f"channels-{k}": (POINT, partial(ChannelCoupling, 3, mlp, v)) for k, v in ELEMENTWISE.items()},
    **{
        f"checkerboard-{k}": (IMAGE, partial(CheckerboardCoupling, IMAGE, convolutional, v))
        for k, v in ELEMENTWISE.items()
    },
    **{f"autoregressive-{k}": (POINT, partial(Autoregressive, 3, v, 16, 2, 0)) for k, v in ELEMENTWISE.items()},
    "channels-flipped": (POINT, partial(ChannelCoupling, 3, mlp, Affine, flipped=True)),
    "checkerboard-flipped": (IMAGE, partial(CheckerboardCoupling, IMAGE, convolutional, Affine, flipped=True)),
    "channels-of-images": (IMAGE, partial(ChannelCoupling, 2, convolutional, Affine)),
    "actnorm": (IMAGE, partial(ActNorm, 2)),
    "batchnorm": (IMAGE, partial(BatchNorm, 2)),
    "mixing": (IMAGE, partial(Mixing, 2)),
    "mixing-points": (POINT, partial(Mixing, 3)),
    "reverse": (POINT, Reverse),
    "gaussian": (IMAGE, partial(Gaussian, IMAGE, 0)),
    "logit": (IMAGE, partial(Logit, 0.05, 256)),
    "squeezed-split": (IMAGE, lambda: Squeezed(Split(8, Mixing(4), learned=True))),
    "squeezed by channel": (IMAGE, lambda: Squeezed(Mixing(8), by_channel=True)),
    "continuous": (POINT, partial(continuous, POINT)),
    "chain": (POINT, lambda: Chain([Mixing(3), ChannelCoupling(3, mlp, SPLINE), Reverse()])),
    "flattened": (IMAGE, lambda: Flattened(Autoregressive(32, SPLINE, 32, 1, 0))),
    "maf": (POINT, partial(autoregressive, POINT, SPLINE, 2, 16, 2, 0)),
    "glow": (IMAGE, partial(GLOW, IMAGE, classes=0)),
    "nsf": (IMAGE, partial(NSF, IMAGE, split=False, classes=0)),
    "realnvp": (IMAGE, partial(REALNVP, IMAGE, classes=0, before=Logit(0.05, 256))),
}
BOUNDED = ("logit", "realnvp")  # of numbers in [-1, 1]


def stirred(bijection, seed=0):
    """The same bijection in float64, its parameters and running statistics moved a little from where they begin."""
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in bijection.named_buffers():
        if name.endswith(("mean", "variance", "running_var")):
            buffer += 0.2 * torch.rand(buffer.shape, generator=generator)
    with torch.no_grad():
        for parameter in bijection.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return bijection.double().eval()


@pytest.fixture(params=BIJECTIONS)
def case(request):
    """A bijection, and 5 x that it is for."""
    torch.manual_seed(0)
    shape, build = BIJECTIONS[request.param]
    x = torch.randn(5, *shape, dtype=torch.float64)
    return stirred(build()), x.clamp(-1, 1) if request.param in BOUNDED else x
