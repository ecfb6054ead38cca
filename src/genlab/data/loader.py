"""Batches of a split held in memory, by index_select, in an order keyed by (seed, epoch)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.noise import key


class TrainLoader:
    """Batches start, ..., stop - 1 of an endless stream of permutations of the data; rank r takes rows r::world.

    Batch k is a function of (seed, k) alone, so that a resumed run goes on with exactly the images that come next.
    """

    def __init__(self, data: Batch, batch: int, seed: int, start: int, stop: int, rank: int = 0, world: int = 1):
        if batch > len(data.x):
            raise GenlabError(f"trainer.batch={batch} is larger than the data ({len(data.x)} samples)")
        if batch % world:
            raise GenlabError(
                f"trainer.batch={batch} is the batch of all devices together: make it divisible by {world}"
            )
        self.data, self.batch, self.seed = data, batch, seed
        self.start, self.stop, self.rank, self.world = start, stop, rank, world

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[Batch]:
        n, epoch, base, order = len(self.data.x), -1, 0, torch.empty(0, dtype=torch.long)
        for k in range(self.start, self.stop):
            first, last = k * self.batch // n, ((k + 1) * self.batch - 1) // n
            if last != epoch:  # at most two epochs meet in a batch, since it is not larger than the data
                order, epoch = torch.cat([self._permutation(e) for e in range(first, last + 1)]), last
                base = first * n
            index = order[k * self.batch - base : (k + 1) * self.batch - base][self.rank :: self.world]
            yield select(self.data, index)

    def _permutation(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(key(self.seed, "epoch", epoch))
        return torch.randperm(len(self.data.x), generator=generator)


class SequentialLoader:
    """A split once, in its own order."""

    def __init__(self, data: Batch, batch: int):
        self.data, self.batch = data, batch

    def __iter__(self) -> Iterator[Batch]:
        for i in range(0, len(self.data.x), self.batch):
            y = None if self.data.y is None else self.data.y[i : i + self.batch]
            yield Batch(self.data.x[i : i + self.batch], y)


def select(data: Batch, index: Tensor) -> Batch:
    """The rows of a split; index_select is many times faster than advanced indexing."""
    return Batch(data.x.index_select(0, index), None if data.y is None else data.y.index_select(0, index))
