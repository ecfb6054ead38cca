"""Minibatch standard deviation against its definition, written out, and groups that do not fit."""

import pytest
import torch

from genlab.errors import GenlabError
from genlab.networks.minibatch import MinibatchStd


@pytest.mark.parametrize("channels", [1, 2])
def test_it_appends_the_mean_deviation_within_strided_groups(channels: int) -> None:
    x = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    y = MinibatchStd(3, channels)(x)
    assert torch.equal(y[:, :4], x)
    for i in range(6):
        members = x[i % 2 :: 2]  # groups of 3 among 6: every second
        for c in range(channels):
            share = members[:, c * 4 // channels : (c + 1) * 4 // channels]
            expected = share.std(0, correction=0).mean()
            torch.testing.assert_close(y[i, 4 + c], expected.expand(3, 3), rtol=1e-5, atol=1e-5)


def test_equal_samples_have_none_and_finite_gradients() -> None:
    x = torch.ones(4, 2, 2, 2, requires_grad=True)
    y = MinibatchStd(4)(x)
    assert y[:, 2].abs().max() < 1e-3
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_batch_that_is_no_groups_is_refused_in_training_alone() -> None:
    layer = MinibatchStd(4)
    with pytest.raises(GenlabError, match=r"6 samples are no groups of 4.*trainer\.batch"):
        layer(torch.zeros(6, 1, 2, 2))
    x = torch.randn(6, 1, 2, 2)
    torch.testing.assert_close(layer.eval()(x), MinibatchStd(3)(x))
    assert layer.train()(x[:3]).shape == (3, 2, 2, 2)  # fewer than a group are one group
    with pytest.raises(GenlabError, match="must be 1 or more"):
        MinibatchStd(0)
