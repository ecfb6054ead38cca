"""The changes of images that ADA chooses from, each as probable as it is told."""

import math

import torch
from torch import Tensor

from genlab.data.augment import Geometric
from genlab.errors import GenlabError


def spread(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


class Pipe:
    """Pixel blitting (flip, quarter turns, whole shifts up to `shift` of the side), geometry, colour and a cutout, each with
    probability p: scaling, a rotation before and one after the stretching of the horizontal axis, shifts; brightness, log₂
    contrast and log₂ saturation normal with the widths given, luma flip, hue. Colour has `color` · p, a square of `cut` of
    the side set to 0 `cutout` · p, either rotation `rotate` · p.

    Karras et al. 2020, arXiv:2006.06676, section 3 and appendix B, and its code; shift and geometry are one map, by which
    images are resampled once by bicubic interpolation with reflected borders, without its wavelet filters, and not at all
    where they are only blitted.
    """

    def __init__(
        self,
        *,
        geometric: Geometric,
        rotate: float,
        shift: float,
        color: float,
        brightness: float,
        contrast: float,
        saturation: float,
        cutout: float,
        cut: float,
    ):
        self.geometric, self.rotate, self.shift, self.color = geometric, rotate, shift, color
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.cutout, self.cut = cutout, cut

    def __call__(self, x: Tensor, p: Tensor) -> Tensor:
        """(B, C, H, W), () -> (B, C, H, W), twice differentiable in x; raises GenlabError for 2 channels, or more than 3."""
        if x.shape[1] not in (1, 3):
            raise GenlabError(f"ADA changes the colours of images of 1 or 3 channels, not {x.shape[1]}")
        x, shift = self._blit(x, p)
        x = self._move(x, p, shift)
        n = len(x)

        def some() -> Tensor:
            return chosen(x, self.color * p)

        def normal() -> Tensor:
            return some() * torch.randn(n, device=x.device, dtype=x.dtype)

        x = self.colored(
            x,
            brightness=self.brightness * normal(),
            contrast=(self.contrast * normal()).exp2(),
            flip=some() & (torch.rand(n, device=x.device) < 0.5),
            hue=some() * (2 * torch.rand(n, device=x.device, dtype=x.dtype) - 1) * math.pi,
            saturation=(self.saturation * normal()).exp2(),
        )
        return self._hide(x, p) if self.cutout else x

    def _move(self, x: Tensor, p: Tensor, shift: Tensor) -> Tensor:
        """Geometry after the shift: R(b) A R(a) is a rotation by a + b after A along the axis of a, and P(a = b = 0) = 1 - `rotate` · p."""
        drawn = self.geometric.draw(len(x), x.device, p)
        either = 1 - (1 - self.rotate * p).clamp_min(0).sqrt()
        before, after = (chosen(x, either) * (2 * torch.rand(len(x), device=x.device) - 1) * math.pi for _ in range(2))
        return self.geometric.apply(x, drawn._replace(angle=before + after, axis=after), shift)

    def _hide(self, x: Tensor, p: Tensor) -> Tensor:
        """A square whose centre is anywhere in the image is set to 0, so that borders cut it."""
        size = chosen(x, self.cutout * p) * self.cut
        kept = []
        for side in x.shape[2:]:
            centre = torch.rand(len(x), 1, device=x.device)
            place = (torch.arange(side, device=x.device) + 0.5) / side
            kept.append((place - centre).abs() >= size[:, None] / 2)
        return x * (kept[0][:, None, :, None] | kept[1][:, None, None, :])

    def _blit(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """Images turned, and by how many pixels to the right and down (B, 2) they are shifted."""
        n, size = len(x), x.shape[2:]
        turns = chosen(x, p) * torch.randint(4, (n,), device=x.device)
        x = torch.where(spread(turns >= 2), x.rot90(2, (2, 3)), x)
        if size[0] == size[1]:
            x = torch.where(spread(turns % 2 == 1), x.rot90(1, (2, 3)), x)
        eligible = chosen(x, p)
        down, right = (
            (eligible * ((2 * torch.rand(n, device=x.device) - 1) * self.shift * s).round()).long() for s in size
        )
        return x, torch.stack([right, down], dim=1)

    @staticmethod
    def colored(
        x: Tensor, *, brightness: Tensor, contrast: Tensor, flip: Tensor, hue: Tensor, saturation: Tensor
    ) -> Tensor:
        """c (x + b), mirrored in brightness where flipped, turned by `hue` about the grey axis, s times as far from it; all (B,)."""
        x = spread(contrast) * (x + spread(brightness))
        grey = x.mean(1, keepdim=True)
        x = torch.where(spread(flip), x - 2 * grey, x)
        grey = x.mean(1, keepdim=True)
        across = (x.roll(-2, 1) - x.roll(-1, 1)) / 3**0.5  # (1, 1, 1)/√3 × x; 0 in one channel
        x = x + spread(hue.cos() - 1) * (x - grey) + spread(hue.sin()) * across
        return x + spread(saturation - 1) * (x - grey)  # as a difference, so that nothing is exactly nothing


def chosen(x: Tensor, p: Tensor) -> Tensor:
    """(B,) bool, each of x with probability p."""
    return torch.rand(len(x), device=x.device) < p
