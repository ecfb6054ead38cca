"""The group of a run's ranks, which are one where nothing is distributed."""

from collections.abc import Iterable

import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


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


def leave(all_do: bool) -> None:
    """Leave the group: gloo's, which a process that exits within may be aborted for; NCCL's, which waits for the others, only
    where all of them do."""
    if dist.is_available() and dist.is_initialized() and (all_do or dist.get_backend() == "gloo"):
        dist.destroy_process_group()
