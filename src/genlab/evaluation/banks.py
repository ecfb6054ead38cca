"""Sample sets become feature banks, batch by batch, on one rank or many."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank, Features
from genlab.evaluation.jackknife import BLOCKS
from genlab.evaluation.moments import Blocks, Gaussian

SUMS = ("moments", "spatial")


class Chunk(NamedTuple):
    """Consecutive samples in data space."""

    first: int  # the index of the first of them
    x: Tensor
    y: Tensor | None


def ranks() -> tuple[int, int]:
    """(rank, world) of this process."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gathered(own: dict) -> dict:
    """The entries of all ranks."""
    _, world = ranks()
    if world == 1:
        return own
    everybody: list = [None] * world
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
    rank, world = ranks()
    for first in range(rank * batch, n, world * batch):
        yield first, min(batch, n - first)


def chunks(data: Batch, batch: int) -> Iterator[Chunk]:
    """This rank's share of data held in memory."""
    for first, count in mine(len(data.x), batch):
        y = None if data.y is None else data.y[first : first + count]
        yield Chunk(first, data.x[first : first + count], y)


def fill(
    samples: Iterable[Chunk],
    n: int,
    extractor: Features,
    needs: Sequence[str],
    device: torch.device,
    nearest: Callable[[Tensor], Tensor] | None = None,
    blocks: int = BLOCKS,
) -> FeatureBank:
    """The bank of n samples with what `needs` names, the same on every rank and whatever the batches; `nearest` gives the
    distances of features to the training data.

    Raises GenlabError where there is something else than n samples, or where the extractor has no such thing to say.
    """
    wanted = set(needs)
    sums: dict[str, Blocks] = {}
    rows: dict[str, list[Tensor]] = {}
    firsts: list[int] = []
    for chunk in samples:
        seen = extractor(chunk.x.to(device))
        firsts.append(chunk.first)
        for name, values in zip(SUMS, (seen.features, seen.spatial), strict=True):
            if name in wanted and values is not None:
                if name not in sums:
                    sums[name] = Blocks(values.shape[1], blocks, device)
                sums[name].update(values, chunk.first)
        # of fewer samples than features the moments are better made from the features themselves
        few = "moments" in wanted and n <= seen.features.shape[1]
        kept = {
            "features": seen.features if "features" in wanted or few else None,
            "logits": seen.logits if "logits" in wanted else None,
            "nearest": nearest(seen.features) if nearest and "nearest" in wanted else None,
            "x": chunk.x.cpu() if "x" in wanted else None,
            "y": chunk.y.cpu() if "y" in wanted and chunk.y is not None else None,
        }
        for name, values in kept.items():
            if values is not None:
                rows.setdefault(name, []).append(values)
    firsts, rows = _gathered(firsts, rows, device)
    order = sorted(range(len(firsts)), key=firsts.__getitem__)
    tensors = {name: torch.cat([parts[i] for i in order]) for name, parts in rows.items()}
    for name, width in _widths(sums).items():
        sums.setdefault(name, Blocks(width, blocks, device)).reduce()  # a rank without samples adds nothing
    if any(len(values) != n for values in tensors.values()) or any(int(s.n.sum()) != n for s in sums.values()):
        raise GenlabError(f"there are not {n} samples to be scored")
    moments = sums.get("moments")
    if moments is not None and n <= moments.total.shape[1]:
        moments = Gaussian.of(tensors["features"])
    return FeatureBank(n, moments, sums.get("spatial"), **tensors)


def _widths(sums: dict[str, Blocks]) -> dict[str, int]:
    """How many features each of the sums has, in the same order on every rank."""
    widths = gathered({(ranks()[0], name): total.total.shape[1] for name, total in sums.items()})
    return {name: width for name in SUMS for (_, other), width in widths.items() if other == name}


def _gathered(
    firsts: list[int], rows: dict[str, list[Tensor]], device: torch.device
) -> tuple[list[int], dict[str, list[Tensor]]]:
    """The chunks of all ranks; what no metric needs row by row is not in them."""
    rank, world = ranks()
    if world == 1:
        return firsts, rows
    shares = gathered({rank: (firsts, {name: [v.cpu() for v in parts] for name, parts in rows.items()})})
    together: dict[str, list[Tensor]] = {}
    for _, own in shares.values():
        for name, parts in own.items():
            together.setdefault(name, []).extend(v if name in ("x", "y") else v.to(device) for v in parts)
    return [first for own, _ in shares.values() for first in own], together
