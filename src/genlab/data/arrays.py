"""Arrays of an .npz or .npy, read a row at a time however large they are."""

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from genlab.data.rows import Columns, Keep, Part, Row
from genlab.errors import GenlabError
from genlab.hints import line_of

UNNAMED = {"arr_0": "x", "arr_1": "y"}
UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Rows:
    """The rows of one array, none of which is read yet."""

    path: Path
    name: str  # in an .npz; of an .npy none
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __iter__(self) -> Iterator[np.ndarray]:
        size, done = math.prod(self.shape[1:]) * self.dtype.itemsize, 0
        try:
            with _file(self.path, self.name) as file:
                header(file)
                while done < self.shape[0]:
                    yield np.frombuffer(_exactly(file, size), self.dtype).reshape(self.shape[1:])
                    done += 1
        except UNREADABLE as error:
            raise GenlabError(f"{self.path} {self.name} cannot be read after row {done}: {line_of(error)}") from None


@contextlib.contextmanager
def _file(path: Path, name: str) -> Iterator[Any]:
    if name:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            yield file
    else:
        with open(path, "rb") as file:
            yield file


def header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the .npy that a file begins with; raises ValueError for what is none, or not in C order."""
    version = npy.read_magic(file)
    shape, fortran, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    if dtype.hasobject or (fortran and len(shape) > 1):
        raise ValueError(f"{dtype} in {'Fortran' if fortran else 'C'} order cannot be read a row at a time")
    return shape, dtype


def _exactly(file: Any, size: int) -> bytes:
    data = file.read(size)
    while len(data) < size:
        more = file.read(size - len(data))
        if not more:
            raise EOFError("the file ends within a row")
        data += more
    return data


def opened(path: Path) -> dict[str, Rows]:
    """The arrays of an .npz by their names; raises GenlabError for what is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            found = {}
            for name in names:
                with archive.open(f"{name}.npy") as file:
                    found[name] = Rows(path, name, *header(file))
    except (*UNREADABLE, LookupError) as error:
        raise GenlabError(f"{path} is truncated or no .npz: {line_of(error)}") from None
    return found


def single(path: Path) -> Rows:
    """The array of an .npy; raises GenlabError for what is none."""
    try:
        with open(path, "rb") as file:
            return Rows(path, "", *header(file))
    except UNREADABLE as error:
        raise GenlabError(f"{path} is truncated or no .npy: {line_of(error)}") from None


def by_split(path: Path) -> tuple[dict[str, Rows], dict[str, str]]:
    """The arrays of an .npz, and the names of its x_<split> by their splits; x, y and caption alone are train, and so are
    arr_0 and arr_1, which arrays without names are called (samples of ADM). Raises GenlabError where there is no x."""
    found = {UNNAMED.get(name, name): rows for name, rows in opened(path).items()}
    splits = {name.partition("_")[2] or "train": name for name in found if name.partition("_")[0] == "x"}
    if not splits:
        raise GenlabError(f"{path} has no x_train and x_test (nor x), only {', '.join(found)}")
    return found, splits


def arrays(path: Path, columns: Columns) -> dict[str, Part]:
    """x_<split> (N, C, H, W), (N, H, W, C) or (N, H, W) uint8, y_<split> (N,) and caption_<split> (N,) of an .npz."""
    (found, splits), parts = by_split(path), dict[str, Part]()
    caption = "caption" if columns.caption == "auto" else columns.caption
    for split, name in splits.items():
        x, y, texts = found[name], None, None
        if x.dtype != np.uint8 or len(x.shape) not in (3, 4):
            raise GenlabError(f"{path} {name} is {x.dtype} {x.shape}: uint8 (N, C, H, W) or (N, H, W, C) is needed")
        if columns.labelled:
            y = found.get(f"y{name[1:]}")
            if y is None or y.shape[:1] != x.shape[:1]:
                raise GenlabError(f"{path} has no {x.shape[0]} labels y{name[1:]} beside {name}, or set data.classes=0")
        if caption:
            texts = found.get(f"{caption}{name[1:]}")
            if texts is None or texts.dtype.kind != "U" or texts.shape != x.shape[:1]:
                told = f"{path} has no {x.shape[0]} strings {caption}{name[1:]} beside {name}"
                raise GenlabError(f"{told}: set data.source.caption")
        parts[split] = Part(x.shape[0], partial(_rows, x, y, texts))
    return parts


def _rows(x: Rows, y: Rows | None, texts: Rows | None, keep: Keep) -> Iterator[Row]:
    labels = [None] * x.shape[0] if y is None else [label[()] for label in y]
    captions = [None] * x.shape[0] if texts is None else [str(text) for text in texts]
    for i, image in enumerate(x):
        if keep(i):
            yield Row(f"{x.path} {x.name} row {i}", image, labels[i], captions[i])
