"""A split decoded once: raw uint8 images and int64 labels, memory-mapped, beside a manifest of where they come from.

A folder holds, of each split, `<split>.x` (N, C, H, W) uint8, `<split>.y` (N,) int64 where there are labels, and
`<split>.json`, which is written last: what has no manifest is not there. Every opening checks sizes and times of change,
and only where a time is not the recorded one (a copied folder, a damaged file) the sha256; `thorough` checks it always.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genlab.data.source import Batch
from genlab.errors import GenlabError

IN_MEMORY = 2**28  # bytes of images up to which a split is read whole; a larger one stays on disk

Manifest = dict[str, Any]
Blocks = Iterator[tuple[np.ndarray, np.ndarray | None]]  # (B, C, H, W) uint8 and (B,) int64


def prepared(folder: Path, split: str, make: Callable[[], tuple[Manifest, Blocks]], thorough: bool = False) -> Manifest:
    """The manifest of an intact split, written first where there is none; a second process waits for the first.

    `make` gives what the manifest shall say, filled further while the blocks are read. Raises GenlabError if the folder
    cannot be written or the split is empty.
    """
    manifest = intact(folder, split, thorough)
    if manifest is None:
        with _locked(folder):
            manifest = intact(folder, split)  # the process that held the lock may have written it
            if manifest is None:
                manifest = _write(folder, split, *make())
    return manifest


def intact(folder: Path, split: str, thorough: bool = False) -> Manifest | None:
    """The manifest of a split whose files are as they were written; None if there is none, or, aloud, if they are not."""
    path = folder / f"{split}.json"
    try:
        manifest = json.loads(path.read_text())
        known = [_known(folder / name, recorded, thorough) for name, recorded in manifest["files"].items()]
        math.prod(manifest["shape"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        return _damaged(path)
    if None in known:
        return _damaged(folder / list(manifest["files"])[known.index(None)])
    if not all(known):
        with contextlib.suppress(OSError):  # a folder that may only be read is verified at every opening
            _replace(path, manifest)
    return manifest


def _known(path: Path, recorded: dict[str, Any], thorough: bool) -> bool | None:
    """Whether a file is by its time the one recorded; False if only by its sha256, which is then recorded; None if it is not."""
    state = _state(path)
    timely = state["mtime_ns"] == recorded["mtime_ns"]
    if state["bytes"] != recorded["bytes"] or ((thorough or not timely) and sha256(path) != recorded["sha256"]):
        return None
    recorded["mtime_ns"] = state["mtime_ns"]
    return timely


def load(folder: Path, split: str, manifest: Manifest, mapped: bool | None = None) -> Batch:
    """A split as tensors: read into memory if it is small, else over the memory map; `mapped` decides otherwise."""
    if mapped is None:
        mapped = math.prod(manifest["shape"]) > IN_MEMORY
    x = _read(folder / f"{split}.x", np.uint8, mapped).view(manifest["shape"])
    return Batch(x, _read(folder / f"{split}.y", np.int64, False) if f"{split}.y" in manifest["files"] else None)


def _read(path: Path, dtype: Any, mapped: bool) -> torch.Tensor:
    if not mapped:
        return torch.from_numpy(np.fromfile(path, dtype))
    with warnings.catch_warnings():
        # Nobody writes to data, and of a private writable map that is larger than memory Linux wants to hear nothing.
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(np.memmap(path, dtype, "r"))


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: Path) -> dict[str, int]:
    state = path.stat()
    return {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns}


def _damaged(path: Path) -> None:
    print(f"genlab: {path} is not what was written there (damaged): it will be prepared again", file=sys.stderr)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115 - closed below, which gives the lock back
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"genlab: another process prepares {folder}: waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """What the disk refuses, as one line."""
    try:
        yield
    except OSError as error:
        raise GenlabError(
            f"cannot write the prepared data in {folder} ({error.strerror}): free some space, or set GENLAB_CACHE=FOLDER"
        ) from None


class _File:
    """One file on its way to its place, hashed as it is written."""

    def __init__(self, path: Path):
        self.path, self.temporary = path, path.with_name(f".{path.name}.partial")
        self.hash = hashlib.sha256()
        with _writing(path.parent):
            self.file = open(self.temporary, "wb", buffering=0)  # noqa: SIM115 - closed by place or drop

    def write(self, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array).data.cast("B")
        self.hash.update(data)
        with _writing(self.path.parent):
            while data:  # a nearly full disk takes a part
                data = data[self.file.write(data) :]

    def place(self) -> dict[str, Any]:
        with _writing(self.path.parent):
            os.fsync(self.file.fileno())
            self.file.close()
            os.replace(self.temporary, self.path)
        return {"sha256": self.hash.hexdigest(), **_state(self.path)}

    def drop(self) -> None:
        self.file.close()
        self.temporary.unlink(missing_ok=True)


def _write(folder: Path, split: str, record: Manifest, blocks: Blocks) -> Manifest:
    (folder / f"{split}.json").unlink(missing_ok=True)
    images, labels = _File(folder / f"{split}.x"), _File(folder / f"{split}.y")
    shape, labelled = [0], False
    try:
        for x, y in blocks:
            images.write(x)
            shape, labelled = [shape[0] + len(x), *x.shape[1:]], y is not None
            if y is not None:
                labels.write(y.astype(np.int64))
        if shape[0] == 0:
            raise GenlabError(f"the {split} split of {record['source']} has no image in it")
        files = {file.path.name: file.place() for file in ([images, labels] if labelled else [images])}
    finally:
        images.drop()
        labels.drop()
    manifest = {**record, "shape": shape, "files": files}
    with _writing(folder):
        _replace(folder / f"{split}.json", manifest)
    return manifest


def _replace(path: Path, manifest: Manifest) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(manifest, indent=1))
    os.replace(temporary, path)
