"""EDM's augmentation: exact pixel permutations, affine functions moved exactly, published labels and probabilities."""

import math

import pytest
import torch
import yaml
from torch import Tensor

from genlab.data.augment import Drawn, Geometric
from genlab.folders import conf_dir
from genlab.instantiation import build


def edm(**changes: float) -> Geometric:
    published = {
        "p": 0.12,
        "xflip": 1e8,
        "yflip": 1.0,
        "scale": 1.0,
        "rotate_frac": 1.0,
        "aniso": 1.0,
        "translate_frac": 1.0,
        "scale_std": 0.2,
        "aniso_std": 0.2,
        "aniso_rotate": 0.5,
        "translate_std": 0.125,
    }
    return Geometric(**published | changes)


def drawn(n: int = 1, **values: float | list[float]) -> Drawn:
    """n times the same augmentation, all that is not named being none."""
    zero = {name: torch.zeros(n) for name in Drawn._fields if name != "shift"} | {"shift": torch.zeros(n, 2)}
    given = {name: torch.zeros_like(zero[name]) + torch.tensor(value) for name, value in values.items()}
    return Drawn(**zero | given)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_nothing_is_eligible_at_p_0() -> None:
    """Unchanged bit for bit, always eligible flips included, and so is an image with the widths of none."""
    x = noise(64, 3, 16, 16)
    augmented, labels = edm(p=0.0)(x)
    assert torch.equal(augmented, x)
    assert torch.equal(labels, torch.zeros(64, 9))


def test_flips_are_permutations_bit_for_bit() -> None:
    x = noise(1, 3, 16, 12)
    for given, expected, label in [
        (drawn(xflip=1.0), x.flip(3), [1, 0]),
        (drawn(yflip=1.0), x.flip(2), [0, 1]),
        (drawn(xflip=1.0, yflip=1.0), x.rot90(2, (2, 3)), [1, 1]),
    ]:
        assert torch.equal(edm().apply(x, given), expected)
        assert given.labels().tolist() == [[*label, 0, 0, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("side", [16, 17])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_permutations(side: int, turns: int) -> None:
    """Anticlockwise, with the label (cos φ - 1, sin φ)."""
    x = noise(2, 3, side, side)
    given = drawn(2, angle=turns * math.pi / 2)
    torch.testing.assert_close(edm().apply(x, given), x.rot90(turns, (2, 3)), rtol=0, atol=2e-4)
    expected = [0, 0, 0, math.cos(turns * math.pi / 2) - 1, math.sin(turns * math.pi / 2), 0, 0, 0, 0]
    torch.testing.assert_close(given.labels(), torch.tensor([expected] * 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, 2), (-2, 5), (-1, -4)])
def test_whole_shifts_are_permutations_with_mirrored_borders(right: int, down: int) -> None:
    """To the right and down, in units of an eighth of either side; the border pixel itself is not repeated."""
    height, width = 16, 24
    x = noise(2, 1, height, width)
    wx, wy = right / (0.125 * width), down / (0.125 * height)
    given = drawn(2, shift=[wx, wy])

    def back(n: int, by: int) -> Tensor:
        place = (torch.arange(n) - by).abs()
        return (n - 1) - (n - 1 - place).abs()

    expected = x[:, :, back(height, down)][:, :, :, back(width, right)]
    torch.testing.assert_close(edm().apply(x, given), expected, rtol=0, atol=2e-4)
    torch.testing.assert_close(given.labels()[0], torch.tensor([0, 0, 0, 0, 0, 0, 0, wx, wy]))


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_order_is_scale_rotation_stretch_shift() -> None:
    """The map is T(t) · A · R(φ) · S, with A stretching by 2^(0.2 w) along its axis and shrinking across it; v is down.

    A plane a u + b v over the image shows all of it, up to the 0.065 pixels by which the cubic kernel misses a line.
    """
    side, a, b = 32, 0.3, -0.7
    scale, angle, aniso, axis, wx, wy = 0.6, 0.5, -0.9, 0.8, 0.4, -0.6
    s, r = 2 ** (0.2 * scale), 2 ** (0.2 * aniso)
    turned = matrix([math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)])  # anticlockwise
    along, across = matrix([math.cos(axis)], [-math.sin(axis)]), matrix([math.sin(axis)], [math.cos(axis)])
    stretched = r * along @ along.T + across @ across.T / r
    inverse = torch.linalg.inv(stretched @ turned * s)
    shift = torch.tensor([wx, wy], dtype=torch.float64) * 0.125 * side
    places = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    v, u = torch.meshgrid(places, places, indexing="ij")
    source = (torch.stack([u, v], dim=2) - shift) @ inverse.T
    expected = a * source[..., 0] + b * source[..., 1]
    x = (a * u + b * v).float()[None, None]
    given = drawn(scale=scale, angle=angle, aniso=aniso, axis=axis, shift=[wx, wy])
    map_ = edm().inverse(given, side, side)[0].double()
    torch.testing.assert_close(map_, torch.cat([inverse, -(inverse @ shift)[:, None]], dim=1), rtol=0, atol=1e-5)
    found = edm().apply(x, given)[0, 0].double()
    inside = (source.abs() < (side - 1) / 2 - 2).all(2)  # where nothing of the mirrored border is seen
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=0.065 * (abs(a) + abs(b)))
    labels = [0, 0, scale, math.cos(angle) - 1, math.sin(angle), aniso * math.cos(axis), aniso * math.sin(axis), wx, wy]
    torch.testing.assert_close(given.labels()[0], torch.tensor(labels))


