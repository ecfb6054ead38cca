"""What lies at a path: tables, a folder or a zip of images, or arrays; nothing is decoded here.

A path that has several splits names them by a folder or the beginning of a file name (train, test, validation, ...), an
.npz by its keys (x_train, y_train, x_test, y_test). Classes of a folder or a zip are its subfolders in alphabetical order,
or what a `dataset.json` {"labels": [[name, class], ...]} in it says.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from genlab.config import line_of
from genlab.data.arrays import arrays
from genlab.data.rows import TEST, TRAIN, Columns, Keep, Part, Row
from genlab.data.tables import TABLES, saved, tables
from genlab.data.texts import beside
from genlab.errors import GenlabError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")


def from_path(path: Path, columns: Columns) -> dict[str, Part]:
    """The splits that lie at a path; raises GenlabError where nothing readable does."""
    if path.is_dir():
        if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return saved(path, columns)
        for suffix, reader in TABLES.items():
            files = sorted(path.rglob(f"*{suffix}"))
            if files:
                return tables(path, files, reader, columns)
        return _folder(path, columns)
    if path.suffix in TABLES:
        return {"train": TABLES[path.suffix]([path], columns)}
    if path.suffix == ".npz":
        return arrays(path, columns)
    if path.suffix == ".zip":
        return _zip(path, columns)
    raise GenlabError(f"cannot read {path}: a folder or .zip of images, .parquet, .arrow or .npz is needed")


def _folder(path: Path, columns: Columns) -> dict[str, Part]:
    names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    return _tree(str(path), names, path.joinpath, lambda name: (path / name).read_text("utf-8"), columns)


def _zip(path: Path, columns: Columns) -> dict[str, Part]:
    try:
        archive = zipfile.ZipFile(path)
        names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise GenlabError(f"{path} is truncated or no zip: {line_of(error)}") from None

    def read(name: str) -> bytes | None:
        try:
            return archive.read(name)
        except (OSError, ValueError, zipfile.BadZipFile):
            return None  # one row that cannot be decoded

    return _tree(str(path), names, read, lambda name: archive.read(name).decode(), columns)


def _tree(
    where: str,
    names: Sequence[str],
    read: Callable[[str], bytes | Path | None],
    text: Callable[[str], str],  # what stands in a text file
    columns: Columns,
) -> dict[str, Part]:
    labelled = columns.labelled
    files = [PurePosixPath(name) for name in sorted(names)]
    files = [f for f in files if f.suffix.lower() in SUFFIXES and not any(p.startswith((".", "__")) for p in f.parts)]
    if not files:
        raise GenlabError(
            f"{where} holds no image ({', '.join(s[1:] for s in SUFFIXES[:4])}, ...), parquet or Arrow file"
        )
    root = 0  # of folders above the splits or classes
    while len({f.parts[root] for f in files}) == 1 and files[0].parts[root].lower() not in TRAIN + TEST:
        if any(len(f.parts) < root + 3 for f in files):
            break
        root += 1
    top = {f.parts[root].lower() for f in files if len(f.parts) > root + 1}
    divided = bool(top & set(TRAIN))
    if divided:
        files = [f for f in files if f.parts[root].lower() in TRAIN + TEST]
    splits: dict[str, list[tuple[str, str]]] = {}
    for file in files:
        inner = file.parts[root + divided : -1]
        split = file.parts[root].lower() if divided else "train"
        splits.setdefault(split, []).append((str(file), inner[0] if inner else ""))
    classes = sorted({c for rows in splits.values() for _, c in rows if c})
    given = _given(where, text) if labelled and "dataset.json" in names else None
    if labelled and not given and not classes:
        raise GenlabError(f"{where} has no folder of each class and no dataset.json: sort it so, or set data.classes=0")

    captions = (
        beside(where, names, list(map(str, files)), text, columns.caption) if columns.caption else dict[str, str]()
    )

    def rows(images: list[tuple[str, str]], keep: Keep) -> Iterator[Row]:
        for i, (name, folder) in enumerate(images):
            if keep(i):
                label = given.get(name) if given else classes.index(folder) if folder else None
                yield Row(f"{where} {name}", read(name), label if labelled else None, captions.get(name))

    names_of = classes if labelled and not given else None
    return {split: Part(len(images), partial(rows, images), names_of) for split, images in splits.items()}


def _given(where: str, text: Callable[[str], str]) -> dict[str, int] | None:
    """The labels that dataset.json has, by the names of images."""
    try:
        return dict(json.loads(text("dataset.json")).get("labels") or [])
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise GenlabError(f'{where} dataset.json is not {{"labels": [[name, class], ...]}}: {line_of(error)}') from None
