"""A split decoded once: raw arrays, memory-mapped, beside a manifest of where they come from.

A folder holds, of each split, `<split>.x` (N, C, H, W) uint8, `<split>.y` (N, ...) where there are labels, factors or
tokens, `<split>.text` (UTF-8) and `<split>.lengths` (N,) where there are captions, and `<split>.json`, which is written
last: what has no manifest is not there. Every opening checks sizes and times of change, and only where a time is not the
recorded one (a copied folder, a damaged file) the sha256; `thorough` checks it always.
"""

import abc
import contextlib
import json
import math
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genlab.data.rows import SPLITS
from genlab.data.source import Batch
from genlab.data.writing import Blocks, Manifest, write
from genlab.errors import GenlabError
from genlab.files import locked, sha256, write_atomically


def prepared(folder: Path, split: str, make: Callable[[], tuple[Manifest, Blocks]], thorough: bool = False) -> Manifest:
    """The manifest of an intact split, written first where there is none; a second process waits for the first.

    `make` gives what the manifest shall say of the source, and its blocks. Raises GenlabError if the folder cannot be
    written or the split is empty.
    """
    manifest = intact(folder, split, thorough)
    if manifest is None:
        with locked(folder):
            manifest = intact(folder, split)  # the process that held the lock may have written it
            if manifest is None:
                manifest = write(folder, split, *make())
    return manifest


def intact(folder: Path, split: str, thorough: bool = False) -> Manifest | None:
    """The manifest of a split whose files are as they were written; None if there is none, or, aloud, if they are not."""
    path = folder / f"{split}.json"
    try:
        manifest = json.loads(path.read_text())
        known = [_known(folder / name, recorded, thorough) for name, recorded in manifest["files"].items()]
        math.prod(manifest["files"][f"{split}.x"]["shape"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        return _damaged(path)
    if None in known:
        return _damaged(folder / list(manifest["files"])[known.index(None)])
    if not all(known):
        with contextlib.suppress(GenlabError, OSError):  # a folder that may only be read is verified at every opening
            write_atomically(path, json.dumps(manifest, indent=1))
    return manifest


def _known(path: Path, recorded: dict[str, Any], thorough: bool) -> bool | None:
    """Whether a file is by its time the one recorded; False if only by its sha256, which is then recorded; None if it is not."""
    state = path.stat()
    timely = state.st_mtime_ns == recorded["mtime_ns"]
    if state.st_size != recorded["bytes"] or ((thorough or not timely) and sha256(path) != recorded["sha256"]):
        return None
    recorded["mtime_ns"] = state.st_mtime_ns
    return timely


def load(folder: Path, split: str, manifest: Manifest) -> Batch:
    """A split as tensors over the memory map; where it shall lie instead is for whoever serves it to choose."""
    labelled = f"{split}.y" in manifest["files"]
    return Batch(_tensor(folder, f"{split}.x", manifest), _tensor(folder, f"{split}.y", manifest) if labelled else None)


def mapped(folder: Path, name: str, manifest: Manifest) -> np.ndarray:
    """One file of a prepared split as an array over its memory map."""
    told = manifest["files"][name]
    return np.memmap(folder / name, told["dtype"], "r", shape=tuple(told["shape"]))


def _tensor(folder: Path, name: str, manifest: Manifest) -> torch.Tensor:
    with warnings.catch_warnings():
        # Nobody writes to data, and of a private writable map that is larger than memory Linux wants to hear nothing.
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(mapped(folder, name, manifest))


class Prepared(abc.ABC):
    """A source whose splits lie in a folder of the cache, put there at their first use."""

    called: str
    folder: Path

    def __init__(self):
        self._loaded: dict[str, Batch] = {}

    @abc.abstractmethod
    def _make(self, split: str) -> tuple[Manifest, Blocks]:
        """What the manifest of a split shall say of its source, and its blocks."""

    def _known(self, split: str) -> str:
        if split not in SPLITS:
            raise GenlabError(f"{self.called} has the splits train and test, and no {split!r}")
        return split

    def split(self, name: str) -> Batch:
        """The whole split over the memory map; raises GenlabError for a name that is no split."""
        if name not in self._loaded:
            self._loaded[name] = load(self.folder, name, self.prepare(name))
        return self._loaded[name]

    def prepare(self, split: str, thorough: bool = False) -> Manifest:
        """The manifest of a split that lies in the cache intact, put there if it does not; `thorough` reads all of it."""
        return prepared(self.folder, self._known(split), partial(self._make, split), thorough)

    def verified(self, split: str) -> Manifest | None:
        """The manifest of a split, all of whose bytes are as they were written; None if it is not prepared."""
        return intact(self.folder, split, thorough=True)


def _damaged(path: Path) -> None:
    print(f"genlab: {path} is not what was written there (damaged): it will be prepared again", file=sys.stderr)
