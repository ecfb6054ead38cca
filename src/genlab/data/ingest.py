"""What lies at a path: tables, a folder or a zip of images, or arrays; nothing is decoded here.

A path that has several splits names them by a folder or the beginning of a file name (train, test, validation, ...), an
.npz by its keys (x_train, y_train, x_test, y_test); beside a test folder without a train folder, all else is train. Classes
of a folder or a zip are the subfolders of its train split in alphabetical order, or what a `dataset.json`
{"labels": [[name, class], ...]} in any folder of it says.
"""

import json
import lzma
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from genlab.data.arrays import UNREADABLE, arrays
from genlab.data.rows import TEST, TRAIN, Columns, Keep, Part, Row
from genlab.data.tables import TABLES, saved, tables
from genlab.data.texts import beside
from genlab.errors import GenlabError
from genlab.hints import line_of

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".dib", ".gif", ".apng", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga",
)  # fmt: skip


def from_path(path: Path, columns: Columns) -> dict[str, Part]:
    """The splits that lie at a path; raises GenlabError where nothing readable does."""
    if path.is_dir():
        if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return saved(path, columns)
        there = list(_below(path))
        for suffix, reader in TABLES.items():
            files = sorted(file for file in there if file.name.endswith(suffix))
            if files:
                return tables(path, files, reader, columns)
        names = [file.relative_to(path).as_posix() for file in there]
        return _tree(str(path), names, path.joinpath, lambda name: (path / name).read_text("utf-8"), columns)
    if path.suffix in TABLES:
        return {"train": TABLES[path.suffix]([path], columns)}
    if path.suffix == ".npz":
        return arrays(path, columns)
    if path.suffix == ".zip":
        return _zip(path, columns)
    raise GenlabError(f"cannot read {path}: a folder or .zip of images, .parquet, .arrow or .npz is needed")


def _below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files in a folder and in those below it, links followed but for one to a folder that it lies in."""
    real = folder.resolve()
    if real in above:
        return
    try:
        with os.scandir(folder) as entries:
            there = list(entries)
    except OSError as error:
        raise GenlabError(f"cannot read {folder} ({error.strerror})") from None
    for entry in there:
        if entry.is_dir():
            yield from _below(folder / entry.name, (*above, real))
        elif entry.is_file():
            yield folder / entry.name


def _zip(path: Path, columns: Columns) -> dict[str, Part]:
    try:
        archive = zipfile.ZipFile(path)
        names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise GenlabError(f"{path} is truncated or no zip: {line_of(error)}") from None

    def member(name: str) -> bytes:
        try:
            return archive.read(name)
        except (*UNREADABLE, RuntimeError, lzma.LZMAError) as error:  # damaged, or encrypted
            raise zipfile.BadZipFile(line_of(error)) from None

    def read(name: str) -> bytes | None:
        try:
            return member(name)
        except zipfile.BadZipFile:
            return None  # one row that cannot be decoded

    return _tree(str(path), names, read, lambda name: member(name).decode(), columns)


def _tree(
    where: str,
    names: Sequence[str],
    read: Callable[[str], bytes | Path | None],
    text: Callable[[str], str],  # what stands in a text file
    columns: Columns,
) -> dict[str, Part]:
    labelled = columns.labelled
    files = [f for f in _visible(names) if f.suffix.lower() in SUFFIXES]
    if not files:
        raise GenlabError(
            f"{where} holds no image ({', '.join(s[1:] for s in SUFFIXES[:4])}, ...), parquet or Arrow file"
        )
    root = 0  # of folders above the splits or classes
    while len({f.parts[root] for f in files}) == 1 and files[0].parts[root].lower() not in TRAIN + TEST:
        if any(len(f.parts) < root + 3 for f in files):
            break
        root += 1
    firsts = [file.parts[root].lower() if len(file.parts) > root + 1 else "" for file in files]
    top = set(firsts)
    divided = bool(top & set(TRAIN))
    if divided and not top & set(TEST) and (others := sorted(top - {*TRAIN, ""})):
        raise GenlabError(
            f"{where} has the folders {', '.join(sorted(top & set(TRAIN)))} and {', '.join(others)}, but no test: rename the "
            "first if it is a class, or move the others away if it is a split"
        )
    splits: dict[str, list[tuple[str, str]]] = {}
    besides = not top <= set(TEST)  # what is all in a folder "test" is not meant for testing alone
    for file, split in zip(files, firsts, strict=True):
        named = besides and split in TRAIN + TEST
        if divided and not named:
            continue
        inner = file.parts[root + named : -1]
        splits.setdefault(split if named else "train", []).append((str(file), inner[0] if inner else ""))
    classes = sorted({c for split, rows in splits.items() if split in TRAIN for _, c in rows if c})
    given = _given(where, names, text) if labelled else {}
    if labelled and not given and not classes:
        raise GenlabError(f"{where} has no folder of each class and no dataset.json: sort it so, or set data.classes=0")

    numbers = {folder: i for i, folder in enumerate(classes)}
    captions = (
        beside(where, names, list(map(str, files)), text, columns.caption) if columns.caption else dict[str, str]()
    )

    def rows(images: list[tuple[str, str]], keep: Keep) -> Iterator[Row]:
        for i, (name, folder) in enumerate(images):
            if keep(i):
                label = given.get(name) if given else numbers.get(folder)
                yield Row(f"{where} {name}", read(name), label if labelled else None, captions.get(name))

    names_of = classes if labelled and not given else None
    return {split: Part(len(images), partial(rows, images), names_of) for split, images in splits.items()}


def _visible(names: Sequence[str]) -> list[PurePosixPath]:
    files = map(PurePosixPath, sorted(names))
    return [file for file in files if not any(part.startswith((".", "__")) for part in file.parts)]


def _given(where: str, names: Sequence[str], text: Callable[[str], str]) -> dict[str, Any]:
    """The labels that every dataset.json has, by the names of images, which are as seen from its folder."""
    found = dict[str, Any]()
    for file in _visible(names):
        if file.name == "dataset.json":
            try:
                labels = json.loads(text(str(file))).get("labels") or []
                found |= {str(file.parent / name): label for name, label in labels}
            except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
                told = f'{where} {file} is not {{"labels": [[name, class], ...]}}: {line_of(error)}'
                raise GenlabError(told) from None
    return found
