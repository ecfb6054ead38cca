"""history.jsonl: the mean of every loss term at a cadence of images, and its copy in the tracker."""

import sys
from typing import Any

import lightning as L
import torch
from torch import Tensor

from genlab.callbacks.budget import Clock, due
from genlab.module import GenerativeModule
from genlab.run import Run
from genlab.tracking import Tracker


class Means:
    """Running means of named scalars, kept on their device so that adding one waits for nothing."""

    def __init__(self):
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, terms: dict[str, Tensor], count: int = 1) -> None:
        """One value of each term, the mean of `count`."""
        for name, term in terms.items():
            summand = term.detach() if count == 1 else term.detach() * count
            self.sums[name] = self.sums[name] + summand if name in self.sums else summand
            self.counts[name] = self.counts.get(name, 0) + count

    def now(self, prefix: str) -> dict[str, float]:
        """The means by now, in one transfer."""
        if not self.sums:
            return {}
        values = torch.stack([v.float() for v in self.sums.values()]).tolist()
        return {f"{prefix}/{k}": v / self.counts[k] for k, v in zip(self.sums, values, strict=True)}

    def take(self, prefix: str) -> dict[str, float]:
        """The means since the last call of this."""
        means = self.now(prefix)
        self.sums, self.counts = {}, {}
        return means


class History(L.Callback):
    """Writes the training curves; batches that could not be learned from are counted as `train/nonfinite`, and left out."""

    def __init__(self, run: Run, tracker: Tracker, clock: Clock, batch: int, every: int, start: int):
        self.run, self.tracker, self.clock = run, tracker, clock
        self.batch, self.every = batch, every
        self.means = Means()
        self.since = (start, clock.seconds)
        self.warned = False
        self.nonfinite = 0  # batches since the last line

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.means.sums = {
            name: value.to(pl_module.device) for name, value in self.means.sums.items()
        }  # a checkpoint's

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: GenerativeModule,
        outputs: dict[str, Tensor],
        *_: Any,  # pyright: ignore
    ) -> None:
        if module.nonfinite:
            self.nonfinite += 1
        else:
            self.means.add({**outputs, **module.grad_norms})
        ends = due(module.images_seen, self.batch, self.every)
        if ends or trainer.is_last_batch:
            # a run that is extended goes on with the means, as if it had never ended here
            row = self.means.take("train") if ends else self.means.now("train")
            if self.nonfinite:
                row["train/nonfinite"] = self.nonfinite
                self.nonfinite = 0 if ends else self.nonfinite
            images, seconds = module.images_seen - self.since[0], self.clock.seconds - self.since[1]
            if seconds > 0:
                row["train/images_per_second"] = images / seconds
            self.since = (module.images_seen, self.clock.seconds)
            self._warn(module, row)
            self.write(module, row, final=not ends)

    def _warn(self, module: GenerativeModule, row: dict[str, float]) -> None:
        """Print a warning of the module's the first time, and record it every time."""
        warning = module.warning({name.removeprefix("train/"): value for name, value in row.items()})
        if warning is not None:
            row["train/alarm"] = 1.0
            if not self.warned:
                print(f"genlab: warning at {module.images_seen} images: {warning}", file=sys.stderr)
            self.warned = True

    def write(self, module: GenerativeModule, row: dict[str, float], final: bool = False) -> None:
        """One line, in the file and in the tracker; one that only the end of the run brought about says so."""
        row = {
            "images_seen": module.images_seen,
            "seconds": self.clock.seconds,
            **row,
            **({"final": 1} if final else {}),
        }
        self.run.append("history.jsonl", row)
        self.tracker.log(row)

    def state_dict(self) -> dict[str, Any]:
        means = {"sums": self.means.sums, "counts": self.means.counts}
        return {**means, "nonfinite": self.nonfinite, "warned": self.warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.means.sums, self.means.counts = state_dict["sums"], state_dict["counts"]
        self.nonfinite, self.warned = state_dict["nonfinite"], state_dict["warned"]
