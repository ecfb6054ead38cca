"""Data sets that are drawn by a program: rendered once into the cache, then served over the memory map."""

import abc
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from genlab.data.cache import Prepared
from genlab.data.source import digest
from genlab.data.writing import Block, Blocks, Manifest
from genlab.errors import GenlabError

BLOCK = 256  # images rendered at a time


class Rendered(Prepared):
    """Splits of uint8 images (N, C, H, W) and labels, of which row i is a function of (seed, split, i) alone.

    `recipe` is all that the images depend on, by intention; `versions` are those of what draws them, for the record; and
    `counts` says how many each split has. Raises GenlabError for a count below 1 and a split that is not among them.
    """

    name: str
    transform = "none: rendered at this size"

    @abc.abstractmethod
    def __init__(
        self, name: str, recipe: dict[str, Any], counts: dict[str, int], versions: dict[str, str], cache: str | None
    ):
        super().__init__()
        for split, count in counts.items():
            if count < 1:
                raise GenlabError(f"data.source.{split}={count}: a split has at least one image")
        self.recipe, self.counts, self.versions = recipe, counts, versions
        key = hashlib.sha256(json.dumps([recipe, counts]).encode()).hexdigest()[:10]
        cache = cache or os.environ.get("GENLAB_CACHE", "~/.cache/genlab")
        self.name = f"{name}-{key}"  # what is computed from the data goes by it
        self.folder = Path(cache).expanduser() / "data" / self.name
        self._digests: dict[str, str] = {}

    @abc.abstractmethod
    def rows(self, split: str, start: int, n: int) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) uint8 and labels (n,) int64 of the rows start, ..., start + n − 1 of a split."""

    def sha256(self, split: str) -> str:
        """The hash of the images and the condition."""
        if split not in self._digests:
            self._digests[split] = digest(self.split(split))
        return self._digests[split]

    def _known(self, split: str) -> str:
        if split not in self.counts:
            raise GenlabError(f"{self.name} has no split {split!r}: use {', '.join(self.counts)}")
        return split

    def _make(self, split: str) -> tuple[Manifest, Blocks]:
        record = {"source": type(self).__module__, "revision": None, "split": split}
        return {**record, **self.recipe, **self.versions}, partial(self._blocks, split)

    def _blocks(self, split: str, start: int) -> Iterator[Block]:
        count = self.counts[split]
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task(f"{self.name} {split}", total=count, completed=start)
            for first in range(start, count, BLOCK):
                x, y = self.rows(split, first, min(BLOCK, count - first))
                bar.advance(task, len(x))
                yield Block(len(x), {"x": x.numpy(), "y": y.numpy()})
