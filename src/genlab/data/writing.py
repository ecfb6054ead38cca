"""One split on its way into the cache: files that take their places only when all of them are whole.

Beside the files that grow, `.<split>.progress` has one line for each block: how many rows it went through, and the length
and sha256 of every file after it. What a killed process leaves is verified by the last of them and gone on with.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genlab.errors import GenlabError
from genlab.files import write_atomically, writing

Manifest = dict[str, Any]
CHUNK = 2**20


class Block(NamedTuple):
    """Some rows of a source, as they are to be stored; without arrays where every row was left out."""

    rows: int  # of the source, those left out among them
    arrays: dict[str, np.ndarray]  # (B, ...) by the name of their file: x, y; and text, lengths of captions
    skipped: Sequence[str] = ()  # which rows were left out, and why


Blocks = Callable[[int], Iterator[Block]]  # those after so many rows


def write(folder: Path, split: str, record: Manifest, blocks: Blocks) -> Manifest:
    """Store all blocks and return their manifest: `record`, and of each file shape, dtype, size and sha256.

    An error leaves nothing behind; an interruption what `blocks` goes on with, if `record` is the same. Raises GenlabError
    if the folder cannot be written or there is no row.
    """
    record = json.loads(json.dumps(record))
    part = _Part(folder, split)
    try:
        with writing(folder):
            (folder / f"{split}.json").unlink(missing_ok=True)
            part.begin(record)
        if part.rows:
            told = f"going on after row {part.rows}, where it was interrupted"
            print(f"genlab: {folder.name} {split}: {told}", file=sys.stderr)
        with contextlib.closing(block for block in blocks(part.rows)) as stream:  # and with it whatever shows progress
            for block in stream:
                with writing(folder):
                    part.add(block)
        if "x" not in part.files:
            raise GenlabError(
                f"the {split} split of {record['source']} has no image in it: set data.source.splits.train and "
                "data.source.splits.test"
            )
        with writing(folder):
            files = {f"{split}.{name}": file.place() for name, file in part.files.items()}
            manifest = {**record, "skipped": part.skipped, "files": files}
            write_atomically(folder / f"{split}.json", json.dumps(manifest, indent=1))
    except GenlabError:
        part.drop()
        raise
    finally:
        part.close()
    part.drop()
    if part.skipped:
        what = f"{len(part.skipped)} of {part.rows} skipped, the first {part.skipped[0]}"
        print(f"genlab: {folder.name} {split}: {what}", file=sys.stderr)
    return manifest


class _File:
    """One file that grows by (B, ...) arrays, hashed as it does."""

    def __init__(self, path: Path, dtype: str, row: Sequence[int]):
        self.path, self.partial = path, path.with_name(f".{path.name}.partial")
        self.dtype, self.row, self.count, self.bytes = dtype, list(row), 0, 0
        self.hash = hashlib.sha256()
        self.file = open(self.partial, "ab", buffering=0)  # noqa: SIM115 - closed by _Part

    def add(self, array: np.ndarray) -> None:
        if (array.dtype.name, list(array.shape[1:])) != (self.dtype, self.row):
            raise GenlabError(f"{self.path}: rows of {array.dtype.name} {list(array.shape[1:])} among {self.row}")
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        self.hash.update(data)
        self.count, self.bytes = self.count + len(array), self.bytes + len(data)
        while data:  # a nearly full disk takes a part
            data = data[self.file.write(data) :]

    @property
    def state(self) -> dict[str, Any]:
        told = {"dtype": self.dtype, "shape": [self.count, *self.row], "bytes": self.bytes}
        return {**told, "sha256": self.hash.copy().hexdigest()}

    def restore(self, state: dict[str, Any]) -> bool:
        """Go back to where the file was in `state`; False if it was never there."""
        with open(self.partial, "rb") as file:
            while left := min(CHUNK, state["bytes"] - self.bytes):
                data = file.read(left)
                if not data:
                    return False
                self.hash.update(data)
                self.bytes += len(data)
        os.truncate(self.partial, self.bytes)
        self.count = state["shape"][0]
        return self.hash.hexdigest() == state["sha256"]

    def place(self) -> dict[str, Any]:
        os.fsync(self.file.fileno())
        os.replace(self.partial, self.path)
        return {**self.state, "mtime_ns": self.path.stat().st_mtime_ns}


class _Part:
    """What is written of a split so far."""

    def __init__(self, folder: Path, split: str):
        self.folder, self.split = folder, split
        self.files: dict[str, _File] = {}
        self.rows, self.skipped = 0, list[str]()
        self.path = folder / f".{split}.progress"

    def begin(self, record: Manifest) -> None:
        """Go on with what lies there, if it is the beginning of the same; else from nothing."""
        if not self._resumed(record):
            self.close()
            self.drop()
            self.files, self.rows, self.skipped = {}, 0, []
            self.path.write_text(json.dumps(record) + "\n")

    def _resumed(self, record: Manifest) -> bool:
        """Whether what lies there is the beginning of the same; it is then as it was after the last block."""
        if not self.path.is_file():
            return False
        lines = self.path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):  # cut off as it was written
            os.truncate(self.path, sum(map(len, lines[:-1])))
            lines.pop()
        try:
            header, *blocks = map(json.loads, lines)
            if header != record or not blocks:
                return False
            for name, state in blocks[-1]["files"].items():
                self.files[name] = self._file(name, state["dtype"], state["shape"][1:])
                if not self.files[name].restore(state):
                    return False
            self.rows, self.skipped = blocks[-1]["rows"], [line for block in blocks for line in block["skipped"]]
        except (OSError, ValueError, LookupError, TypeError):
            return False
        return True

    def _file(self, name: str, dtype: str, row: Sequence[int]) -> _File:
        return _File(self.folder / f"{self.split}.{name}", dtype, row)

    def add(self, block: Block) -> None:
        for name, array in block.arrays.items():
            if name not in self.files:
                self.files[name] = self._file(name, array.dtype.name, array.shape[1:])
            self.files[name].add(array)
        self.rows += block.rows
        self.skipped += block.skipped
        states = {name: file.state for name, file in self.files.items()}
        line = json.dumps({"rows": self.rows, "skipped": block.skipped, "files": states})
        with open(self.path, "ab") as progress:
            progress.write(line.encode() + b"\n")

    def close(self) -> None:
        for file in self.files.values():
            file.file.close()

    def drop(self) -> None:
        """Remove whatever has not taken its place."""
        for path in [self.path, *self.folder.glob(f".{self.split}.*.partial")]:
            path.unlink(missing_ok=True)
