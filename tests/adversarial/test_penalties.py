"""Penalties of critics whose gradient is known everywhere."""

import pytest
import torch
from torch import nn

from genlab.adversarial.penalties import GradientPenalty, NoPenalty


class Linear(nn.Module):
    """D(x, y) = (y + 1) w·x."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x, y=None):
        return (x * self.w).flatten(1).sum(1) * (1 if y is None else y + 1)


class Quadratic(nn.Module):
    """D(x) = |x|²/2, of gradient x."""

    def forward(self, x, y=None):
        return (x**2).flatten(1).sum(1) / 2


@pytest.fixture
def critic():
    return Linear(torch.randn(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def pair():
    return torch.randn(2, 5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("length", [0.25, 1.0, 7.0])
def test_penalty_of_a_linear_critic(critic, pair, length):
    """weight (|w| - 1)² on both sides of 1, and 2 weight (|w| - 1) w/|w| to the critic."""
    with torch.no_grad():
        critic.w *= length / critic.w.norm()
    penalty = GradientPenalty(10.0)(critic, *pair, None)
    penalty.backward()
    assert penalty.item() == pytest.approx(10 * (length - 1) ** 2, abs=1e-12)
    torch.testing.assert_close(critic.w.grad, 20 * (length - 1) * critic.w.detach() / length)


def test_penalty_of_a_conditional_critic_uses_each_label(critic, pair):
    y = torch.tensor([0, 1, 0, 1, 2])
    lengths = (y + 1) * critic.w.detach().norm()
    assert GradientPenalty(1.0)(critic, *pair, y).item() == pytest.approx((lengths - 1).square().mean().item())


def test_penalty_is_taken_between_data_and_samples():
    """|x_u| = 1 + 2u between lengths 1 and 3: E(2u)² = 4/3 where u is uniform, and each sample has its own u."""
    torch.manual_seed(0)
    n, unit = 20_000, torch.tensor([0.6, 0.8], dtype=torch.float64)
    penalty = GradientPenalty(1.0)(Quadratic(), (3 * unit).expand(n, 2), unit.expand(n, 2), None)
    standard_error = (16 / 5 - 16 / 9) ** 0.5 / n**0.5
    assert abs(penalty.item() - 4 / 3) < 4 * standard_error


def test_penalty_is_known_in_validation_and_reaches_no_generator(critic, pair):
    with torch.no_grad():
        assert GradientPenalty(1.0)(critic, *pair, None) > 0
    fake = pair[1].requires_grad_()
    GradientPenalty(1.0)(Quadratic(), pair[0], fake, None)
    (GradientPenalty(1.0)(critic, pair[0], fake, None)).backward()
    assert fake.grad is None


def test_no_penalty(critic, pair):
    assert NoPenalty()(critic, *pair, None).item() == 0
