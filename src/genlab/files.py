"""Files that other processes read too: written whole or not at all, one writer at a time."""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from genlab.errors import GenlabError

SPACE = "free some space, or set GENLAB_CACHE=FOLDER"


def finite(value: Any) -> Any:
    """What strict JSON can hold of a value: nan and the infinities, which it does not know, as null."""
    match value:
        case dict():
            return {key: finite(item) for key, item in value.items()}
        case list() | tuple():
            return [finite(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str, remedy: str = SPACE) -> None:
    """Replace a file as a whole, so that a reader or a crash never sees half of it.

    Raises GenlabError with the remedy for what the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with writing(path.parent, remedy):
            temporary.write_text(text)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def json_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(path.read_text())
        return value if isinstance(value, dict) else {}
    return {}


def place(path: Path, write: Callable[[BinaryIO], object], remedy: str = SPACE) -> str:
    """Write a file beside its place, flush it to the disk and put it there in one step; its sha256.

    Raises GenlabError with the remedy for what the disk refuses, and leaves what was there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with writing(path.parent, remedy):
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            digest = sha256(temporary)
            os.replace(temporary, path)
            synchronize(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return digest


def synchronize(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unfinished(folder: Path) -> list[Path]:
    """The temporary files that processes which were killed have left in a folder."""
    return [path for path in folder.glob(".*") if re.fullmatch(r"\..+\.\d+", path.name)]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made if need be; another process that wants it waits, and says so."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115 - closed below, which gives the lock back
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"genlab: another process writes {folder}: waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def writing(folder: Path, remedy: str = SPACE) -> Iterator[None]:
    """What the disk refuses, as one line with the remedy, which is another where writing is forbidden."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch's writer of archives hides in a RuntimeError what the disk said
        said = error if isinstance(error, OSError) else error.__context__
        if not isinstance(said, OSError):
            raise
        forbidden = said.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        does = remedy.replace("free some space", "make it writable") if forbidden else remedy
        raise GenlabError(f"cannot write in {folder} ({said.strerror}): {does}") from None
