"""Real images of a hub data set or a path, converted and decoded once, served from the cache."""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from rich.console import Console
from rich.progress import Progress

from genlab.data.cache import Blocks, Manifest, intact, load, prepared
from genlab.data.pixels import Unfit, pixels, resampling
from genlab.data.rows import SPLITS, Columns, Keep, Part, Row, base, chosen, sliced
from genlab.data.source import Batch
from genlab.errors import GenlabError

FORMAT = 1  # of what lies in the cache: counted up when the same configuration comes to mean other bytes
BLOCK = 128  # images decoded at a time: of the largest JPEGs, a hundred megabytes


class Images:
    """A data set of uint8 images (N, C, H, W) with splits train and test, prepared at its first use; `path` goes before
    `hub`. Raises GenlabError, with file and row, for whatever is wrong with it."""

    def __init__(
        self,
        name: str,
        shape: Sequence[int],
        classes: int | None,
        cache: str,
        hub: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        path: str | None = None,
        image: str | None = None,
        label: str | None = None,
        splits: dict[str, str] | None = None,
        crop: int | None = None,
        resample: str | None = None,
        on_bad: str = "error",
    ):
        if hub is None and path is None:
            raise GenlabError(f"{name} lies nowhere yet: set data.source.path to its folder, .zip, .parquet or .npz")
        if on_bad not in ("error", "skip"):
            raise GenlabError(f"data.source.on_bad={on_bad}: there is error and skip")
        self.called, self.shape, self.classes = name, tuple(shape), classes or 0
        self.hub, self.config, self.revision = hub, config, revision
        self.path = None if path is None else Path(path).expanduser().absolute()
        self.columns = Columns(image, label, self.classes > 0)
        self.splits = splits or {"train": "train", "test": "test"}
        self.crop, self.resample, self.skips = crop, resample, on_bad == "skip"
        resampling(resample)
        origin = [hub, config, revision] if self.path is None else _identity(self.path)
        transform = [self.shape, classes, crop, resample, on_bad, image, label, FORMAT]
        key = hashlib.sha256(json.dumps([origin, transform, self.splits]).encode()).hexdigest()[:10]
        self.folder = Path(cache).expanduser() / "data" / f"{name}-{key}"
        self._loaded: dict[str, Batch] = {}

    @property
    def name(self) -> str:
        """What is computed from the data goes by it, so that of a path, which may hold anything, the content is part of it."""
        if self.path is None:
            return self.called
        return f"{self.called}-{self.prepare('train')['files']['train.x']['sha256'][:8]}"

    def split(self, name: str) -> Batch:
        """The whole split "train" or "test", over the memory map if it is large; raises GenlabError for any other name."""
        if name not in SPLITS:
            raise GenlabError(f"{self.called} has the splits train and test, and no {name!r}")
        if name not in self._loaded:
            self._loaded[name] = load(self.folder, name, self.prepare(name))
        return self._loaded[name]

    def prepare(self, split: str, thorough: bool = False) -> Manifest:
        """The manifest of a split that lies in the cache intact, put there if it does not; `thorough` reads all of it."""
        return prepared(self.folder, split, partial(self._make, split), thorough)

    def verified(self, split: str) -> Manifest | None:
        """The manifest of a split, all of whose bytes are as they were written; None if it is not prepared."""
        return intact(self.folder, split, thorough=True)

    def _make(self, split: str) -> tuple[Manifest, Blocks]:
        wanted = self.splits[split]
        if self.path is not None:
            from genlab.data.ingest import from_path

            source = str(self.path)
            part, keep, meant = chosen(from_path(self.path, self.columns), split, wanted, source)
        else:
            from genlab.data.tables import from_hub

            source, meant = str(self.hub), wanted
            part = from_hub(source, self.config, self.revision, base(wanted), self.columns)
            keep = sliced(part.count, wanted)
        skipped: list[str] = []
        manifest = {
            "source": source,
            "revision": part.revision,
            "split": meant,
            "transform": {"shape": self.shape, "crop": self.crop, "resample": self.resample},
            "classes": part.names,
            "skipped": skipped,
            "pillow": PIL.__version__,
        }
        return manifest, self._blocks(part, keep, f"{self.folder.name} {split}", skipped)

    def _blocks(self, part: Part, keep: Keep, what: str, skipped: list[str]) -> Blocks:
        rows = part.rows(keep)
        bar = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
        task = bar.add_task(what, total=sum(map(keep, range(part.count))))
        with (
            bar,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):  # Pillow decodes and resizes outside of the interpreter's lock
            while block := list(islice(rows, BLOCK)):
                made = list(pool.map(self._converted, block))
                for row, result in zip(block, made, strict=True):
                    if isinstance(result, str):
                        self._bad(f"{row.where}: {result}", skipped)
                good = [result for result in made if not isinstance(result, str)]
                bar.advance(task, len(block))
                if good:
                    images, labels = zip(*good, strict=True)
                    yield np.stack(images), np.array(labels, np.int64) if self.classes else None
        if skipped:
            print(f"genlab: {what}: {len(skipped)} of {part.count} skipped, the first {skipped[0]}", file=sys.stderr)

    def _bad(self, line: str, skipped: list[str]) -> None:
        if not self.skips:
            raise GenlabError(f"{line} (data.source.on_bad=skip leaves such rows out)")
        skipped.append(line)

    def _converted(self, row: Row) -> tuple[np.ndarray, int] | str:
        """The image (C, H, W) and label of a row, or what is wrong with it."""
        try:
            return pixels(row.image, self.shape, self.crop, self.resample), self._label(row.label)
        except Unfit as error:
            return str(error)

    def _label(self, y: Any) -> int:
        if not self.classes:
            return 0
        if not isinstance(y, int | np.integer):
            raise Unfit("it has no label" if y is None else f"its label {y!r} is no integer")
        if not 0 <= y < self.classes:
            raise Unfit(f"its label {y} is not in 0 ... {self.classes - 1}: data.classes={self.classes}")
        return int(y)


def _identity(path: Path) -> list[Any]:
    """What changes when the data at a path do: size and time of a file; of a folder, the times of the folders in it, two
    deep, which change as files come and go."""
    try:
        state = path.stat()
        if stat.S_ISREG(state.st_mode):
            return [str(path), state.st_size, state.st_mtime_ns]
        folders = [path, *_inside(path)]
        folders += [inner for folder in folders[1:] for inner in _inside(folder)]
        return [str(path), *([str(folder), folder.stat().st_mtime_ns] for folder in folders)]
    except OSError as error:
        raise GenlabError(f"cannot read data.source.path={path} ({error.strerror})") from None


def _inside(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry) for entry in entries if entry.is_dir())
