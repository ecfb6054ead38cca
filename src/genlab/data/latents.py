"""Latents of images that an autoencoder made elsewhere: floats of a path, checked once, stored as float16 in the cache."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from genlab.data.arrays import Rows, by_split, single
from genlab.data.cache import Prepared
from genlab.data.identity import identity
from genlab.data.rows import Keep, Part, Row, chosen
from genlab.data.tables import batches_of, parquet
from genlab.data.writing import Block, Blocks, Manifest
from genlab.errors import GenlabError
from genlab.hints import line_of

FORMAT, BLOCK = 1, 256


class Latents(Prepared):
    """Latents (N, C, H, W) float16, as the encoder gave them, and labels; prepared at the first use of a path.

    A path is .npz (x_train, y_train, x_test, y_test), .npy (N, C, H, W) without labels, or .parquet with a column of (nested)
    lists, of float16 or float32. Raises GenlabError, with file and row, for whatever is wrong with it.
    """

    def __init__(
        self,
        name: str,
        shape: Sequence[int],
        classes: int | None,
        cache: str,
        path: str | None = None,
        latent: str = "latent",
        label: str = "label",
        splits: dict[str, str] | None = None,
    ):
        super().__init__()
        if path is None:
            raise GenlabError(
                f"{name} lies nowhere yet: set data.source.path to an .npz, .npy or .parquet of its latents"
            )
        if (classes or 0) < 0:
            raise GenlabError(f"data.classes={classes}: at least 0 is needed")
        self.called, self.shape, self.classes = name, tuple(shape), classes or 0
        self.path, self.latent, self.label = Path(path).expanduser().absolute(), latent, label
        self.splits = splits or {"train": "train", "test": "test"}
        made = [identity(self.path), self.shape, classes, latent, label, self.splits, FORMAT]
        key = hashlib.sha256(json.dumps(made).encode()).hexdigest()[:10]
        self.folder = Path(cache).expanduser() / "data" / f"{name}-{key}"

    @property
    def name(self) -> str:
        """Its own and what it holds, since a path may hold anything."""
        return f"{self.called}-{self.sha256('train')[:8]}"

    transform = "none: as stored"

    def sha256(self, split: str) -> str:
        """The hash of the stored latents and labels of a split."""
        files = self.prepare(split)["files"]
        return hashlib.sha256("".join(files[name]["sha256"] for name in sorted(files)).encode()).hexdigest()

    def _make(self, split: str) -> tuple[Manifest, Blocks]:
        part, keep, meant = chosen(self._parts(), split, self.splits, str(self.path))
        record = {"source": str(self.path), "revision": None, "split": meant, "transform": {"shape": self.shape}}
        return record, partial(self._blocks, part, keep)

    def _blocks(self, part: Part, keep: Keep, done: int) -> Iterator[Block]:
        rows = islice(part.rows(keep), done, None)
        while block := list(islice(rows, BLOCK)):
            arrays = {"x": np.stack([self._latent(row) for row in block])}
            if self.classes:
                arrays["y"] = np.array([self._label(row) for row in block], np.int64)
            yield Block(len(block), arrays)

    def _latent(self, row: Row) -> np.ndarray:
        if not isinstance(row.image, np.ndarray) or row.image.shape != self.shape or row.image.dtype.kind != "f":
            told = f"{row.image.dtype} {row.image.shape}" if isinstance(row.image, np.ndarray) else "nothing"
            raise GenlabError(f"{row.where} is {told}: floats {self.shape} are needed (data.shape)")
        with np.errstate(over="ignore"):
            stored = row.image.astype(np.float16)
        if not np.isfinite(stored).all():
            raise GenlabError(f"{row.where} has values that are not finite or beyond float16: encode it again")
        return stored

    def _label(self, row: Row) -> int:
        if not isinstance(row.label, int | np.integer) or not 0 <= row.label < self.classes:
            raise GenlabError(
                f"{row.where}: its label {row.label} is not in 0 ... {self.classes - 1}: set data.classes"
            )
        return int(row.label)

    def _parts(self) -> dict[str, Part]:
        if self.path.suffix == ".parquet":
            return {"train": self._table()}
        if self.path.suffix == ".npy":
            return {"train": self._array(single(self.path), None)}
        if self.path.suffix != ".npz":
            raise GenlabError(f"cannot read {self.path}: an .npz, .npy or .parquet of latents is needed")
        found, splits = by_split(self.path)
        return {split: self._array(found[name], found.get(f"y{name[1:]}")) for split, name in splits.items()}

    def _array(self, x: Rows, y: Rows | None) -> Part:
        if self.classes and (y is None or y.shape != x.shape[:1]):
            raise GenlabError(f"{x.path} has no {x.shape[0]} labels beside {x.name}: set data.classes=0 to go without")

        def rows(keep: Keep) -> Iterator[Row]:
            labels = [None] * x.shape[0] if y is None else [label[()] for label in y]
            for i, latent in enumerate(x):
                if keep(i):
                    yield Row(f"{x.path} {x.name} row {i}", latent, labels[i])

        return Part(x.shape[0], rows)

    def _table(self) -> Part:
        table = parquet(self.path)
        wanted = [self.latent, *([self.label] if self.classes else [])]
        missing = [name for name in wanted if name not in table.schema_arrow.names]
        if missing:
            role = "label" if missing[0] == self.label else "latent"
            there = ", ".join(table.schema_arrow.names)
            raise GenlabError(f"{self.path} has no column {missing[0]!r}: set data.source.{role} to one of {there}")

        def rows(keep: Keep) -> Iterator[Row]:
            for where, first, batch in batches_of([self.path], wanted):
                latents = self._flat(batch.column(self.latent), where, first)
                labels: Any = batch.column(self.label).to_pylist() if self.classes else [None] * len(latents)
                for i, latent in enumerate(latents):
                    if keep(first + i):
                        yield Row(f"{where} row {first + i}", latent, labels[i])

        return Part(table.metadata.num_rows, rows)

    def _flat(self, column: Any, where: str, first: int) -> np.ndarray:
        """(B, C, H, W) of a column of lists, however nested."""
        rows = len(column)
        try:
            while hasattr(column, "flatten") and hasattr(column.type, "value_type"):
                column = column.flatten()
            return column.to_numpy(zero_copy_only=False).reshape(rows, *self.shape)
        except ValueError as error:
            raise GenlabError(
                f"{where} rows from {first}: latents are not all {self.shape} ({line_of(error)})"
            ) from None
