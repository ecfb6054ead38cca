"""Progress in images seen: the one unit that is fair to every family."""

import time
from typing import Any

import lightning as L
import torch

from genlab.data.source import Batch
from genlab.module import GenerativeModule
from genlab.noise import key


def due(images_seen: int, batch: int, every: int) -> bool:
    """Whether the batch that ended at `images_seen` crossed a multiple of `every`; 0 is never."""
    return every > 0 and images_seen // every > (images_seen - batch) // every


class Budget(L.Callback):
    """Counts real images, and keys the random numbers of a batch by (seed, images seen, rank)."""

    def __init__(self, seed: int, batch: int):
        self.seed, self.batch = seed, batch

    def on_train_batch_start(self, trainer: L.Trainer, module: GenerativeModule, batch: Batch, batch_idx: int) -> None:  # pyright: ignore
        seed = key(self.seed, module.images_seen, trainer.global_rank)
        # torch.manual_seed formats a stack trace for the devices that there are not, which costs more than a small network
        if module.device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        module.images_seen += self.batch


class Clock(L.Callback):
    """Seconds spent on training itself: whoever does something else calls `mark` when it is done."""

    def __init__(self):
        self.seconds = 0.0
        self.mark()

    def mark(self) -> None:
        self.since = time.perf_counter()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.mark()

    def on_train_batch_end(self, *_: Any) -> None:
        now = time.perf_counter()
        self.seconds += now - self.since
        self.since = now
