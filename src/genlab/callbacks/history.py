"""history.jsonl: the mean of every loss term at a cadence of images, and its copy in the tracker."""

import math
import sys
from typing import Any

import lightning as L
import torch
from torch import Tensor

from genlab.callbacks.budget import Clock, due
from genlab.errors import GenlabError
from genlab.module import GenerativeModule
from genlab.run import Run
from genlab.tracking import Tracker


class Means:
    """Running means of named scalars, kept on their device so that adding one waits for nothing."""

    def __init__(self):
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, terms: dict[str, Tensor]) -> None:
        for name, term in terms.items():
            self.sums[name] = self.sums[name] + term.detach() if name in self.sums else term.detach()
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self, prefix: str) -> dict[str, float]:
        """The means since the last call, in one transfer."""
        if not self.sums:
            return {}
        values = torch.stack([v.float() for v in self.sums.values()]).tolist()
        means = {f"{prefix}/{k}": v / self.counts[k] for k, v in zip(self.sums, values, strict=True)}
        self.sums, self.counts = {}, {}
        return means


class History(L.Callback):
    """Writes the training curves, and stops a run whose loss is no longer a number."""

    def __init__(self, run: Run, tracker: Tracker, clock: Clock, batch: int, every: int, start: int):
        self.run, self.tracker, self.clock = run, tracker, clock
        self.batch, self.every = batch, every
        self.means = Means()
        self.since = (start, clock.seconds)
        self.warned = False

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: GenerativeModule,
        outputs: dict[str, Tensor],
        *_: Any,  # pyright: ignore
    ) -> None:
        self.means.add({**outputs, **module.grad_norms})
        if due(module.images_seen, self.batch, self.every) or trainer.is_last_batch:
            row = self.means.take("train")
            images, seconds = module.images_seen - self.since[0], self.clock.seconds - self.since[1]
            if seconds > 0:
                row["train/images_per_second"] = images / seconds
            self.since = (module.images_seen, self.clock.seconds)
            self._warn(module, row)
            self.write(module, row)
            lost = [name for name in module.minimized if not math.isfinite(row.get(f"train/{name}", 0.0))]
            if lost:
                raise GenlabError(
                    f"train/{lost[0]} is {row[f'train/{lost[0]}']} at {module.images_seen} images: try a lower optimizer.lr "
                    f"or optimizer.clip_norm=1; the last good checkpoint is in {self.run.checkpoints}"
                )

    def _warn(self, module: GenerativeModule, row: dict[str, float]) -> None:
        """Print a warning of the module's the first time, and record it every time."""
        warning = module.warning({name.removeprefix("train/"): value for name, value in row.items()})
        if warning is not None:
            row["train/alarm"] = 1.0
            if not self.warned:
                print(f"genlab: warning at {module.images_seen} images: {warning}", file=sys.stderr)
            self.warned = True

    def write(self, module: GenerativeModule, row: dict[str, float]) -> None:
        """One line, in the file and in the tracker."""
        row = {"images_seen": module.images_seen, "seconds": self.clock.seconds, **row}
        self.run.append("history.jsonl", row)
        self.tracker.log(row)
