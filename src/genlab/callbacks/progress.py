"""How far a run is: a bar for a person, a file for the sweep that launched it."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from genlab.finished import tell
from genlab.module import GenerativeModule


class Report(L.Callback):
    """A progress bar on a terminal, and at most twice a second the JSON file that $GENLAB_REPORT names."""

    def __init__(self, run_dir: Path, name: str, max_images: int):
        self.run_dir, self.name, self.max_images = run_dir, name, max_images
        self.last = 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bar = Progress(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not _interactive(),
        )
        self.task = self.bar.add_task(name, total=max_images)

    def phase(self, phase: str, images_seen: int, objective: float | None = None, why: str | None = None) -> None:
        """Say what the run is doing now."""
        self.bar.update(self.task, description=f"{self.name} {phase}", completed=images_seen)
        tell(self.run_dir, phase, images_seen, self.max_images, objective, why)

    def on_train_start(self, trainer: L.Trainer, module: GenerativeModule) -> None:  # pyright: ignore
        self.bar.start()
        self.phase("training", module.images_seen)

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        now = time.perf_counter()
        if now - self.last > 0.5:
            self.last = now
            self.phase("training", module.images_seen)

    def stop(self) -> None:
        self.bar.stop()


def _interactive() -> bool:
    return sys.stderr.isatty() and "SLURM_JOB_ID" not in os.environ
