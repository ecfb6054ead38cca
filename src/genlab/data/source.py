"""What every data source yields, and what a source is."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Batch(NamedTuple):
    """Data and condition: a mini-batch, or a whole split held in memory."""

    x: Tensor  # (B, C, H, W) uint8, or (B, D) float32 for densities in the plane
    y: Tensor | None  # (B,) int64 labels, or None


class Source(Protocol):
    """A data set whose splits are fixed."""

    name: str

    def split(self, name: str) -> Batch:
        """The whole split "train" or "test"; raises GenlabError for any other name."""
        ...
