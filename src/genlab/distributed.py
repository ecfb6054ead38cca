"""The group of a run's ranks, which are one where nothing is distributed."""

from collections.abc import Iterable, Iterator

import torch.distributed as dist
from torch import Tensor


def ranks() -> tuple[int, int]:
    """(rank, world) of this process."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def world() -> int:
    """How many ranks there are."""
    return ranks()[1]


def total(x: Tensor) -> Tensor:
    """The sum of x over all ranks, which every one of them has to ask for; nothing is differentiated through it."""
    if world() == 1:
        return x
    x = x.detach().clone()
    dist.all_reduce(x)
    return x


def share(tensors: Iterable[Tensor]) -> None:
    """Give every rank the first one's, which every one of them has to ask for."""
    if world() > 1:
        for x in tensors:
            dist.broadcast(x, src=0)


def gathered(own: dict) -> dict:
    """The entries of all ranks."""
    if world() == 1:
        return own
    everybody: list = [None] * world()
    dist.all_gather_object(everybody, own)
    return {k: v for part in everybody for k, v in part.items()}


def summed(value: float) -> float:
    """The sum over all ranks."""
    rank, _ = ranks()
    return sum(gathered({rank: value}).values())


def everywhere(true: bool) -> bool:
    """Whether it is true on every rank."""
    return all(gathered({ranks()[0]: true}).values())


def mine(n: int, batch: int) -> Iterator[tuple[int, int]]:
    """(first, count) of this rank's share of n samples in batches, every sample being of exactly one rank."""
    rank, size = ranks()
    for first in range(rank * batch, n, size * batch):
        yield first, min(batch, n - first)


def leave(all_do: bool) -> None:
    """Leave the group: gloo's, which a process that exits within may be aborted for; NCCL's, which waits for the others, only
    where all of them do."""
    if dist.is_available() and dist.is_initialized() and (all_do or dist.get_backend() == "gloo"):
        dist.destroy_process_group()
