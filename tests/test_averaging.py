"""The rules of averaging against their published closed forms and the averages that they are to make."""

import math

import numpy as np
import pytest

from genlab.averaging import Averaging, Constant, HalfLife, PowerFunction, Ramped, named
from genlab.errors import GenlabError

B = 64


def weights(rule: Averaging, updates: int, batch: int = B) -> np.ndarray:
    """(updates,) the weight of each update's θ in the average after the last, and what is left of θ at the start."""
    beta = np.array([rule.at(k * batch, batch) for k in range(1, updates + 1)])
    left = np.cumprod(np.append(1.0, beta[:0:-1]))[::-1]  # Π of the later β
    return np.append((1 - beta) * left, beta[0] * left[0])


def test_constant_has_no_ramp() -> None:
    assert [Constant(0.9999).at(seen, B) for seen in (B, 10**9)] == [0.9999, 0.9999]


def test_ramp_counts_updates_from_one() -> None:
    """(1 + n)/(10 + n) is 2/11 first; 0.999 is reached at n = 8990."""
    rule = Ramped(0.999)
    assert [rule.at(n * B, B) for n in (1, 2, 8, 89)] == pytest.approx([2 / 11, 3 / 12, 9 / 18, 90 / 99], rel=1e-15)
    assert rule.at(8989 * B, B) < 0.999
    assert rule.at(8990 * B, B) == rule.at(10**6 * B, B) == pytest.approx(0.999, rel=1e-15)


def test_half_life_is_what_it_says() -> None:
    """A weight given `images` ago has halved: β^(images / B) = 1/2; EDM's own is β = 0.99929 at B = 512."""
    rule = HalfLife(500_000, None)
    assert rule.at(B, B) ** (500_000 / B) == pytest.approx(0.5, rel=1e-12)
    assert rule.at(10**9, 512) == pytest.approx(0.99929, abs=5e-6)


def test_half_life_ramps_with_the_images_seen_before_the_batch() -> None:
    rule = HalfLife(500_000, 0.05)
    assert rule.at(B, B) == 0.0  # the first update forgets the initial weights
    assert rule.at(2 * B, B) == pytest.approx(0.5 ** (1 / 0.05), rel=1e-12)  # half-life 0.05 B
    assert rule.at(1_000_000 + B, B) == pytest.approx(0.5 ** (B / 50_000), rel=1e-12)
    full = HalfLife(500_000, None).at(B, B)
    assert rule.at(9_990_000 + B, B) < full  # 0.05 · 10⁷ images is where the ramp ends
    assert rule.at(10_000_000 + B, B) == rule.at(10**9, B) == pytest.approx(full, rel=1e-12)


@pytest.mark.parametrize(("std", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_power_function_exponents_are_the_published(std: float, gamma: float) -> None:
    """γ = 16.97 and 6.94 (EDM2, section 3.1), and the law they solve."""
    found = PowerFunction(std).gamma
    assert found == pytest.approx(gamma, abs=5e-3)
    assert math.sqrt((found + 1) / ((found + 2) ** 2 * (found + 3))) == pytest.approx(std, rel=1e-10)


@pytest.mark.parametrize("std", [0.05, 0.10, 0.2])
def test_power_function_has_its_relative_width_at_any_time(std: float) -> None:
    """The weights that its updates give to the past sum to one, leave nothing of the start, and have width std · N."""
    for updates in (2_000, 8_000):
        w = weights(PowerFunction(std), updates)
        assert w.sum() == pytest.approx(1, rel=1e-9)
        assert w[-1] == 0.0
        at = np.arange(1, updates + 1) / updates
        mean = (w[:-1] * at).sum()
        assert math.sqrt((w[:-1] * (at - mean) ** 2).sum()) == pytest.approx(std, rel=5e-3)
        gamma = PowerFunction(std).gamma
        assert mean == pytest.approx((gamma + 1) / (gamma + 2), rel=2e-3)


@pytest.mark.parametrize("rule", [HalfLife(500_000, 0.05), PowerFunction(0.1)])
def test_in_images_the_batch_changes_nothing(rule: Averaging) -> None:
    """Weight of the second half of a training does not depend on how it is cut into batches."""
    late = [weights(rule, 10**6 // batch, batch)[10**6 // batch // 2 : -1].sum() for batch in (50, 500)]
    assert late[0] == pytest.approx(late[1], abs=2e-3)


@pytest.mark.parametrize("std", [0.0, -0.1, 0.29, 1.0])
def test_a_width_that_no_power_has_is_refused(std: float) -> None:
    with pytest.raises(GenlabError, match=r"between 0 and 0\.288"):
        PowerFunction(std)


def test_one_rule_is_named_ema_and_several_begin_with_it() -> None:
    one, other = Constant(0.9), Constant(0.99)
    assert named(one) == {"ema": one}
    assert list(named({"ema": one, "long": other})) == ["ema", "long"]
    for wrong in ({"long": one, "ema": other}, {"ema": one, "raw": other}, {}):
        with pytest.raises(GenlabError, match="the first must be named ema, and none raw"):
            named(wrong)
