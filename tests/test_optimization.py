"""Learning rates, clipping and averaging as functions of progress."""

import pytest
import torch

from genlab.optimization import Averaging, Optimization


def test_rate_rises_linearly_over_the_warm_up():
    rate = Optimization(torch.optim.SGD, lr=0.2, warmup_images=1000).rate
    assert [rate(seen) for seen in (0, 500, 1000, 10**9)] == pytest.approx([0, 0.1, 0.2, 0.2])
    assert Optimization(torch.optim.SGD, lr=0.2).rate(0) == 0.2


@pytest.mark.parametrize(("clip_norm", "expected"), [(None, [3.0, 4.0]), (10.0, [3.0, 4.0]), (1.0, [0.6, 0.8])])
def test_gradients_are_clipped_by_their_common_norm(clip_norm, expected):
    weights = [torch.nn.Parameter(torch.zeros(())) for _ in range(2)]
    rule = Optimization(torch.optim.SGD, lr=0.1, clip_norm=clip_norm)
    optimizer = rule.build(weights)
    assert optimizer.param_groups[0]["lr"] == 0.1
    for weight, gradient in zip(weights, (3.0, 4.0), strict=True):
        weight.grad = torch.tensor(gradient)
    rule.clip(optimizer)
    assert [weight.grad.item() for weight in weights] == pytest.approx(expected, rel=1e-5)


def test_averaging_is_constant_or_ramps_up():
    """min(d, (1 + n)/(10 + n)): the ramp of 0.999 ends at n = 8990."""
    assert Averaging(0.999, ramp=False).at(0) == 0.999
    at = Averaging(0.999, ramp=True).at
    assert [at(0), at(8), at(89)] == pytest.approx([0.1, 0.5, 90 / 99])
    assert at(8988) < 0.999
    assert at(8990) == at(10**6) == 0.999
