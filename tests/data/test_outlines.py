"""Coverage against polygons and circles worked out independently."""

import math

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Polygon

from genlab.data.outlines import Cross, Disk, Outline, Star, coverage


def corners(fold: int, notch: float) -> np.ndarray:
    """The vertices of a star of circumradius 1, a tip at angle 0."""
    radius = np.tile([1.0, notch], fold)
    angle = math.pi / fold * np.arange(2 * fold)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def cross(arm: float) -> np.ndarray:
    end = math.sqrt(1 - arm**2)
    right = [(end, -arm), (end, arm), (arm, arm)]  # of one arm, and the corner to the next
    return np.array([(x, y) if k == 0 else turned(x, y, k) for k in range(4) for x, y in right])


def turned(x: float, y: float, quarters: int) -> tuple[float, float]:
    for _ in range(quarters):
        x, y = -y, x
    return x, y


def round_(inner: float) -> np.ndarray:
    angle = np.linspace(0, 2 * math.pi, 721)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.concatenate([ring, inner * ring[::-1]]) if inner else ring


CASES = {
    "circle": (Disk(), round_(0)),
    "ring": (Disk(0.5), round_(0.5)),
    "square": (Star(4), corners(4, math.cos(math.pi / 4))),
    "triangle": (Star(3), corners(3, 0.5)),
    "star": (Star(5, 0.45), corners(5, 0.45)),
    "cross": (Cross(0.3), cross(0.3)),
}


@pytest.mark.parametrize(("outline", "vertices"), CASES.values(), ids=CASES)
def test_coverage_is_the_share_of_a_pixel_inside_the_polygon(outline: Outline, vertices: np.ndarray) -> None:
    """Against 16 × 16 points of each pixel, tested by matplotlib's own point-in-polygon."""
    centre, radius, rotation, fine = (11.3, 12.8), 6.2, 0.7, 16
    turn = np.array([[math.cos(rotation), math.sin(rotation)], [-math.sin(rotation), math.cos(rotation)]])
    polygon = Polygon(vertices @ turn * radius + centre)
    axis = (np.arange(24 * fine) + 0.5) / fine
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    exact = polygon.contains_points(points).reshape(24, fine, 24, fine).mean((1, 3))
    found = coverage(outline, torch.tensor([centre]), torch.tensor([radius]), torch.tensor([rotation]), 24, 3)[0]
    assert np.abs(found.numpy() - exact).max() < 0.07
    assert abs(found.sum().item() / exact.sum() - 1) < 0.01


@pytest.mark.parametrize(("outline", "vertices"), CASES.values(), ids=CASES)
def test_area_is_that_of_the_polygon(outline: Outline, vertices: np.ndarray) -> None:
    """The shoelace formula."""
    x, y = vertices.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert outline.area == pytest.approx(area, rel=1e-3)


@pytest.mark.parametrize("outline", [outline for outline, _ in CASES.values()], ids=CASES)
def test_a_turn_by_the_period_changes_nothing(outline: Outline) -> None:
    centre, radius = torch.tensor([[12.0, 12.0]] * 2), torch.tensor([6.0, 6.0])
    first, second = coverage(outline, centre, radius, torch.tensor([0.2, 0.2 + outline.period]), 24, 3)
    torch.testing.assert_close(first, second, atol=1e-3, rtol=0)
    if outline.fold:
        half = coverage(outline, centre[:1], radius[:1], torch.tensor([0.2 + outline.period / 2]), 24, 3)[0]
        assert (first - half).abs().max() > 0.2


def test_a_figure_is_the_same_whatever_it_is_drawn_with() -> None:
    """The window has room for the largest of a batch, and nothing else depends on that."""
    centre, rotation = torch.tensor([[7.2, 9.9], [15.0, 14.0]]), torch.tensor([0.3, 0.1])
    both = coverage(Star(5, 0.45), centre, torch.tensor([3.0, 8.0]), rotation, 32, 3)
    alone = coverage(Star(5, 0.45), centre[:1], torch.tensor([3.0]), rotation[:1], 32, 3)
    assert torch.equal(both[0], alone[0])
