"""Coupling layers: one part of x is kept, and moves the other."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.flows.bijection import Bijection, summed
from genlab.flows.elementwise import Elementwise
from genlab.precision import wide

Conditioner = Callable[[int, int], nn.Module]
"""(inputs, outputs) -> the network h(x_a, y) of that many channels."""


class ChannelCoupling(Bijection):
    """z_a = x_a, z_b = f(x_b; h(x_a, y)): the first half of the channels is kept, or the second where `flipped`.

    Dinh et al. 2017, arXiv:1605.08803, eq. 7 and 8. Of D numbers or channels the kept part has ⌊D/2⌋, flipped ⌈D/2⌉.
    """

    def __init__(
        self, channels: int, conditioner: Conditioner, elementwise: Callable[[], Elementwise], flipped: bool = False
    ):
        super().__init__()
        if channels < 2:
            raise GenlabError(
                f"a coupling of {channels} channel has nothing to condition on: images need to be squeezed first "
                "(network.levels=1 or more), and points at least 2 dimensions"
            )
        first = channels // 2
        self.parts = [first, channels - first]
        self.flipped, self.elementwise = flipped, elementwise()
        kept, moved = self._ordered(self.parts)
        self.conditioner = conditioner(kept, moved * self.elementwise.outputs)

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        kept, moved = self._ordered(x.split(self.parts, dim=1))
        z, log_det = self.elementwise.transform(moved, parameters(self.conditioner(kept, y), moved))
        return torch.cat(self._ordered([kept, z]), dim=1), summed(log_det)

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        kept, moved = self._ordered(z.split(self.parts, dim=1))
        x = self.elementwise.inverse(moved, parameters(self.conditioner(kept, y), moved))
        return torch.cat(self._ordered([kept, x]), dim=1)

    def _ordered(self, pair: Sequence[Any]) -> list[Any]:
        return list(pair[::-1] if self.flipped else pair)


class CheckerboardCoupling(Bijection):
    """z = b x + (1 - b) f(x; h(b x, b, y)): b is 1 where i + j is even, or odd where `flipped`.

    Dinh et al. 2017, arXiv:1605.08803, section 3.4 and eq. 9; the mask itself is one more channel of the network's input,
    as in the published code.
    """

    mask: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        conditioner: Conditioner,
        elementwise: Callable[[], Elementwise],
        flipped: bool = False,
    ):
        super().__init__()
        channels, height, width = shape
        if height * width < 2:
            raise GenlabError(
                f"a checkerboard of {height} x {width} has nothing to condition on: set network.levels lower"
            )
        place = torch.arange(height)[:, None] + torch.arange(width) + flipped
        self.register_buffer("mask", place % 2 == 0)  # (H, W), True where x is kept
        self.elementwise = elementwise()
        self.conditioner = conditioner(channels + 1, channels * self.elementwise.outputs)

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = self.elementwise.transform(x, self._theta(x, y))
        return torch.where(self.mask, x, z), summed(log_det.masked_fill(self.mask, 0))

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        return torch.where(self.mask, z, self.elementwise.inverse(z, self._theta(z, y)))

    def _theta(self, x: Tensor, y: Tensor | None) -> Tensor:
        board = self.mask.to(x.dtype).expand(len(x), 1, -1, -1)
        return parameters(self.conditioner(torch.cat([x * board, board], dim=1), y), x)


def parameters(h: Tensor, x: Tensor) -> Tensor:
    """(B, C · P, ...) of a network as (B, C, ..., P), in float32 at least, for each of the numbers of x (B, C, ...)."""
    return wide(h).unflatten(1, (x.shape[1], -1)).movedim(2, -1)
