"""A run directory: open, lock, record, load. The files are those of docs/architecture.md, section "A run"."""

import fcntl
import json
import math
import os
import pickle
import platform
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL.Image import Image

from genlab import __version__
from genlab.errors import GenlabError
from genlab.files import finite, json_object, place, sha256, synchronize, unfinished, write_atomically, writing
from genlab.provenance import code, environment
from genlab.recorded import configuration, enclosed
from genlab.redaction import redact

BEST = "best-"  # how the name of the checkpoint begins that is kept for its score
SPACE = "free some space, and the same command goes on from the last checkpoint"


def jsonable(row: dict[str, Any]) -> str:
    """One line of strict JSON: numbers that are not finite become null."""
    return json.dumps(finite(row), allow_nan=False)


class Run:
    """One directory and the files in it; exactly one process writes."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints, self.samples = path / "checkpoints", path / "samples"

    # ------------------------------------------------------------------ opening

    @classmethod
    def existing(cls, path: Path) -> "Run":
        """A run that has been trained; raises GenlabError if `path` is not one."""
        if not (path / "config.yaml").is_file():
            raise GenlabError(f"{path} is not a run directory: it has no config.yaml (runs lie in outputs/DATA/MODEL/)")
        enclosed(path)
        return cls(path)

    def lock(self) -> None:
        """Hold the directory until this process ends; raises GenlabError if another holds it."""
        with writing(self.path, SPACE):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "a+")  # noqa: SIM115 - open as long as the lock is held
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip()
            raise GenlabError(f"{self.path} is in use by process {owner}: wait for it, or change the seed") from None
        with writing(self.path, SPACE):
            self._lock.truncate(0)
            self._lock.write(str(os.getpid()))
            self._lock.flush()
        for left in (*unfinished(self.path), *unfinished(self.checkpoints)):
            left.unlink(missing_ok=True)

    def unlock(self) -> None:
        """Let others have the directory."""
        self._lock.close()

    @property
    def locked(self) -> bool:
        """Whether some process holds the directory."""
        path = self.path / ".lock"
        if not path.is_file():
            return False
        with open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def clear(self) -> None:
        """Forget everything but the lock."""
        for child in self.path.iterdir():
            if child.is_dir():
                shutil.rmtree(child)
            elif child.name != ".lock":
                child.unlink()

    # ------------------------------------------------------------------ records

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, as `recorded` reads it."""
        return configuration(self.path)

    def write_config(self, config: dict[str, Any]) -> None:
        write_atomically(self.path / "config.yaml", yaml.safe_dump(redact(config), sort_keys=False), SPACE)

    @property
    def status(self) -> dict[str, Any]:
        return json_object(self.path / "status.json")

    def write_status(self, state: str, images_seen: int, max_images: int, **more: Any) -> None:
        """running, preempted, failed or finished, with what is needed to know where the numbers came from."""
        status = {
            "state": state,
            "images_seen": images_seen,
            "max_images": max_images,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "genlab": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "threads": torch.get_num_threads(),
            **more,
        }
        write_atomically(self.path / "status.json", json.dumps(finite(status), indent=1), SPACE)

    def ended(self) -> dict[str, str]:
        """The records of a finished run by their names, for `restore`; nothing of any other."""
        if self.status.get("state") != "finished":
            return {}
        paths = [self.path / name for name in ("config.yaml", "history.jsonl", "status.json")]
        return {path.name: path.read_text(errors="replace") for path in paths if path.is_file()}

    def restore(self, records: dict[str, str]) -> None:
        """Write the records as they were."""
        for name, text in records.items():
            write_atomically(self.path / name, text, SPACE)

    def append(self, name: str, *rows: dict[str, Any]) -> None:
        """More lines of a JSON-lines file, written in one piece."""
        with writing(self.path, SPACE), open(self.path / name, "a") as file:
            file.write("".join(jsonable(row) + "\n" for row in rows))

    def write_provenance(self, seed: int) -> None:
        """One more line of environment.jsonl, of this process, and the diff of its code in a file of that name."""
        state, diff = code()
        if state is not None and diff:
            write_atomically(self.path / state["diff"], diff, SPACE)
        self.append("environment.jsonl", {"seed": seed, **environment(), "code": state})

    def picture(self, name: str, image: Image) -> Path:
        """Save one in samples/; where it lies."""
        with writing(self.path, SPACE):
            self.samples.mkdir(exist_ok=True)
            image.save(self.samples / name)
        return self.samples / name

    def rewind(self, images_seen: int, undone: Sequence[str] = (), extended: bool = False) -> None:
        """Drop the history after a checkpoint, which is about to be written again, and lines that a crash cut off.

        At the checkpoint itself what is `undone` (the beginnings of its keys) is dropped too, and what was written for
        the end of a run that is `extended` now.
        """
        _keep(self.path / "metrics.jsonl", lambda row: True)
        _keep(
            self.path / "history.jsonl",
            lambda row: (
                row.get("images_seen", math.inf) <= images_seen
                and not (row.get("final") and extended)
                and not (row["images_seen"] == images_seen and any(k.startswith(tuple(undone)) for k in row))
            ),
        )

    # ------------------------------------------------------------------ checkpoints

    def save_checkpoint(self, state: dict[str, Any], images_seen: int, keep: int) -> Path:
        """Write checkpoints/<images seen>.pt in place atomically with its sha256, and drop all but the last `keep`."""
        return self._save(f"{images_seen:09d}.pt", state, keep)

    def save_best(self, state: dict[str, Any], images_seen: int) -> Path:
        """Write checkpoints/best-<images seen>.pt in the same way, and drop the one before."""
        return self._save(f"{BEST}{images_seen:09d}.pt", state, 1)

    def _named(self, best: bool) -> dict[str, str]:
        """The manifest's checkpoints of one kind, the oldest first."""
        return _of_kind(self._manifest(), best)

    def _save(self, name: str, state: dict[str, Any], keep: int) -> Path:
        """Write one and its line in the manifest. What is newer than it comes from a training that is not gone on with."""
        path, best = self.checkpoints / name, name.startswith(BEST)
        with writing(self.path, SPACE):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            if (self.path / "history.jsonl").is_file():  # no checkpoint is ahead of its history
                synchronize(self.path / "history.jsonl")
        needed = sum(t.untyped_storage().nbytes() for t in _tensors(state)) / 1e6
        remedy = (
            f"{name} takes {needed:.1f} MB, {shutil.disk_usage(self.checkpoints).free / 1e6:.1f} MB are free; {SPACE}"
        )
        # where the manifest is lost, what is whole without it is listed again
        listed = self._manifest() or {p.name: sha256(p) for p in self.checkpoints.glob("*.pt") if _whole(p)}
        own = {n: digest for n, digest in _of_kind(listed, best).items() if n < name}
        own[name] = place(path, lambda file: torch.save(state, file), remedy)
        manifest = _of_kind(listed, not best) | dict(list(own.items())[-keep:])
        place(
            self.checkpoints / "manifest.json", lambda file: file.write(json.dumps(manifest, indent=1).encode()), SPACE
        )
        for old in self.checkpoints.glob("*.pt"):
            if old.name not in manifest:
                old.unlink()
        return path

    def load_checkpoint(self, which: str = "last") -> dict[str, Any] | None:
        """The newest checkpoint whose sha256 is right, older ones with a warning; None if there has been none; of "best",
        that one alone, and None if it is damaged.

        Where the manifest is lost, the checksums within the files must do. Raises GenlabError if every one is damaged.
        """
        manifest = self._named(which == "best")
        names = sorted(manifest, reverse=True)
        if not names and (names := self._unlisted(which == "best")):
            print(
                f"genlab: {self.checkpoints}/manifest.json is lost: the files' own checksums must do", file=sys.stderr
            )
        for name in names:
            path = self.checkpoints / name
            if path.is_file() and (sha256(path) == manifest[name] if name in manifest else _whole(path)):
                return _loaded(path)
            rest = ": trying the one before" if name != names[-1] else ""
            print(f"genlab: {path} is missing or damaged (its checksum differs){rest}", file=sys.stderr)
        if names and which != "best":
            raise GenlabError(f"no checkpoint in {self.checkpoints} is intact: train again with force=true")
        return None

    @property
    def saved_images(self) -> int:
        """How many images the newest checkpoint had seen."""
        return max((int(Path(name).stem) for name in self._named(best=False)), default=0)

    @property
    def last_good(self) -> str:
        """Where one would go on from, in words."""
        names = sorted(self._named(best=False))
        return f"the last good checkpoint is {self.checkpoints / names[-1]}" if names else "there is no checkpoint yet"

    @property
    def checkpoint_digest(self) -> str:
        """The sha256 of the newest checkpoint; raises GenlabError if there is none."""
        manifest = self._named(best=False)
        if not manifest:
            raise GenlabError(f"{self.path} has no checkpoint yet")
        return manifest[max(manifest)]

    def _manifest(self) -> dict[str, str]:
        return json_object(self.checkpoints / "manifest.json")

    def _unlisted(self, best: bool) -> list[str]:
        """The checkpoints of one kind that are there, the newest first."""
        return sorted((p.name for p in self.checkpoints.glob("*.pt") if p.name.startswith(BEST) == best), reverse=True)


