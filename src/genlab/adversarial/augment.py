"""Augmentation of all that a critic sees, data and samples alike, through which gradients reach the generator."""

import abc
import math

import torch
from torch import Tensor, nn

from genlab.adversarial.objectives import Objective
from genlab.data.augment import Geometric
from genlab.errors import GenlabError


class Augmentation(nn.Module, abc.ABC):
    """A random change of images, new for each; a module, so that what it adapts is in the checkpoint."""

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, changed; twice differentiable in x."""

    def check(self, objective: Objective) -> None:
        """Raise GenlabError for an objective whose critic gives this nothing to adapt to."""

    def observe(self, certainty: Tensor, turn: int) -> None:
        """Take note of (B,) D(x) - undecided at batch `turn`, its own images being counted from 0."""


def moved(x: Tensor, down: Tensor, right: Tensor, reflect: bool) -> Tensor:
    """(B, C, H, W) each image moved by whole pixels (B,), its borders reflected or 0 outside of it."""
    places = [
        torch.arange(size, device=x.device) - shift[:, None]
        for size, shift in zip(x.shape[2:], (down, right), strict=True)
    ]
    inside = [(p >= 0) & (p < size) for p, size in zip(places, x.shape[2:], strict=True)]
    rows, columns = (size - 1 - (size - 1 - p.abs()).abs() for p, size in zip(places, x.shape[2:], strict=True))
    each = torch.arange(len(x), device=x.device)[:, None, None]
    y = x[each, :, rows.clamp_min(0)[:, :, None], columns.clamp_min(0)[:, None, :]].permute(0, 3, 1, 2)
    return y if reflect else y * (inside[0][:, None, :, None] & inside[1][:, None, None, :])


def spread(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


class DiffAugment(Augmentation):
    """Brightness, saturation, contrast; translation by whole pixels over 0; a square of 0 cut out.

    `color` is the strength of the first three, 1 as published and 0 for none; `translation` and `cutout` are shares of the
    image's side, 0 for none. Zhao et al. 2020, arXiv:2006.10738, section 3.2, with the ranges of its code.
    """

    def __init__(self, color: float, translation: float, cutout: float):
        super().__init__()
        if min(color, translation, cutout) < 0 or max(translation, cutout) > 1:
            raise GenlabError("DiffAugment: color is 0 or more, translation and cutout are shares of the side, 0 to 1")
        self.color, self.translation, self.cutout = color, translation, cutout

    def forward(self, x: Tensor) -> Tensor:
        if self.color:
            x = self.colored(x, *self.color * (torch.rand(3, len(x), device=x.device, dtype=x.dtype) - 0.5))
        if self.translation:
            x = moved(x, *(self._up_to(self.translation, size, x) for size in x.shape[2:]), reflect=False)
        return self._cut(x) if self.cutout else x

    @staticmethod
    def colored(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
        """x + b, then (1 + 2s) times its distance from grey, then (1 + c) times that from the image's mean; b, s, c (B,)."""
        x = x + spread(brightness)
        grey = x.mean(1, keepdim=True)
        x = grey + (1 + 2 * spread(saturation)) * (x - grey)
        mean = x.mean((1, 2, 3), keepdim=True)
        return mean + (1 + spread(contrast)) * (x - mean)

    def _up_to(self, share: float, size: int, x: Tensor) -> Tensor:
        most = int(share * size + 0.5)
        return torch.randint(-most, most + 1, (len(x),), device=x.device)

    def _cut(self, x: Tensor) -> Tensor:
        """Squares whose centre is anywhere in the image, so that borders cut them."""
        keep = []
        for size in x.shape[2:]:
            side = int(self.cutout * size + 0.5)
            first = torch.randint(0, size + (1 - side % 2), (len(x), 1), device=x.device) - side // 2
            place = torch.arange(size, device=x.device)
            keep.append((place < first) | (place >= first + side))
        return x * (keep[0][:, None, :, None] | keep[1][:, None, None, :])


class Adaptive(Augmentation):
    """ADA: each change with probability p, which follows how sure the critic is of data: p += sign(E sign D(x) - target) · n/`images`.

    p moves every `every` batches, n images being seen since, within [0, 1]: `images` are what it takes from 0 to 1. Pixel
    blitting (flip, quarter turns, whole shifts up to `shift` of the side), then `geometric`, then colour (widths of
    brightness, of log₂ contrast and of log₂ saturation; luma flip; hue). Karras et al. 2020, arXiv:2006.06676, section 3
    and appendix B; the geometric part is EDM's, so its flips are the only ones and it has one rotation instead of two.
    """

    p: Tensor
    signs: Tensor

    def __init__(
        self,
        *,
        geometric: Geometric,
        target: float,
        every: int,
        images: int,
        shift: float,
        brightness: float,
        contrast: float,
        saturation: float,
        p: float = 0.0,
    ):
        super().__init__()
        if every < 1 or images < 1 or not 0 <= p <= 1:
            raise GenlabError(f"ADA every={every}, images={images}, p={p}: both counts are 1 or more, and p is 0 to 1")
        self.geometric, self.target, self.every, self.images = geometric, target, every, images
        self.shift, self.brightness, self.contrast, self.saturation = shift, brightness, contrast, saturation
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("signs", torch.zeros(2))  # the sum of signs since p moved last, and of how many

    def check(self, objective: Objective) -> None:
        if objective.undecided is None:
            raise GenlabError(
                f"ADA asks how sure the critic is of data, and values of {type(objective).__name__} have no zero: "
                "take critic_augment=diffaugment, or another objective"
            )

    @torch.no_grad()
    def observe(self, certainty: Tensor, turn: int) -> None:
        self.signs += torch.stack([certainty.sign().sum(), certainty.new_tensor(len(certainty))])
        if turn % self.every == self.every - 1:
            total, n = self.signs
            self.p.add_((total / n - self.target).sign() * n / self.images).clamp_(0, 1)
            self.signs.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] not in (1, 3):
            raise GenlabError(f"ADA changes the colours of images of 1 or 3 channels, not {x.shape[1]}")
        x = self._blit(x)
        x = self.geometric.apply(x, self.geometric.draw(len(x), x.device, self.p))
        n = len(x)

        def normal() -> Tensor:
            return self._eligible(x) * torch.randn(n, device=x.device, dtype=x.dtype)

        return self.colored(
            x,
            brightness=self.brightness * normal(),
            contrast=(self.contrast * normal()).exp2(),
            flip=self._eligible(x) & (torch.rand(n, device=x.device) < 0.5),
            hue=self._eligible(x) * (2 * torch.rand(n, device=x.device, dtype=x.dtype) - 1) * math.pi,
            saturation=(self.saturation * normal()).exp2(),
        )

    def _eligible(self, x: Tensor) -> Tensor:
        return torch.rand(len(x), device=x.device) < self.p

    def _blit(self, x: Tensor) -> Tensor:
        n, size = len(x), x.shape[2:]
        turns = self._eligible(x) * torch.randint(4, (n,), device=x.device)
        x = torch.where(spread(turns >= 2), x.rot90(2, (2, 3)), x)
        if size[0] == size[1]:
            x = torch.where(spread(turns % 2 == 1), x.rot90(1, (2, 3)), x)
        eligible = self._eligible(x)
        down, right = (
            (eligible * ((2 * torch.rand(n, device=x.device) - 1) * self.shift * s).round()).long() for s in size
        )
        return moved(x, down, right, reflect=True)

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
