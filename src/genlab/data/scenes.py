"""Scenes of one to three equal figures on a background: their factors, how these are drawn, and how they look.

Lengths are shares of the image's side, x points right and y down from the upper left corner, angles are radians clockwise.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from genlab.data.outlines import Cross, Disk, Star, coverage
from genlab.noise import NoiseStream

OUTLINES = {
    "circle": Disk(),
    "square": Star(4),
    "triangle": Star(3),
    "star": Star(5, notch=0.45),
    "cross": Cross(arm=0.3),
    "ring": Disk(hole=0.5),
}
COLOURS = {
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (240, 205, 20),
    "green": (50, 170, 60),
    "cyan": (40, 200, 220),
    "blue": (50, 80, 220),
    "purple": (150, 50, 190),
}
BACKGROUNDS = {"white": (230, 230, 230), "grey": (128, 128, 128), "black": (25, 25, 25), "brown": (105, 75, 50)}
SIZES = {"small": (0.09, 0.105), "medium": (0.125, 0.15), "large": (0.175, 0.195)}  # the circumradius is uniform there
WORDS = {  # of the discrete factors, which are indices into these
    "shape": tuple(OUTLINES),
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "count": ("no", "one", "two", "three"),
    "background": tuple(BACKGROUNDS),
    "position": ("left", "right", "top", "bottom", "centre", "scattered"),
}
NAMES = (*WORDS, "x", "y", "radius", "rotation", "grain")  # the columns of a table of factors
GRAIN = 10.0  # grey levels: the largest standard deviation of the background's grain
MARGIN, GAP = 0.05, 0.06  # the least distances to the image's edge and between figures

PAINT = torch.tensor([*COLOURS.values()], dtype=torch.float32)  # (7, 3)
GROUND = torch.tensor([*BACKGROUNDS.values()], dtype=torch.float32)  # (4, 3)
_RADII = torch.tensor([*SIZES.values()])  # (3, 2)
_PERIODS = torch.tensor([outline.period for outline in OUTLINES.values()])  # (6,)
_WAYS = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])  # left, right, top, bottom
_QUADRANTS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


class Scenes(NamedTuple):
    """N scenes; `centres` of the figures that a scene does not have are not seen."""

    factors: Tensor  # (N, 11) float32, in the order of NAMES
    centres: Tensor  # (N, 3, 2)

    def column(self, name: str) -> Tensor:
        """(N,): float32, or int64 for a discrete factor."""
        column = self.factors[:, NAMES.index(name)]
        return column.long() if name in WORDS else column


def held_out(shape: Tensor, colour: Tensor) -> Tensor:
    """Whether a combination is kept for the split "unseen": the k-th shape in the k-th colour, such as a red circle."""
    return shape == colour


def draw(stream: NoiseStream, n: int, unseen: bool) -> Scenes:
    """Scenes whose factors are uniform: colours over those that the split has of a shape; radius, rotation and grain over
    their ranges; a single figure is in the centre or to one side of it, and several lie in different quadrants."""
    u = stream.uniform((n, 20))

    def choice(k: int, of: int) -> Tensor:
        return (u[:, k] * of).long()

    shape, size, count, background = choice(0, len(OUTLINES)), choice(2, 3), 1 + choice(3, 3), choice(4, len(GROUND))
    others = (shape + 1 + choice(1, len(PAINT) - 1)) % len(PAINT)  # every colour but the one that is held out
    colour = shape if unseen else others
    position = torch.where(count == 1, choice(5, 5), 5)
    radius = _RADII[size, 0] + u[:, 6] * (_RADII[size, 1] - _RADII[size, 0])
    rotation, grain = u[:, 7] * _PERIODS[shape], u[:, 8] * GRAIN
    single = _single(position, radius, u[:, 9:11])
    centres = torch.where(count[:, None, None] == 1, single[:, None], _scattered(count, radius, u[:, 11:19]))
    there = (torch.arange(3) < count[:, None])[:, :, None]  # (N, 3, 1)
    x, y = ((centres * there).sum(1) / count[:, None]).unbind(1)
    columns = (shape, colour, size, count, background, position, x, y, radius, rotation, grain)
    return Scenes(torch.stack([column.float() for column in columns], 1), centres)


def _single(position: Tensor, radius: Tensor, u: Tensor) -> Tensor:
    """The centre (N, 2) of one figure: each of |x − ½|, |y − ½| below 0.06 in the centre; elsewhere 0.12 or more to the
    side that the position names, and less by 0.05 across, so that `word` reads the same 0.03 away."""
    u, most = 2 * u - 1, 0.5 - MARGIN - radius
    away = 0.12 + (most - 0.12) * u[:, 0].abs()
    way = _WAYS[position.clamp(max=3)]
    aside = way * away[:, None] + way.flip(1).abs() * ((away - 0.05) * u[:, 1])[:, None]
    return 0.5 + torch.where(position[:, None] == 4, 0.06 * u, aside)


def _scattered(count: Tensor, radius: Tensor, u: Tensor) -> Tensor:
    """The centres (N, 3, 2) of up to three figures, each in a quadrant of its own."""
    first = (4 * u[:, 0]).long()
    second = torch.where(count == 2, first + 1 + (3 * u[:, 1]).long(), first + 1)
    quadrant = _QUADRANTS[torch.stack([first, second, first + 2], 1) % 4]
    near, far = radius + GAP / 2, 0.5 - MARGIN - radius
    reach = near[:, None] + (far - near)[:, None] * u[:, 2:8]
    return 0.5 + quadrant * reach.view(-1, 3, 2)


def word(count: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The index of the position: (N,), (N,), (N,) -> (N,) int64."""
    dx, dy = x - 0.5, y - 0.5
    side = torch.where(dx.abs() > dy.abs(), (dx > 0).long(), 2 + (dy > 0).long())
    position = torch.where(torch.maximum(dx.abs(), dy.abs()) < 0.09, 4, side)
    return torch.where(count > 1, 5, position)


def covered(scenes: Scenes, size: int, sub: int = 3) -> Tensor:
    """The share of each pixel that the figures cover: (N, size, size)."""
    shape, cover = scenes.column("shape"), torch.zeros(len(scenes.factors), size, size)
    there = torch.arange(3) < scenes.column("count")[:, None]  # (N, 3)
    radius, rotation = scenes.column("radius") * size, scenes.column("rotation")
    for s, outline in enumerate(OUTLINES.values()):
        row, figure = (there & (shape == s)[:, None]).nonzero().unbind(1)
        if len(row):
            centre = scenes.centres[row, figure] * size
            cover.index_add_(0, row, coverage(outline, centre, radius[row], rotation[row], size, sub))
    return cover


def painted(scenes: Scenes, cover: Tensor, grain: Tensor | float = 0.0) -> Tensor:
    """Grey levels (N, 3, size, size): x = (1 − a)(background + grain) + a colour, a being what is covered."""
    ground, paint = GROUND[scenes.column("background")], PAINT[scenes.column("colour")]
    share = cover[:, None]
    return (1 - share) * (ground[:, :, None, None] + grain) + share * paint[:, :, None, None]


def render(scenes: Scenes, size: int, stream: NoiseStream) -> Tensor:
    """The images (N, 3, size, size) uint8; the grain is grey, uniform and independent from pixel to pixel."""
    noise = 12**0.5 * (stream.uniform((len(scenes.factors), size, size)) - 0.5)  # of variance 1
    grain = (scenes.column("grain")[:, None, None] * noise)[:, None]
    return painted(scenes, covered(scenes, size), grain).round().to(torch.uint8)
