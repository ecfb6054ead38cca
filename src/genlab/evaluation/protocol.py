"""What must travel with a number for it to mean anything."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from genlab.comparable import MACHINE, OWN

Row = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """How one number was made; two numbers whose protocols differ are not one column."""

    data: str
    data_sha256: str  # of the reference split
    transform: str
    reference_split: str
    reference: str  # "data", or the words of whoever brought the statistics
    n_real: int | None
    n_fake: int
    extractor: str
    extractor_sha256: str
    layer: str
    resize: str
    quantisation: str
    xflip: bool
    sampler: dict[str, Any]
    guidance: dict[str, Any]
    nfe: float
    weights: str
    precision: str
    seed: int  # of the first set of samples
    seeds: int  # sets of samples, over which the value is the mean
    checkpoint: dict[str, Any]
    device: str
    threads: int
    batch: int
    version: int = 2  # of the estimators: counted up when one comes to give another number for the same samples

    def row(self, metric: str, **more: Any) -> Row:
        """The record of one metric."""
        return {"metric": metric, **asdict(self), **more}

    def line(self, metric: str, score: Row, held_against: Row | None = None, **more: Any) -> Row:
        """A line of metrics.jsonl: the numbers of a metric with all that they need."""
        return {
            "metric": metric,
            **score,
            "evaluation": self.id,
            "fingerprint": self.fingerprint(metric, **more),
            "references": held_against or {},
            "protocol": self.row(metric, **more),
        }

    def fingerprint(self, metric: str, **more: Any) -> str:
        """Twelve digits that two numbers share if they may stand in one column."""
        canonical = {k: v for k, v in self.row(metric, **more).items() if k == "metric" or k not in OWN | MACHINE}
        return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def id(self) -> str:
        """A name for the evaluation: the same protocol is the same evaluation."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def settings(recipe: dict[str, Any]) -> dict[str, Any]:
    """The numbers and words that a metric was made with, but for its own names."""
    plain = {k: v for k, v in recipe.items() if isinstance(v, int | float | str) and not k.startswith("_")}
    return {k: v for k, v in plain.items() if k not in ("key", "name")}


class Evaluations:
    """How many samples passed through a network."""

    rows = 0


@contextmanager
def counted(*networks: nn.Module) -> Iterator[Evaluations]:
    """Count what passes through any of these networks: the number of function evaluations, never a formula."""
    count = Evaluations()

    def add(module: nn.Module, args: tuple[Any, ...]) -> None:
        count.rows += len(args[0])

    handles = [network.register_forward_pre_hook(add) for network in networks]
    try:
        yield count
    finally:
        for handle in handles:
            handle.remove()
