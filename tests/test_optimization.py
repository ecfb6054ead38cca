"""Learning rates as functions of progress, and what is done to gradients before a step."""

from functools import partial

import pytest
import torch

from genlab.errors import GenlabError
from genlab.optimization import Optimization


def test_rate_rises_linearly_over_the_warm_up():
    rate = Optimization(torch.optim.SGD, lr=0.2, warmup_images=1000).rate
    assert [rate(seen) for seen in (0, 500, 1000, 10**9)] == pytest.approx([0, 0.1, 0.2, 0.2])
    assert Optimization(torch.optim.SGD, lr=0.2).rate(0) == 0.2


def test_rate_falls_in_a_line_after_the_warm_up():
    rule = Optimization(torch.optim.SGD, lr=2.0, warmup_images=100, decay_images=500)
    assert [rule.rate(n) for n in (0, 50, 100, 300, 500, 900)] == [0.0, 1.0, 2.0, 1.0, 0.0, 0.0]
    assert Optimization(torch.optim.SGD, lr=2.0, decay_images=400).rate(100) == 1.5


@pytest.mark.parametrize(("clip_norm", "expected"), [(None, [3.0, 4.0]), (10.0, [3.0, 4.0]), (1.0, [0.6, 0.8])])
def test_gradients_are_clipped_by_their_common_norm(clip_norm, expected):
    weights = [torch.nn.Parameter(torch.zeros(())) for _ in range(2)]
    rule = Optimization(torch.optim.SGD, lr=0.1, clip_norm=clip_norm)
    optimizer = rule.build(weights)
    assert optimizer.param_groups[0]["lr"] == 0.1
    for weight, gradient in zip(weights, (3.0, 4.0), strict=True):
        weight.grad = torch.tensor(gradient)
    norm = rule.norm(optimizer)
    assert norm == pytest.approx(5.0)
    rule.clip(optimizer, norm)
    assert [weight.grad.item() for weight in weights] == pytest.approx(expected, rel=1e-5)


def test_gradients_that_are_no_numbers_are_replaced_before_clipping_or_move_nothing():
    """nan → 0, ±∞ → ±10⁵: (0, 10⁵, -10⁵, 3) has norm √2 · 10⁵, and clipped to 1 the signs are what is left."""
    weight = torch.nn.Parameter(torch.zeros(4))
    wrong = torch.tensor([torch.nan, torch.inf, -torch.inf, 3.0])
    for replace_nan in (True, False):
        rule = Optimization(torch.optim.SGD, lr=0.1, clip_norm=1.0, replace_nan=replace_nan)
        weight.grad = wrong.clone()
        optimizer = rule.build([weight])
        assert rule.norm(optimizer).isnan()
        rule.mend(optimizer)
        if replace_nan:
            assert weight.grad.tolist() == pytest.approx([0, 0.5**0.5, -(0.5**0.5), 3 / (2**0.5 * 1e5)], rel=1e-5)
        else:
            assert weight.grad is None


def test_weights_without_gradients_are_left_out():
    weights = [torch.nn.Parameter(torch.zeros(())) for _ in range(2)]
    rule = Optimization(torch.optim.SGD, lr=0.1, clip_norm=1.0)
    weights[0].grad = torch.tensor(-7.0)
    optimizer = rule.build(weights)
    assert rule.norm(optimizer) == 7.0
    rule.clip(optimizer, rule.norm(optimizer))
    assert weights[1].grad is None


@pytest.mark.parametrize("norm", [5.1, torch.nan, torch.inf])
def test_a_step_with_gradients_too_long_or_no_numbers_leaves_everything_as_it_was(norm):
    """Weights, weight decay and the optimizer's own averages; one of 5 itself is taken."""
    weight = torch.nn.Parameter(torch.ones(()))
    rule = Optimization(partial(torch.optim.AdamW, weight_decay=0.1), lr=0.1, clip_norm=1.0, skip_norm=5.0)
    optimizer = rule.build([weight])
    weight.grad = torch.tensor(float(norm))
    length = rule.norm(optimizer)
    rule.clip(optimizer, length) if length.isfinite() else rule.mend(optimizer)
    optimizer.step()
    assert weight.item() == 1
    assert not optimizer.state
    weight.grad = torch.tensor(5.0)
    rule.clip(optimizer, rule.norm(optimizer))
    optimizer.step()
    assert weight.item() < 1


def test_numbers_that_an_optimizer_refuses_are_one_line() -> None:
    weights = [torch.nn.Parameter(torch.zeros(2))]
    for wrong in ({"betas": (0.9, 1.5)}, {"betas": (0, 0.99)}, {"momentum": 0.9}):
        with pytest.raises(GenlabError, match="optimizer: "):
            Optimization(partial(torch.optim.Adam, **wrong), lr=0.1).build(weights)
