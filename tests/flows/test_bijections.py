"""Inverses, volumes by autograd, and the layers in between."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from genlab.flows.coupling import ChannelCoupling
from genlab.flows.elementwise import Affine, Elementwise, Exponential, RationalQuadratic, Scaled
from genlab.flows.multiscale import Squeezed


class Labelless(nn.Linear):
    def forward(self, input: Tensor, y: Tensor | None) -> Tensor:  # type: ignore[override]
        return super().forward(input)


TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.mark.parametrize("elementwise", [Affine, Exponential, Scaled, partial(RationalQuadratic, 8, 3.0)])
def test_the_volume_under_autocast_is_that_of_the_map_which_is_applied(elementwise: Callable[[], Elementwise]) -> None:
    """A network's numbers in bfloat16 are as good as they are; a σ in bfloat16 would not be the e^log σ that is stated."""
    layer = ChannelCoupling(4, Labelless, elementwise)
    if isinstance(layer.elementwise, Exponential):
        layer.elementwise.rescale.data.fill_(0.5)
    x = torch.randn(64, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        z, log_det = layer.transform(x, None)
    slope = torch.autograd.grad(z[:, 2:].sum(), x)[0][:, 2:]  # each depends on its own x alone, and on what is kept
    assert log_det.dtype == torch.float32
    torch.testing.assert_close(log_det, slope.log().sum(1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_inverse_is_the_inverse(case, dtype):
    bijection, x = case[0].to(dtype), case[1].to(dtype)
    if bijection.solved:  # as exact as its solver
        bijection.tolerance = TOLERANCE[dtype] / 100
    z, _ = bijection(x)
    assert z.shape == x.shape
    assert (bijection(z, backward=True)[0] - x).abs().max() < TOLERANCE[dtype]


def test_the_volume_is_that_of_autograd(case):
    bijection, x = case
    _, log_det = bijection(x)
    for row, volume in zip(x, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: bijection(v[None])[0][0], row)
        expected = torch.linalg.slogdet(jacobian.reshape(row.numel(), row.numel())).logabsdet
        assert volume.item() == pytest.approx(expected.item(), abs=1e-6)


def test_volumes_have_gradients_of_their_own(case):
    """d(volume)/dx by autograd against a central difference, which training relies on."""
    bijection, x = case
    x = x[:1].clone().requires_grad_()
    direction = 1e-4 * torch.randn_like(x)
    (slope,) = torch.autograd.grad(bijection(x)[1].sum() + 0 * x.sum(), x)
    with torch.no_grad():
        moved = (bijection(x + direction)[1] - bijection(x - direction)[1]).item() / 2
    assert (slope * direction).sum().item() == pytest.approx(moved, rel=1e-4, abs=1e-9)


@torch.no_grad()
def test_the_layers_end_at_the_inverse(case):
    bijection, z = case
    states = list(bijection.unfold(z, None))
    assert all(state.shape == z.shape for state in states)
    torch.testing.assert_close(states[-1], bijection.inverse(z, None))


class First(nn.Module):
    """Remembers the first half of its channels."""

    def forward(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        self.seen = x.chunk(2, dim=1)[0].flatten().tolist()
        return x, x.new_zeros(len(x))


@pytest.mark.parametrize(("by_channel", "half"), [(True, [0, 1, 2, 3, 4, 5]), (False, [0, 4, 8, 3, 7, 11])])
def test_channel_couplings_split_otherwise_than_checkerboards(by_channel: bool, half: list[int]) -> None:
    """Of a square of three colours, [[0, 1], [2, 3]] and so on, by channel all of the first and the upper row of the second."""
    first = First()
    Squeezed(first, by_channel)(torch.arange(12.0).view(1, 3, 2, 2))  # type: ignore[arg-type]
    assert first.seen == half
