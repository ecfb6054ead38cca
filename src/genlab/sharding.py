"""Fully sharded training (Zhao et al. 2023, arXiv:2304.11277): every rank holds its part of each weight, gradient, average
and moment of the optimizer, and gathers a block's weights while the block computes."""

import warnings
from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

# networks may return views, which nothing here changes in place
warnings.filterwarnings("ignore", message="FSDP2-wrapped module")


class FullySharded(ModelParallelStrategy):
    """torch's FSDP2 over all ranks, of modules that say `shards`."""

    def __init__(self, ranks: int, timeout: float):
        super().__init__(data_parallel_size=ranks, tensor_parallel_size=1, timeout=timedelta(seconds=timeout))

    def shard(self, part: nn.Module) -> None:
        shard(part, self.device_mesh["data_parallel"])


def shard(part: nn.Module, mesh: DeviceMesh) -> None:
    """Split the parameters of `part` over the ranks in place: of each block of its lists, and of the rest together."""
    lists = [m for m in part.modules() if isinstance(m, nn.ModuleList)]
    blocks = [block for blocks in reversed(lists) for block in blocks if not isinstance(block, nn.ModuleList)]
    for block in (*blocks, part):  # what is within another comes first
        fully_shard(block, mesh=mesh)


def local(x: Tensor) -> Tensor:
    """What this rank holds of x, without a copy."""
    return x.to_local() if isinstance(x, DTensor) else x


def full(x: Tensor) -> Tensor:
    """All of x, which every rank has to ask for."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def whole(state: Any, keep: bool) -> Any:
    """A state with its split tensors put together, on the CPU; every rank takes part, and keeps them or not."""
    if isinstance(state, DTensor):
        x = state.full_tensor()
        return x.cpu() if keep else None
    if isinstance(state, dict):
        return {key: whole(value, keep) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value, keep) for value in state]
    return state


def divided(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's state dict of whole tensors, those of split parameters split as these are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def part(x: Any, p: Tensor) -> Any:
        if isinstance(p, DTensor) and isinstance(x, Tensor) and x.shape == p.shape:
            return distribute_tensor(x.to(p.device), p.device_mesh, p.placements, src_data_rank=None)
        return x

    own = {i: {name: part(x, parameters[i]) for name, x in values.items()} for i, values in state["state"].items()}
    return {**state, "state": own}
