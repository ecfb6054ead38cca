"""Penalties of critics whose gradient is known everywhere."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.adversarial.consistency import LatentConsistency
from genlab.adversarial.penalties import (
    DRAGAN,
    R1,
    R2,
    GradientPenalty,
    Lazy,
    NoPenalty,
    Penalty,
    Sum,
    WeightClipping,
    ZeroCentred,
)
from genlab.errors import GenlabError
from genlab.schedules import Cosine

Shown = Callable[..., Any]

OF_LENGTH = {  # of a linear critic of slope |w| = l, and its derivative
    "gradient": (GradientPenalty(10.0), lambda l: 10 * (l - 1) ** 2, lambda l: 20 * (l - 1)),
    "one-sided": (GradientPenalty(10.0, True), lambda l: 10 * max(l - 1, 0) ** 2, lambda l: 20 * max(l - 1, 0)),
    "dragan": (DRAGAN(10.0, 0.5), lambda l: 10 * (l - 1) ** 2, lambda l: 20 * (l - 1)),
    "zero-centred": (ZeroCentred(3.0), lambda l: 3 * l**2, lambda l: 6 * l),
    "r1": (R1(3.0), lambda l: 1.5 * l**2, lambda l: 3 * l),
    "r2": (R2(3.0), lambda l: 1.5 * l**2, lambda l: 3 * l),
    "sum": (Sum({"r1": R1(3.0), "gp": GradientPenalty(1.0)}), lambda l: 1.5 * l**2 + (l - 1) ** 2, lambda l: 5 * l - 2),
}
of_length = pytest.mark.parametrize(("penalty", "value", "derivative"), OF_LENGTH.values(), ids=OF_LENGTH)


@of_length
@pytest.mark.parametrize("length", [0.25, 1.0, 7.0])
def test_penalty_of_a_linear_critic(
    penalty: Penalty, value: Any, derivative: Any, length: float, linear: Any, pair: Tensor, shown: Shown
) -> None:
    """A function of |w| alone; its gradient is the derivative times w/|w|."""
    with torch.no_grad():
        linear.w *= length / linear.w.norm()
    term = penalty.critic(shown(linear, *pair))
    term.backward()
    assert term.item() == pytest.approx(value(length), abs=1e-12)
    torch.testing.assert_close(linear.w.grad, derivative(length) * linear.w.detach() / length, rtol=1e-7, atol=1e-9)


def test_penalty_of_a_conditional_critic_uses_each_label(linear: Any, pair: Tensor, shown: Shown) -> None:
    y = torch.tensor([0, 1, 0, 1, 2])
    lengths = (y + 1) * linear.w.detach().norm()
    seen = shown(linear, *pair, y)
    assert GradientPenalty(1.0).critic(seen).item() == pytest.approx((lengths - 1).square().mean().item())
    assert DRAGAN(1.0, 0.5).critic(seen).item() == pytest.approx((lengths - 1).square().mean().item())
    assert R1(2.0).critic(seen).item() == pytest.approx(lengths.square().mean().item())


def test_each_penalty_is_taken_at_its_own_place(quadratic: Any, pair: Tensor, shown: Shown) -> None:
    """The slope of |x|²/2 is x: R1 sees data, R2 samples."""
    seen = shown(quadratic, *pair)
    x, fake = (a.flatten(1).square().sum(1).mean().item() for a in pair)
    assert R1(1.0).critic(seen).item() == pytest.approx(x / 2)
    assert R2(1.0).critic(seen).item() == pytest.approx(fake / 2)


@pytest.mark.parametrize(("penalty", "mean"), [(GradientPenalty(1.0), 4 / 3), (ZeroCentred(1.0), 13 / 3)])
def test_penalty_is_taken_between_data_and_samples(penalty: Penalty, mean: float, quadratic: Any, shown: Shown) -> None:
    """|x_u| = 1 + 2u between lengths 1 and 3: E(2u)² = 4/3 and E(1 + 2u)² = 13/3 where each sample has its own uniform u."""
    torch.manual_seed(0)
    n, unit = 20_000, torch.tensor([0.6, 0.8], dtype=torch.float64)
    term = penalty.critic(shown(quadratic, (3 * unit).expand(n, 2), unit.expand(n, 2)))
    assert abs(term.item() - mean) < 4 * 2.5 / n**0.5  # at most the standard deviation of (1 + 2u)²


def test_dragan_is_taken_about_the_data(quadratic: Any, shown: Shown) -> None:
    """x ∈ {2, 0} + a: std 1, δ = u v/2 with E δ = 1/8 and E δ² = 1/36. |x + δ| - 1 = x + δ - 1, so that the mean of its square
    is 1 + a² + 2a/8 + 1/36: noise is added, as in the published code."""
    torch.manual_seed(0)
    x = torch.zeros(20_000, 1, dtype=torch.float64)
    x[::2] = 2
    for a in (0.0, 2.0):
        term = DRAGAN(1.0, 0.5).critic(shown(quadratic, x + a, 100 * x))
        assert term.item() == pytest.approx(1 + a**2 + a / 4 + 1 / 36, rel=0.02)


@pytest.mark.parametrize("name", ["gradient", "one-sided", "dragan", "zero-centred", "r1", "r2"])
def test_penalty_is_known_in_validation(name: str, linear: Any, pair: Tensor, shown: Shown) -> None:
    penalty = OF_LENGTH[name][0]
    with torch.no_grad():
        seen = shown(linear, *pair)
    with torch.enable_grad():
        assert penalty.critic(seen) > 0


@pytest.mark.parametrize("penalty", [GradientPenalty(1.0), DRAGAN(1.0, 0.5), R1(1.0)])
def test_a_flat_critic_has_finite_gradients(penalty: Penalty, linear: Any, pair: Tensor, shown: Shown) -> None:
    """The norm of a slope of 0 is where a root has no derivative."""
    with torch.no_grad():
        linear.w.zero_()
    penalty.critic(shown(linear, *pair)).backward()
    assert linear.w.grad.isfinite().all()


def test_no_penalty(linear: Any, pair: Tensor, shown: Shown) -> None:
    assert NoPenalty().critic(shown(linear, *pair)).item() == 0
    assert NoPenalty().generator(shown(linear, *pair)).item() == 0


def test_lazy_is_dense_on_average_and_counts_batches(linear: Any, pair: Tensor, shown: Shown) -> None:
    dense, lazy = R1(3.0), Lazy(R1(3.0), 4)
    full = dense.critic(shown(linear, *pair)).item()
    terms = [lazy.critic(shown(linear, *pair, turn=turn)).item() for turn in range(8, 16)]
    assert terms == pytest.approx([4 * full, 0, 0, 0] * 2)
    assert sum(terms) / len(terms) == pytest.approx(full)
    lazy.eval()
    assert lazy.critic(shown(linear, *pair, turn=1)).item() == pytest.approx(full)
    always = Lazy(R1(3.0), 1)
    assert [always.critic(shown(linear, *pair, turn=turn)).item() for turn in range(3)] == pytest.approx([full] * 3)


def test_weights_are_clipped_after_a_step_alone() -> None:
    critic, term = nn.Linear(3, 3), WeightClipping(0.1)
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[-5.0, 0.05, 0.3], [0.1, -0.1, 0.0], [1.0, -0.01, -0.2]]))
    Lazy(WeightClipping(0.25), 3).project(critic)
    expected = torch.tensor([[-0.25, 0.05, 0.25], [0.1, -0.1, 0.0], [0.25, -0.01, -0.2]])
    torch.testing.assert_close(critic.weight.detach(), expected, rtol=0, atol=0)
    Sum({"clip": term, "none": NoPenalty()}).project(critic)
    torch.testing.assert_close(critic.weight.detach(), expected.clamp(-0.1, 0.1), rtol=0, atol=0)
    assert critic.bias.abs().max() <= 0.1


@pytest.mark.parametrize(
    "build",
    [
        lambda: GradientPenalty(-1.0),
        lambda: DRAGAN(1.0, -0.5),
        lambda: ZeroCentred(-1.0),
        lambda: R1(-0.1),
        lambda: R2(-0.1),
        lambda: WeightClipping(-0.01),
        lambda: WeightClipping(0.0),
        lambda: Lazy(R1(1.0), 0),
        lambda: Lazy(R1(1.0), 1.5),  # type: ignore[arg-type]
        lambda: R1(float("nan")),
        lambda: Sum({}),
    ],
)
def test_what_makes_no_sense_is_refused(build: Callable[[], Penalty]) -> None:
    with pytest.raises(GenlabError, match="penalty"):
        build()


def test_a_sum_follows_its_schedule(quadratic: Any, pair: Tensor, shown: Shown) -> None:
    """In the critic's turn and the generator's, by images seen."""
    penalty = Sum({"r1": R1(2.0), "apart": LatentConsistency(0.0, 1.0, 0.5)}, Cosine(1.0, 0.2, 1000))
    seen = shown(quadratic, *pair)
    whole = pair[0].square().flatten(1).sum(1).mean().item()
    torch.manual_seed(0)
    apart = penalty.generator(seen).item()
    for images, factor in ((0, 1.0), (500, 0.6), (5000, 0.2)):
        later = seen._replace(images_seen=images)
        assert penalty.critic(later).item() == pytest.approx(factor * whole)
        torch.manual_seed(0)
        assert penalty.generator(later).item() == pytest.approx(factor * apart)
