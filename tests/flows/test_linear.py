"""Normalization by data happens once; rotations are rotations."""

import copy

import pytest
import torch

from genlab.flows.linear import ActNorm, BatchNorm, Gaussian, Mixing
from genlab.flows.multiscale import squeeze, unsqueeze
from genlab.networks.coupling import DataNorm


@pytest.fixture
def x():
    torch.manual_seed(0)
    return 3 * torch.randn(64, 2, 4, 4) + torch.tensor([5.0, -1.0])[:, None, None]


def test_actnorm_makes_the_first_batch_standard_and_no_other(x):
    layer = ActNorm(2)
    layer.eval()
    torch.testing.assert_close(layer(x)[0], x)  # nothing is learned from what is only scored
    layer.train()
    z, log_det = layer(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(log_det, -16 * x.std((0, 2, 3), correction=0).log().sum().expand(64))
    torch.testing.assert_close(layer(2 * x)[0] - layer(x)[0], x * layer.norm.log_scale.exp()[:, None, None])


def test_a_restored_actnorm_does_not_begin_again(x):
    first = ActNorm(2).train()
    first(x)
    restored = ActNorm(2).train()
    restored.load_state_dict(copy.deepcopy(first.state_dict()))
    torch.testing.assert_close(restored(5 * x)[0], first(5 * x)[0], rtol=0, atol=0)


def test_a_batch_that_is_no_number_does_not_begin_an_actnorm(x):
    layer = ActNorm(2).train()
    layer(x * torch.nan)
    assert not layer.norm.done
    assert layer.norm.bias.isfinite().all()
    z, _ = layer(x)
    assert layer.norm.done
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)


def test_mixing_keeps_the_precision_of_the_state_under_autocast(x):
    layer = Mixing(2)
    exact, _ = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = layer(x)
    assert torch.equal(found, exact)


def test_a_channel_that_never_changes_stays_finite():
    layer = DataNorm(2).train()
    assert torch.isfinite(layer(torch.ones(8, 2))).all()


def test_batchnorm_normalizes_by_the_batch_in_training_and_by_running_averages_otherwise(x):
    layer = BatchNorm(2, momentum=1.0, eps=1e-8).train()
    z, log_det = layer(x)
    torch.testing.assert_close(z.var((0, 2, 3), correction=0), torch.ones(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(log_det, -16 * x.std((0, 2, 3), correction=0).log().sum().expand(64))
    torch.testing.assert_close(layer.eval()(x)[0], z)
    torch.testing.assert_close(layer.inverse(z, None), x, rtol=1e-4, atol=1e-4)


def test_mixing_begins_as_a_rotation():
    layer = Mixing(6).double()
    z, log_det = layer(torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(z @ z.T, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(log_det, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-6)


def test_labels_have_latents_of_their_own():
    layer = Gaussian((2, 4, 4), classes=3)
    with torch.no_grad():
        layer.table.weight.copy_(torch.arange(12.0).reshape(3, 4) / 10)
    x, y = torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 2])
    z, _ = layer(x, y)
    mean, log_s = layer.table.weight.chunk(2, dim=1)
    torch.testing.assert_close(z, (x - mean[:, :, None, None]) / log_s.exp()[:, :, None, None])


def test_squeezing_keeps_every_number_and_puts_a_checkerboard_first():
    x = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    z = squeeze(x)
    assert z.shape == (2, 12, 2, 3)
    torch.testing.assert_close(unsqueeze(z), x, rtol=0, atol=0)
    place = torch.arange(4)[:, None] + torch.arange(6)
    assert set(z[:, :6].flatten().tolist()) == set(x[..., place % 2 == 0].flatten().tolist())
