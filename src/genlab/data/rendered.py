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

from genlab.data.cache import intact, load, prepared
from genlab.data.source import Batch, digest
from genlab.data.writing import Block, Blocks, Manifest
from genlab.errors import GenlabError

BLOCK = 256  # images rendered at a time


class Rendered(abc.ABC):
    """Splits of uint8 images (N, C, H, W) and labels, of which row i is a function of (seed, split, i) alone.

    `recipe` is all that the images depend on, by intention; `versions` are those of what draws them, for the record; and
    `counts` says how many each split has. Raises GenlabError for a count below 1 and a split that is not among them.
    """

    name: str
    folder: Path
    transform = "none: rendered at this size"

    @abc.abstractmethod
    def __init__(
        self, name: str, recipe: dict[str, Any], counts: dict[str, int], versions: dict[str, str], cache: str | None
    ):
        for split, count in counts.items():
            if count < 1:
                raise GenlabError(f"data.source.{split}={count}: a split has at least one image")
        self.recipe, self.counts, self.versions = recipe, counts, versions
        key = hashlib.sha256(json.dumps([recipe, counts]).encode()).hexdigest()[:10]
        cache = cache or os.environ.get("GENLAB_CACHE", "~/.cache/genlab")
        self.name = f"{name}-{key}"  # what is computed from the data goes by it
        self.folder = Path(cache).expanduser() / "data" / self.name
        self._loaded: dict[str, Batch] = {}
        self._digests: dict[str, str] = {}

    @abc.abstractmethod
    def rows(self, split: str, start: int, n: int) -> tuple[Tensor, Tensor]:
        """Images (n, C, H, W) uint8 and labels (n,) int64 of the rows start, ..., start + n − 1 of a split."""

    def split(self, name: str) -> Batch:
        """The whole split, rendered if it is not in the cache; raises GenlabError for a name that is no split."""
        if self._known(name) not in self._loaded:
            self._loaded[name] = load(self.folder, name, self.prepare(name))
        return self._loaded[name]

    def sha256(self, split: str) -> str:
        """The hash of the images and the condition."""
        if split not in self._digests:
            self._digests[split] = digest(self.split(split))
        return self._digests[split]

    def prepare(self, split: str, thorough: bool = False) -> Manifest:
        """The manifest of a split that lies in the cache intact, rendered if it does not; `thorough` reads all of it."""
        return prepared(self.folder, split, partial(self._make, split), thorough)

    def verified(self, split: str) -> Manifest | None:
        """The manifest of a split, all of whose bytes are as they were written; None if it is not prepared."""
        return intact(self.folder, split, thorough=True)

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