def plain(path: Path) -> Any:
    """Tensors and plain values of a file, and nothing that could run; whole files that hold something else are refused."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
    ):  # whose own words advise to load it in a way that runs code
        raise GenlabError(f"{path} is damaged, or holds more than tensors and plain values: refused") from None


def _loaded(path: Path) -> dict[str, Any]:
    state = plain(path)
    if not isinstance(state, dict) or not {"images_seen", "state_dict", "averages"} <= state.keys():
        raise GenlabError(f"{path} is no checkpoint of genlab: refused")
    return state


def _of_kind(listed: dict[str, str], best: bool) -> dict[str, str]:
    return {name: digest for name, digest in sorted(listed.items()) if name.startswith(BEST) == best}


def _keep(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Leave in a JSON-lines file the objects that are wanted, and no line that a crash cut off."""
    if path.is_file():
        kept = []
        for line in path.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                row = json.loads(line)
                kept += [line] if isinstance(row, dict) and wanted(row) else []
        write_atomically(path, "".join(f"{line}\n" for line in kept), SPACE)


def _whole(path: Path) -> bool:
    """Whether an archive holds what it held when it was written, by its own CRC-32."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def _tensors(state: Any) -> Iterable[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for part in state.values() if isinstance(state, dict) else state:
            yield from _tensors(part)
