"""How an image becomes an extractor's input, stated by name: two interpolations along rows and columns."""

from collections.abc import Callable
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from genlab.errors import GenlabError


class Resize(Protocol):
    """uint8 (B, C, H, W) -> float32 (B, C, S, S) in grey levels 0 ... 255."""

    name: str
    size: int  # S

    def __call__(self, x: Tensor) -> Tensor: ...


class TF1Bilinear:
    """TensorFlow 1's bilinear resize, uint8 (B, C, H, W) -> (B, C, S, S): no antialiasing, the source coordinate of output i is i H/S.

    Neither corners nor centres of pixels are aligned, which shifts an image by half a pixel; FID of Heusel et al. 2017
    (1706.08500) has it inside its graph. Bit-equal to torch-fidelity's on the CPU.
    """

    def __init__(self, size: int):
        self.size, self.name = size, f"TF1 bilinear, no antialiasing, to {size}"

    def __call__(self, x: Tensor) -> Tensor:
        low, high, weight = self._coordinates(x.shape[3], x.device)
        x = x.float()
        # a + (b - a) w rather than (1 - w) a + w b, and rows first: the order in which TensorFlow rounds
        left, right = x.index_select(3, low), x.index_select(3, high)
        x = left + (right - left) * weight  # (B, C, H, S)
        low, high, weight = self._coordinates(x.shape[2], x.device)
        upper, lower = x.index_select(2, low), x.index_select(2, high)
        return upper + (lower - upper) * weight[:, None]

    def _coordinates(self, length: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        source = torch.arange(self.size, dtype=torch.float32, device=device) * (length / self.size)  # (S,)
        low = source.long()
        return low, (low + 1).clamp_max(length - 1), source - low


class Pillow:
    """Pillow's resize, uint8 (B, C, H, W) -> (B, C, S, S), by filter "bilinear", "bicubic" or "lanczos"; antialiased in reduction.

    As of an image in mode "F": each channel in floating point, neither rounded nor clipped. `clipped` to 0 ... 255 at the
    end it is the clean resize of Parmar et al. 2022 (2104.11222) in clean-fid 0.1.35. `rounded` is that of an 8-bit image,
    rounded and clipped after the rows and again after the columns, bit for bit.
    """

    def __init__(self, filter: str, size: int, rounded: bool = False, clipped: bool = False):
        if filter not in FILTERS:
            raise GenlabError(f"resize filter {filter!r}: there are {', '.join(FILTERS)}")
        self.filter, self.size, self.rounded, self.clipped = filter, size, rounded, clipped
        depth = "8-bit" if rounded else "floating point, clipped" if clipped else "floating point"
        self.name = f"Pillow {filter}, {depth}, to {size}"

    def __call__(self, x: Tensor) -> Tensor:
        rows, columns = (self._matrix(n, x.device) for n in (x.shape[3], x.shape[2]))  # (S, W), (S, H)
        if not self.rounded:
            x = columns @ (x.float() @ rows.T)
            return x.clamp(0, 255) if self.clipped else x
        x = (x.double() @ rows.T + 0.5).floor().clamp(0, 255)  # exact: whole numbers below 2^53, over 2^22
        return (columns @ x + 0.5).floor().clamp(0, 255).float()

    def _matrix(self, length: int, device: torch.device) -> Tensor:
        matrix = weights(self.filter, length, self.size)
        if self.rounded:
            return (matrix * FIXED).round().div(FIXED).to(device)  # Pillow's fixed point
        return matrix.float().to(device)


FIXED = 2**22  # 32 bits less 8 of a pixel and 2 of what overshoots


@cache
def weights(filter: str, length: int, size: int) -> Tensor:
    """The matrix (size, length) in float64 that resizes a line by a filter, widened by the scale in reduction."""
    kernel, radius = FILTERS[filter]
    scale = length / size
    centre = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * scale  # (size, 1)
    distance = (torch.arange(length, dtype=torch.float64) + 0.5 - centre).abs() / max(scale, 1.0)
    matrix = torch.where(distance < radius, kernel(distance), 0.0)
    return matrix / matrix.sum(1, keepdim=True)


def _bicubic(d: Tensor) -> Tensor:
    """Keys's cubic with a = -1/2."""
    return torch.where(d < 1, (1.5 * d - 2.5) * d**2 + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2)


FILTERS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "bilinear": (lambda d: 1 - d, 1),
    "bicubic": (_bicubic, 2),
    "lanczos": (lambda d: torch.sinc(d) * torch.sinc(d / 3), 3),
}
