"""Captions: where they stand beside images, and how they are read back from the cache."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import overload

import numpy as np

from genlab.errors import GenlabError
from genlab.hints import line_of

METADATA = ("metadata.csv", "metadata.jsonl")  # as image folders of `datasets` have them
Found = Mapping[str, str | None]  # captions by the names of images


class Captions(Sequence[str]):
    """The captions of a split's rows, decoded as they are asked for: text (bytes,) uint8, lengths (N,)."""

    def __init__(self, text: np.ndarray, lengths: np.ndarray):
        self.text, self.ends = text, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return bytes(self.text[self.ends[i] : self.ends[i + 1]]).decode()


def packed(captions: Sequence[str]) -> dict[str, np.ndarray]:
    """Captions as Captions reads them."""
    data = [caption.encode() for caption in captions]
    lengths = np.array([len(text) for text in data], np.int32)
    return {"text": np.frombuffer(b"".join(data), np.uint8), "lengths": lengths}


def beside(where: str, names: Sequence[str], images: Sequence[str], text: Callable[[str], str], wanted: str) -> Found:
    """Captions by the names of images: photo.txt beside photo.png, or a column of metadata.csv or metadata.jsonl.

    `wanted` is the column, or "auto": text files if there are any, else the one column of the metadata that is no
    file_name. Raises GenlabError where there are neither, or no such column.
    """
    notes = {name: name.rpartition(".")[0] + ".txt" for name in images}
    there = set(names)
    if wanted == "auto" and not there.isdisjoint(notes.values()):
        return _Notes({image: note for image, note in notes.items() if note in there}, text)
    found: dict[str, str | None] = {}
    tables = [name for name in names if PurePosixPath(name).name in METADATA]
    for name in tables:
        found |= _metadata(f"{where} {name}", PurePosixPath(name).parent, text, name, wanted)
    if not tables:
        raise GenlabError(
            f"{where} has no captions: NAME.txt beside each image, or {' or '.join(METADATA)} with file_name, is needed; "
            "or set data.source.caption=null to go without"
        )
    return found


class _Notes(Mapping[str, str | None]):
    """Text files by the images that they stand beside, read one at a time."""

    def __init__(self, files: dict[str, str], text: Callable[[str], str]):
        self.files, self.text = files, text

    def __getitem__(self, image: str) -> str | None:
        try:
            return self.text(self.files[image]).strip()
        except (OSError, ValueError, zipfile.BadZipFile):
            return None  # one row without a caption

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def _metadata(where: str, folder: PurePosixPath, text: Callable[[str], str], name: str, wanted: str) -> Found:
    """One column of a table with file_name, by the names of images."""
    try:
        content = text(name).removeprefix("\ufeff")
        lines = (line for line in content.split("\n") if line.strip())
        rows = (
            [*csv.DictReader(io.StringIO(content))] if name.endswith(".csv") else [json.loads(line) for line in lines]
        )
        columns = sorted({str(column) for row in rows for column in row if column is not None})
    except (OSError, ValueError, TypeError, csv.Error, zipfile.BadZipFile) as error:
        raise GenlabError(f"cannot read {where}: {line_of(error)}") from None
    if "file_name" not in columns:
        raise GenlabError(f"{where} has no column file_name, only {', '.join(columns) or 'nothing'}")
    others = [column for column in columns if column != "file_name"]
    column = others[0] if wanted == "auto" and len(others) == 1 else wanted
    if column not in others:
        what = f"no column {wanted!r}" if wanted != "auto" else "several columns" if others else "no column of captions"
        raise GenlabError(f"{where} has {what}: set data.source.caption to one of {', '.join(others) or 'nothing'}")
    return {(folder / str(row.get("file_name"))).as_posix(): row.get(column) for row in rows}
