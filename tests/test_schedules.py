"""Numbers as functions of progress, against their values at the ends and the middle, and what they move."""

import math

import pytest
import torch
from torch import nn

from genlab.averaging import ScheduledHalfLife
from genlab.errors import GenlabError
from genlab.optimization import Optimization
from genlab.schedules import Cosine, Linear


def test_a_cosine_begins_level_is_half_way_in_the_middle_and_stays_where_it_ends() -> None:
    rise = Cosine(first=2.0, last=6.0, images=1000)
    assert [rise(n) for n in (0, 500, 1000, 10**9)] == pytest.approx([2, 4, 6, 6])
    assert rise(250) == pytest.approx(2 + 4 * (1 - math.sqrt(0.5)) / 2)
    assert rise(1) - 2 < 1e-4
    with pytest.raises(GenlabError, match="images=0"):
        Cosine(1.0, 0.0, 0)


def test_a_line_holds_then_falls_and_stays_where_it_ends() -> None:
    fall = Linear(first=2.0, last=0.5, images=1000, hold=0.4)
    assert [fall(n) for n in (0, 400, 600, 700, 1000, 10**9)] == pytest.approx([2, 2, 1.5, 1.25, 0.5, 0.5])
    assert Linear(0.0, 1.0, 200)(50) == 0.25  # and from the beginning, where none is said
    for images, hold in ((0, 0.0), (100, 1.0), (100, -0.1)):
        with pytest.raises(GenlabError, match=f"images={images} after hold={hold:g}"):
            Linear(1.0, 0.0, images, hold)


def test_rate_and_beta2_follow_their_schedules() -> None:
    """The rate also warms up and decays; β₁ is left alone."""
    fall, rise = Cosine(1.0, 0.25, 1000), Cosine(0.9, 0.99, 1000)
    rule = Optimization(torch.optim.Adam, lr=0.4, warmup_images=250, schedule=fall, beta2=rise)
    optimizer = rule.build([nn.Parameter(torch.zeros(()))])
    for seen, lr, beta2 in ((0, 0.0, 0.9), (125, 0.2 * fall(125), rise(125)), (500, 0.25, 0.945), (4000, 0.1, 0.99)):
        rule.advance(optimizer, seen)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(lr)
        assert optimizer.param_groups[0]["betas"] == (0.9, pytest.approx(beta2))
    with pytest.raises(GenlabError, match="SGD has none"):
        Optimization(torch.optim.SGD, lr=0.4, beta2=rise).build([nn.Parameter(torch.zeros(()))])


def test_a_half_life_follows_its_schedule() -> None:
    rule = ScheduledHalfLife(Cosine(0.0, 800.0, 1000))
    assert rule.at(100, 100) == 0  # nothing has been seen before
    assert rule.at(600, 100) == pytest.approx(0.5 ** (100 / 400))
    assert rule.at(5000, 100) == pytest.approx(0.5 ** (100 / 800))
