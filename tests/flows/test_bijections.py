"""Inverses, volumes by autograd, and the layers in between."""

import pytest
import torch

from genlab.flows.elementwise import RationalQuadratic

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def test_knots_of_a_spline_are_summed_in_float32_though_its_network_is_rough() -> None:
    """What a network gives in bfloat16 is as good as it is; sums of it in bfloat16 would be other knots."""
    spline = RationalQuadratic(8, 3.0)
    x, theta = torch.randn(64, 2), torch.randn(64, 2, spline.outputs).bfloat16()
    for found, exact in zip(spline.transform(x, theta), spline.transform(x, theta.float()), strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(found, exact)


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