def test_a_flip_comes_before_the_rest() -> None:
    x = noise(1, 1, 16, 16)
    turn = {"angle": 0.4, "shift": [0.5, 0.0]}
    assert torch.equal(edm().apply(x, drawn(xflip=1.0, **turn)), edm().apply(x.flip(3), drawn(**turn)))


def test_autocast_does_not_coarsen_places() -> None:
    x = noise(4, 1, 32, 32)
    given = drawn(4, angle=0.3, scale=0.5)
    expected = edm().apply(x, given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(edm().apply(x, given), expected, rtol=0, atol=1e-6)


def test_probabilities_and_widths_are_the_published() -> None:
    """At p: flips 1/2 and p/2, everything else p, independent; normal or uniform parameters where eligible."""
    n, p = 40_000, 0.3
    torch.manual_seed(0)
    found = edm(p=p).draw(n, torch.device("cpu"))

    def share(x: Tensor) -> float:
        return (x != 0).float().mean().item()

    tolerance = 4 * 0.5 / math.sqrt(n)
    assert share(found.xflip) == pytest.approx(0.5, abs=tolerance)
    assert share(found.yflip) == pytest.approx(p / 2, abs=tolerance)
    for x in (found.scale, found.angle, found.aniso, found.shift[:, 0]):
        assert share(x) == pytest.approx(p, abs=tolerance)
    assert torch.equal(found.shift[:, 0] != 0, found.shift[:, 1] != 0)
    assert share(found.axis) == pytest.approx(0.5, abs=tolerance)
    assert share(found.scale * found.angle) == pytest.approx(p * p, abs=tolerance)
    for x in (found.scale, found.aniso, found.shift[:, 0], found.shift[:, 1]):
        assert x[x != 0].std() == pytest.approx(1, abs=0.03)
        assert x[x != 0].mean() == pytest.approx(0, abs=0.04)
    for x in (found.angle, found.axis):
        assert x[x != 0].std() == pytest.approx(math.pi / math.sqrt(3), rel=0.02)
        assert x.abs().max() <= math.pi


def test_the_recipe_is_the_published_one() -> None:
    recipe = build(yaml.safe_load((conf_dir() / "augment" / "edm.yaml").read_text()))
    assert vars(recipe) == vars(edm())
    x = noise(256, 1, 8, 8)
    torch.manual_seed(0)
    augmented, labels = recipe(x)
    touched = (labels != 0).any(1)
    assert torch.equal(augmented[~touched], x[~touched])
    assert labels.shape == (256, 9)
    assert augmented.isfinite().all()
