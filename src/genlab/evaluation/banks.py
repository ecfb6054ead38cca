"""Sample sets become feature banks, batch by batch, on one rank or many."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from genlab.data.source import Batch
from genlab.distributed import gathered, mine, ranks
from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank, Features
from genlab.evaluation.jackknife import BLOCKS
from genlab.evaluation.moments import Blocks, Gaussian

SUMS = ("moments", "spatial")


class Span(NamedTuple):
    """Consecutive indices of samples."""

    first: int
    count: int

    @property
    def indices(self) -> range:
        return range(self.first, self.first + self.count)


class Chunk(NamedTuple):
    """Consecutive samples in data space."""

    first: int  # the index of the first of them
    x: Tensor
    y: Tensor | None


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
    rows: dict[str, Tensor] = {}  # (n, ...) each: features would take twice their memory in pieces
    spans: list[Span] = []
    for chunk in samples:
        seen = extractor(chunk.x.to(device))
        spans.append(Span(chunk.first, len(chunk.x)))
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
                _put(rows, name, spans[-1], values, n)
    spans = _gathered(spans, rows, device, n)
    for name, width in _widths(sums).items():
        sums.setdefault(name, Blocks(width, blocks, device)).reduce()  # a rank without samples adds nothing
    if [i for span in sorted(spans) for i in span.indices] != list(range(n)):
        raise GenlabError(f"there are not {n} samples to be scored")
    moments = sums.get("moments")
    if moments is not None and n <= moments.total.shape[1]:
        moments = Gaussian.of(rows["features"])
    return FeatureBank(n, moments, sums.get("spatial"), **rows)


def _put(rows: dict[str, Tensor], name: str, span: Span, values: Tensor, n: int) -> None:
    """Put rows in their place among n, if they have one there."""
    if name not in rows:
        rows[name] = values.new_empty((n, *values.shape[1:]))
    if span.first + span.count <= n:
        rows[name][span.first : span.first + span.count] = values


def _widths(sums: dict[str, Blocks]) -> dict[str, int]:
    """How many features each of the sums has, in the same order on every rank."""
    widths = gathered({(ranks()[0], name): total.total.shape[1] for name, total in sums.items()})
    return {name: width for name in SUMS for (_, other), width in widths.items() if other == name}


def _gathered(spans: list[Span], rows: dict[str, Tensor], device: torch.device, n: int) -> list[Span]:
    """The spans of all ranks, with their rows in place; what no metric needs row by row is not sent."""
    rank, world = ranks()
    if world == 1:
        return spans
    own = {name: [values[s.first : s.first + s.count].cpu() for s in spans] for name, values in rows.items()}
    everybody = gathered({rank: (spans, own)})
    for other, (theirs, parts) in everybody.items():
        for name, pieces in parts.items() if other != rank else ():
            for span, values in zip(theirs, pieces, strict=True):
                _put(rows, name, span, values if name in ("x", "y") else values.to(device), n)
    return [span for theirs, _ in everybody.values() for span in theirs]
