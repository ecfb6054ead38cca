"""Outlines of figures with n-fold symmetry, and how much of each pixel they cover."""

import abc
import math

import torch
from torch import Tensor


class Outline(abc.ABC):
    """A figure of circumradius 1 about its centroid, the same after a turn by 2π/`fold`; fold 0 is round."""

    fold: int
    area: float

    @property
    def period(self) -> float:
        """The rotations that can be told apart are those in [0, period) radians; 0 where none can."""
        return 2 * math.pi / self.fold if self.fold else 0.0

    @abc.abstractmethod
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """The signed distance to the edges, taken as lines, in circumradii: negative inside, a tip on the x axis."""

    def folded(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The point of the wedge between the angles 0 and π/fold that symmetry makes of (x, y)."""
        rho, phi = torch.hypot(x, y), torch.atan2(y, x)
        phi = ((phi + self.period / 2).remainder(self.period) - self.period / 2).abs()
        return rho * phi.cos(), rho * phi.sin()


class Disk(Outline):
    """A disk, or a ring where it has a hole, whose radius is `hole`."""

    def __init__(self, hole: float = 0.0):
        self.fold, self.hole, self.area = 0, hole, math.pi * (1 - hole**2)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        rho = torch.hypot(x, y)
        return (rho - (1 + self.hole) / 2).abs() - (1 - self.hole) / 2 if self.hole else rho - 1


class Star(Outline):
    """A star with its notches at radius `notch`; by default that of a polygon, which has none."""

    def __init__(self, fold: int, notch: float | None = None):
        self.fold, notch = fold, math.cos(math.pi / fold) if notch is None else notch
        self.notch = notch * math.cos(math.pi / fold), notch * math.sin(math.pi / fold)
        self.area = fold * self.notch[1]

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.folded(x, y)
        dx, dy = self.notch[0] - 1, self.notch[1]  # along the edge, from the tip (1, 0)
        return (dy * (x - 1) - dx * y) / math.hypot(dx, dy)


class Cross(Outline):
    """Two bars across each other, of half width `arm`."""

    def __init__(self, arm: float):
        self.fold, self.arm, self.end = 4, arm, math.sqrt(1 - arm**2)
        self.area = 8 * arm * self.end - 4 * arm**2

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.folded(x, y)
        return torch.maximum(x - self.end, y - self.arm)


def coverage(outline: Outline, centre: Tensor, radius: Tensor, rotation: Tensor, size: int, sub: int) -> Tensor:
    """The share of each pixel that figures cover: centre (M, 2) as (x, y) from the upper left corner and radius (M,) in
    pixels, rotation (M,) in radians, clockwise as y points down -> (M, size, size). A centre lies within the image. A pixel
    is the mean of sub × sub samples, in each of which an edge is a ramp one sample wide."""
    reach = math.ceil(float(radius.max()) + 1)
    corner = centre.floor() - reach  # (M, 2), of the window around each figure
    # from whole numbers, so that a figure is to the last bit the same whatever window it is drawn in
    sample = (corner[:, :, None] * sub + torch.arange(sub * (2 * reach + 1)) + 0.5) / sub  # (M, 2, W sub)
    x, y = (sample - centre[:, :, None]).unbind(1)  # (M, W sub) each, from the centre
    scale = radius[:, None, None]
    cos, sin = (rotation.cos()[:, None] / radius[:, None], rotation.sin()[:, None] / radius[:, None])
    along = (x * cos)[:, None, :] + (y * sin)[:, :, None]  # (M, W sub, W sub), in the figure's own axes
    across = (y * cos)[:, :, None] - (x * sin)[:, None, :]
    inside = (0.5 - sub * scale * outline.distance(along, across)).clamp_(0, 1)
    window = torch.nn.functional.avg_pool2d(inside[:, None], sub)[:, 0]  # (M, W, W)
    return _placed(window, corner.long(), reach, size)


def _placed(window: Tensor, corner: Tensor, reach: int, size: int) -> Tensor:
    """Windows (M, W, W) put at their corners (M, 2) in empty images."""
    wide, width = size + 2 * reach + 2, window.shape[-1]
    place = corner + reach + 1  # a window may reach beyond the image, and is cut off there
    line = torch.arange(width)
    index = (place[:, 1, None, None] + line[:, None]) * wide + place[:, 0, None, None] + line
    image = torch.zeros(len(window), wide * wide).scatter_(1, index.flatten(1), window.flatten(1))
    return image.view(-1, wide, wide)[:, reach + 1 : -reach - 1, reach + 1 : -reach - 1]
