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
from pathlib import Path
from typing import Any

import torch
import yaml

from genlab import __version__
from genlab.errors import GenlabError
from genlab.files import sha256
from genlab.provenance import code, environment
from genlab.recorded import configuration, enclosed
from genlab.redaction import redact

BEST = "best-"  # how the name of the checkpoint begins that is kept for its score


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole, so that a reader or a crash never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def jsonable(row: dict[str, Any]) -> str:
    """One line of strict JSON: numbers that are not finite become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(clean)


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
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / ".lock", "a+")  # noqa: SIM115 - open as long as the lock is held
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            owner = self._lock.read().strip()
            raise GenlabError(f"{self.path} is in use by process {owner}: wait for it, or change the seed") from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

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
        write_atomically(self.path / "config.yaml", yaml.safe_dump(redact(config), sort_keys=False))

    @property
    def status(self) -> dict[str, Any]:
        path = self.path / "status.json"
        return json.loads(path.read_text()) if path.is_file() else {}

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
        write_atomically(self.path / "status.json", json.dumps(status, indent=1))

    def append(self, name: str, row: dict[str, Any]) -> None:
        """One more line of history.jsonl or metrics.jsonl, flushed."""
        with open(self.path / name, "a") as file:
            file.write(jsonable(row) + "\n")

    def write_provenance(self, seed: int) -> None:
        """One more line of environment.jsonl, of this process, and the diff of its code in a file of that name."""
        state, diff = code()
        if state is not None and diff:
            write_atomically(self.path / state["diff"], diff)
        with open(self.path / "environment.jsonl", "a") as file:
            file.write(json.dumps({"seed": seed, **environment(), "code": state}) + "\n")

    def rewind(self, images_seen: int) -> None:
        """Drop the history after a checkpoint, which is about to be written again."""
        path = self.path / "history.jsonl"
        if path.is_file():
            kept = [line for line in path.read_text().splitlines() if _seen(line) <= images_seen]
            write_atomically(path, "".join(f"{line}\n" for line in kept))

    # ------------------------------------------------------------------ checkpoints

    def save_checkpoint(self, state: dict[str, Any], images_seen: int, keep: int) -> Path:
        """Write checkpoints/<images seen>.pt in place atomically with its sha256, and drop all but the last `keep`."""
        return self._save(f"{images_seen:09d}.pt", state, keep)

    def save_best(self, state: dict[str, Any], images_seen: int) -> Path:
        """Write checkpoints/best-<images seen>.pt in the same way, and drop the one before."""
        return self._save(f"{BEST}{images_seen:09d}.pt", state, 1)

    def _named(self, best: bool) -> dict[str, str]:
        """The manifest's checkpoints of one kind, the oldest first."""
        return {n: digest for n, digest in sorted(self._manifest().items()) if n.startswith(BEST) == best}

    def _save(self, name: str, state: dict[str, Any], keep: int) -> Path:
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        path = self.checkpoints / name
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        best = name.startswith(BEST)
        own = {**self._named(best), name: sha256(temporary)}
        own = {n: own[n] for n in sorted(own)[-keep:]}
        os.replace(temporary, path)
        manifest = {**self._named(not best), **own}
        write_atomically(self.checkpoints / "manifest.json", json.dumps(manifest, indent=1))
        for old in self.checkpoints.glob("*.pt"):
            if old.name not in manifest:
                old.unlink()
        return path

    def load_checkpoint(self, which: str = "last") -> dict[str, Any] | None:
        """The newest checkpoint whose sha256 is right, older ones with a warning; None if there has been none; of "best",
        that one alone.

        Raises GenlabError if every one is damaged.
        """
        manifest = self._named(which == "best")
        names = sorted(manifest, reverse=True)
        for name in names:
            path = self.checkpoints / name
            if path.is_file() and sha256(path) == manifest[name]:
                return _loaded(path)
            rest = ": trying the one before" if name != names[-1] else ""
            print(f"genlab: {path} is missing or damaged (sha256 differs){rest}", file=sys.stderr)
        if names:
            raise GenlabError(f"no checkpoint in {self.checkpoints} is intact: train again with force=true")
        return None

    @property
    def checkpoint_digest(self) -> str:
        """The sha256 of the newest checkpoint; raises GenlabError if there is none."""
        manifest = self._named(best=False)
        if not manifest:
            raise GenlabError(f"{self.path} has no checkpoint yet")
        return manifest[max(manifest)]

    def _manifest(self) -> dict[str, str]:
        path = self.checkpoints / "manifest.json"
        return json.loads(path.read_text()) if path.is_file() else {}


def _loaded(path: Path) -> dict[str, Any]:
    """Tensors and plain values, and nothing that could run; whole files that hold something else are refused."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
    ):  # whose own words advise to load it in a way that runs code
        raise GenlabError(
            f"{path} holds more than tensors and plain values: refused, it is no checkpoint of genlab"
        ) from None


def _seen(line: str) -> float:
    try:
        return json.loads(line)["images_seen"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf  # a line that a crash cut off
