"""What lies at a path, as far as that can be told without reading it, or importing torch."""

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from genlab.data.texts import METADATA
from genlab.errors import GenlabError


def stamp(path: str | None) -> str | None:
    """A hash of what lies at a path, by `identity`; None where there is none, or nothing that can be read."""
    try:
        return path and hashlib.sha256(json.dumps(identity(Path(path).expanduser().absolute())).encode()).hexdigest()
    except GenlabError:
        return None


def identity(path: Path) -> list[Any]:
    """What changes when the data at a path do: size and time of a file; of a folder, the times of the folders in it, two
    deep, which change as files come and go, and of the tables, labels and captions in these."""
    try:
        state = path.stat()
        if stat.S_ISREG(state.st_mode):
            return [str(path), state.st_size, state.st_mtime_ns]
        folders = [path, *_inside(path)]
        folders += [inner for folder in folders[1:] for inner in _inside(folder)]
        files = [file for folder in folders for file in _inside(folder, tables=True)]
        return [str(path), *([str(inner), inner.stat().st_mtime_ns] for inner in folders + files)]
    except OSError as error:
        raise GenlabError(f"cannot read data.source.path={path} ({error.strerror})") from None


def _inside(folder: Path, tables: bool = False) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry)
            for entry in entries
            if (entry.name.endswith((".parquet", ".arrow", "dataset.json", *METADATA)) if tables else entry.is_dir())
        )
