"""What must travel with a number for it to mean anything."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Protocol:
    """How one number was made; two numbers whose protocols differ are not one column."""

    data: str
    extractor: str
    extractor_sha256: str
    reference_split: str
    n_real: int
    n_fake: int
    resize: str
    quantisation: str
    xflip: bool
    sampler: dict[str, Any]
    guidance: dict[str, Any]
    nfe: float
    weights: str
    precision: str
    seed: int
    checkpoint: dict[str, Any]
    device: str
    threads: int
    batch: int

    def row(self, metric: str, **more: Any) -> dict[str, Any]:
        """The record of one metric."""
        return {"metric": metric, **asdict(self), **more}

    @property
    def id(self) -> str:
        """A name for the evaluation: the same protocol is the same evaluation."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


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
