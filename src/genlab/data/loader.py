"""Batches of a split by index_select, wherever it lies, in an order keyed by (seed, epoch)."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch
from torch import Tensor

from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.noise import key


class TrainLoader:
    """Batches start, ..., stop - 1 of an endless stream of permutations of the data; rank r takes rows r::world.

    Batch k is a function of (seed, k) alone, so that a resumed run goes on with exactly the images that come next, on
    whatever device the data lie. `ahead` batches are read by threads before they are asked for, in the same order; `pin`
    gathers batches into pinned memory.
    """

    def __init__(
        self,
        data: Batch,
        batch: int,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        world: int = 1,
        ahead: int = 0,
        pin: bool = False,
    ):
        if batch > len(data.x):
            raise GenlabError(f"trainer.batch={batch} is larger than the data ({len(data.x)} samples)")
        if batch % world:
            raise GenlabError(
                f"trainer.batch={batch} is the batch of all devices together: make it divisible by {world}"
            )
        self.data, self.batch, self.seed = data, batch, seed
        self.start, self.stop, self.rank, self.world = start, stop, rank, world
        self.ahead, self.pin = ahead, pin

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[Batch]:
        if not self.ahead:
            return (select(self.data, index, self.pin) for index in self._indices())
        return self._ahead()

    def _ahead(self) -> Iterator[Batch]:
        indices = self._indices()
        pool = ThreadPoolExecutor(self.ahead, "read ahead")  # index_select waits for the disk outside of Python's lock
        try:
            coming = deque(pool.submit(select, self.data, index, self.pin) for index in islice(indices, self.ahead))
            while coming:
                batch = coming.popleft().result()
                coming.extend(pool.submit(select, self.data, index, self.pin) for index in islice(indices, 1))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)

    def _indices(self) -> Iterator[Tensor]:
        """(B / world,) rows of each batch, where the data are; drawn on the CPU, so that all devices have one order."""
        n, epoch, base, order = len(self.data.x), -1, 0, torch.empty(0, dtype=torch.long)
        for k in range(self.start, self.stop):
            first, last = k * self.batch // n, ((k + 1) * self.batch - 1) // n
            if last != epoch:  # at most two epochs meet in a batch, since it is not larger than the data
                order, epoch = torch.cat([self._permutation(e) for e in range(first, last + 1)]), last
                order, base = order.to(self.data.x.device), first * n
            yield order[k * self.batch - base : (k + 1) * self.batch - base][self.rank :: self.world]

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


def select(data: Batch, index: Tensor, pin: bool = False) -> Batch:
    """The rows of a split; index_select is many times faster than advanced indexing."""
    return Batch(_rows(data.x, index, pin), None if data.y is None else _rows(data.y, index, pin))


def _rows(rows: Tensor, index: Tensor, pin: bool) -> Tensor:
    if not pin:
        return rows.index_select(0, index)
    # torch's allocator of pinned memory gives a block away again only after the copies from it are done
    out = torch.empty((len(index), *rows.shape[1:]), dtype=rows.dtype, pin_memory=True)
    return torch.index_select(rows, 0, index, out=out)
