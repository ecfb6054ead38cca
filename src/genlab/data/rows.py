"""Rows of a source before anything is decoded, and which of them are a split."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genlab.errors import GenlabError

TRAIN, TEST = ("train", "training"), ("test", "validation", "valid", "val")  # names that splits go by
Keep = Callable[[int], bool]


class Row(NamedTuple):
    """One image as it is stored, and what to call it in an error."""

    where: str
    image: bytes | Path | np.ndarray | None
    label: Any
    caption: Any = None


@dataclass(frozen=True)
class Part:
    """One split of a source: how many rows it has, and those of them whose number is to be kept, in their order."""

    count: int
    rows: Callable[[Keep], Iterator[Row]]
    names: list[str] | None = None  # of the classes
    revision: str | None = None


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are meant; found by type where null. `labelled`: whether a label is looked for at all;
    `caption`: the column of text, or "auto", or none."""

    image: str | None
    label: str | None
    labelled: bool
    caption: str | None = None


SPLITS = {"train": TRAIN, "test": TEST}
HELD_OUT = 10  # of a source without a test split, the last of every ten rows are one


def base(wanted: str) -> str:
    """The name in "train" or "train[:60000]"; raises GenlabError for anything else."""
    if not re.fullmatch(r"\w+(\[\d*:\d*\])?", wanted):
        raise GenlabError(f"cannot read the split {wanted!r}: NAME or NAME[FIRST:LAST] is needed, as in train[:60000]")
    return wanted.partition("[")[0]


def sliced(count: int, wanted: str) -> Keep:
    """The rows that "train[:60000]" keeps of so many; all of them for "train"."""
    first, _, last = wanted.partition("[")[2].rstrip("]").partition(":")
    return range(*slice(int(first or 0), int(last or count)).indices(count)).__contains__


def chosen(parts: dict[str, Part], role: str, splits: dict[str, str], where: str) -> tuple[Part, Keep, str]:
    """The part of a source that is its split `role` ("train" or "test"), the rows of it, and what to call them.

    Where each of `splits` names a part of its own, it is that. Else a source with a test split of any name has its splits
    whole, and one without is cut as both `splits` say, or gives one row in ten to the test split. Raises GenlabError where
    there is no such split, and where only one of `splits` is cut, so that they would overlap.
    """
    wanted, own = splits[role], {base(name) for name in splits.values()} & parts.keys()
    if len(own) == len(SPLITS):
        return parts[base(wanted)], sliced(parts[base(wanted)].count, wanted), wanted
    divided = any(name in parts for name in TEST) and splits["train"] != splits.get("test")
    likely = sorted(SPLITS[role] if divided else TRAIN, key=lambda name: name[:3] != wanted[:3])  # val for validation
    names = [name for name in (base(wanted), *likely) if name in parts]
    if divided and "[" in wanted:
        names = [name for name in names if name in SPLITS[role]]
    if not names:
        raise GenlabError(
            f"{where} has no {role} split, only {', '.join(parts)}: name one in data.source.splits.{role}"
        )
    part = parts[names[0]]
    if divided and names[0] != base(wanted):
        return part, lambda i: True, names[0]
    if divided or all("[" in name for name in splits.values()):
        return part, sliced(part.count, wanted), f"{names[0]}{wanted[len(base(wanted)) :]}"
    if any("[" in name for name in splits.values()):
        told = " and ".join(f"data.source.splits.{role}={name}" for role, name in splits.items())
        raise GenlabError(
            f"{where} has no test split, so that {told} would overlap: cut both, as train[:90] and train[90:]"
        )
    held_out = HELD_OUT - 1
    if role == "test":
        return part, lambda i: i % HELD_OUT == held_out, f"{names[0]}, rows {held_out} mod {HELD_OUT}"
    return part, lambda i: i % HELD_OUT != held_out, f"{names[0]}, but rows {held_out} mod {HELD_OUT}"
