"""What every data source yields, and what a source is."""

import hashlib
from typing import NamedTuple, Protocol

from torch import Tensor

from genlab.errors import GenlabError


class Batch(NamedTuple):
    """Data and condition: a mini-batch, or a whole split, in memory or over a memory map."""

    x: Tensor  # (B, C, H, W) uint8, float16 of latents, (B, T) uint8 of text, or (B, D) float32 for densities in the plane
    y: Tensor | None  # (B,) int64 labels, (B, F) float32 factors, (B, T) int64 tokens, or None

    def parts(self, k: int) -> list["Batch"]:
        """It in k pieces of one size; raises GenlabError where there are none."""
        if len(self.x) % k:
            raise GenlabError(
                f"trainer.accumulate={k} does not divide the {len(self.x)} images that one device has of a batch: "
                "change it or trainer.batch"
            )
        ys = [None] * k if self.y is None else self.y.chunk(k)
        return [Batch(x, y) for x, y in zip(self.x.chunk(k), ys, strict=True)]


class Source(Protocol):
    """A data set whose splits are fixed."""

    name: str
    transform: str  # how what is stored became what is served

    def split(self, name: str) -> Batch:
        """The whole split "train" or "test"; raises GenlabError for any other name."""
        ...

    def sha256(self, split: str) -> str:
        """The hash of what a split holds; raises GenlabError for any other name."""
        ...


def digest(batch: Batch) -> str:
    """The sha256 of data and condition: types, shapes and every byte."""
    known = hashlib.sha256()
    for part in batch:
        known.update(b"none" if part is None else f"{part.dtype} {tuple(part.shape)}".encode())
        if part is not None:
            known.update(part.contiguous().numpy().data.cast("B"))
    return known.hexdigest()
