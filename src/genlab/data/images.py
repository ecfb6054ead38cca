"""Real images of a hub data set or a path, converted and decoded once, served from the cache."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from rich.console import Console
from rich.progress import Progress

from genlab.data.cache import Prepared, mapped
from genlab.data.identity import identity
from genlab.data.pixels import Unfit, pixels, resampling
from genlab.data.rows import Columns, Keep, Part, Row, base, chosen, sliced
from genlab.data.texts import Captions, packed
from genlab.data.writing import Block, Blocks, Manifest
from genlab.errors import GenlabError

FORMAT = 2  # of what lies in the cache: counted up when the same configuration comes to mean other bytes
LAYOUT = 1  # the same of what a path is read as
BLOCK = 128  # images decoded at a time: of the largest JPEGs, a hundred megabytes


class Images(Prepared):
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
        caption: str | None = None,
        splits: dict[str, str] | None = None,
        crop: int | None = None,
        resample: str | None = None,
        on_bad: str = "error",
    ):
        super().__init__()
        if hub is None and path is None:
            raise GenlabError(f"{name} lies nowhere yet: set data.source.path to its folder, .zip, .parquet or .npz")
        if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
            raise GenlabError(
                f"data.shape={list(shape)}: 1 or 3 channels, height and width are needed, as in [3,64,64]"
            )
        if on_bad not in ("error", "skip"):
            raise GenlabError(f"data.source.on_bad={on_bad}: there is error and skip")
        if (classes or 0) < 0 or (crop or 0) < 0:
            key, value = ("classes", classes) if (classes or 0) < 0 else ("source.crop", crop)
            raise GenlabError(f"data.{key}={value}: at least 0 is needed")
        self.called, self.shape, self.classes = name, tuple(shape), classes or 0
        self.hub, self.config, self.revision = hub, config, revision
        self.path = None if path is None else Path(path).expanduser().absolute()
        self.columns = Columns(image, label, self.classes > 0, caption)
        self.splits = splits or {"train": "train", "test": "test"}
        self.crop, self.resample, self.skips = crop, resample, on_bad == "skip"
        resampling(resample)
        origin = [hub, config, revision] if self.path is None else [*identity(self.path), LAYOUT]
        transform = [self.shape, classes, crop, resample, on_bad, image, label, caption, FORMAT]
        key = hashlib.sha256(json.dumps([origin, transform, self.splits]).encode()).hexdigest()[:10]
        self.folder = Path(cache).expanduser() / "data" / f"{name}-{key}"

    @property
    def name(self) -> str:
        """What is computed from the data goes by it, so that of a path, which may hold anything, the content is part of it."""
        if self.path is None:
            return self.called
        return f"{self.called}-{self.prepare('train')['files']['train.x']['sha256'][:8]}"

    @property
    def transform(self) -> str:
        """How a stored image becomes (C, H, W) uint8."""
        cut = "uncropped" if self.crop is None else f"central square of {self.crop or 'the shorter side'}"
        return f"{cut}, {self.resample or 'not resized'}, {'x'.join(map(str, self.shape))}"

    def captions(self, split: str) -> Captions:
        """The captions of a split's rows; raises GenlabError if data.source.caption names none."""
        if self.columns.caption is None:
            raise GenlabError(f"{self.called} has no captions: set data.source.caption to a column of text, or to auto")
        manifest = self.prepare(split)
        return Captions(*(mapped(self.folder, f"{split}.{name}", manifest) for name in ("text", "lengths")))

    def sha256(self, split: str) -> str:
        """The hash of the hashes of a split's files, as the manifest has them."""
        files = self.prepare(split)["files"]
        return hashlib.sha256(json.dumps({name: files[name]["sha256"] for name in sorted(files)}).encode()).hexdigest()

    def _make(self, split: str) -> tuple[Manifest, Blocks]:
        wanted = self.splits[split]
        if self.path is not None:
            from genlab.data.ingest import from_path

            source = str(self.path)
            part, keep, meant = chosen(from_path(self.path, self.columns), split, self.splits, source)
        else:
            from genlab.data.tables import from_hub

            source, meant = str(self.hub), wanted
            part = from_hub(source, self.config, self.revision, base(wanted), self.columns)
            keep = sliced(part.count, wanted)
        manifest = {
            "source": source,
            "revision": part.revision,
            "split": meant,
            "transform": {"shape": self.shape, "crop": self.crop, "resample": self.resample},
            "classes": part.names,
            "pillow": PIL.__version__,
        }
        return manifest, partial(self._blocks, part, keep, f"{self.folder.name} {split}")

    def _blocks(self, part: Part, keep: Keep, what: str, done: int) -> Iterator[Block]:
        rows = islice(part.rows(keep), done, None)
        bar = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
        task = bar.add_task(what, total=sum(map(keep, range(part.count))), completed=done)
        # Pillow decodes and resizes outside of the interpreter's lock
        with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
            while block := list(islice(rows, BLOCK)):
                made = list(pool.map(self._converted, block))
                bad = [f"{row.where}: {told}" for row, told in zip(block, made, strict=True) if isinstance(told, str)]
                if bad and not self.skips:
                    raise GenlabError(f"{bad[0]} (data.source.on_bad=skip leaves such rows out)")
                yield Block(len(block), self._arrays([result for result in made if not isinstance(result, str)]), bad)
                bar.advance(task, len(block))

    def _arrays(self, good: list[tuple[np.ndarray, int, str]]) -> dict[str, np.ndarray]:
        if not good:
            return {}
        images, labels, captions = zip(*good, strict=True)
        y = {"y": np.array(labels, np.int64)} if self.classes else {}
        return {"x": np.stack(images), **y, **(packed(captions) if self.columns.caption else {})}

    def _converted(self, row: Row) -> tuple[np.ndarray, int, str] | str:
        """The image (C, H, W), label and caption of a row, or what is wrong with it."""
        try:
            image = pixels(row.image, self.shape, self.crop, self.resample)
            return image, self._label(row.label), self._caption(row.caption)
        except Unfit as error:
            return str(error)

    def _caption(self, caption: Any) -> str:
        if not self.columns.caption:
            return ""
        if caption is None or caption == "":
            raise Unfit("it has no caption")
        if not isinstance(caption, str):
            raise Unfit(f"its caption {caption!r:.60} is no text")
        try:
            caption.encode()
        except UnicodeEncodeError:
            raise Unfit(f"its caption {caption!r:.60} has half a character, which is no Unicode") from None
        return caption

    def _label(self, y: Any) -> int:
        if not self.classes:
            return 0
        if not isinstance(y, int | np.integer):
            raise Unfit("it has no label" if y is None else f"its label {y!r} is no integer")
        if not 0 <= y < self.classes:
            raise Unfit(f"its label {y} is not in 0 ... {self.classes - 1}: data.classes={self.classes}")
        return int(y)
