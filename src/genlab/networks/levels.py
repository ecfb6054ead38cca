"""What the top-down networks of hierarchical VAEs share: how they are asked for the latents of a level."""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

Latent = Callable[[Tensor, Tensor | None, Tensor], Tensor]
"""The z (B, C, H, W) of a level, of the numbers (B, 2 C, H, W) of its prior, of its posterior or None, and of ε."""


def split(eps: Tensor, shapes: Sequence[tuple[int, int, int]]) -> list[Tensor]:
    """ε (B, D) of all levels as that of each, (B, C, H, W), from the top down."""
    parts = eps.split([math.prod(shape) for shape in shapes], dim=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]
