"""Checkpoints at a cadence of images and at the end; all that a run needs to go on exactly."""

from typing import Any

import lightning as L
import torch

from genlab import __version__
from genlab.callbacks.budget import Clock, due
from genlab.callbacks.ema import EMA
from genlab.errors import GenlabError
from genlab.module import GenerativeModule
from genlab.run import Run


class Checkpoint(L.Callback):
    """Saves raw weights, averages, optimizers and progress; random numbers need no state, they are keyed by it."""

    def __init__(
        self, run: Run, ema: EMA, clock: Clock, batch: int, every: int, keep: int, state: dict[str, Any] | None
    ):
        self.run, self.ema, self.clock = run, ema, clock
        self.batch, self.every, self.keep, self.state = batch, every, keep, state
        self.best: dict[str, Any] | None = None if state is None else state["best"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the optimizers; they exist only now. The weights were restored before the fit."""
        if self.state is not None:
            for optimizer, state in zip(trainer.optimizers, self.state["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.state = None

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        if due(module.images_seen, self.batch, self.every) or trainer.is_last_batch:
            self.save(trainer, module)
            self.clock.mark()

    def save(self, trainer: L.Trainer, module: GenerativeModule) -> None:
        """Write one now; raises GenlabError rather than keep weights that are not numbers."""
        self._check(module)
        optimizers = [optimizer.state_dict() for optimizer in trainer.optimizers]
        self.run.save_checkpoint({**self._state(module), "optimizers": optimizers}, module.images_seen, self.keep)

    def save_best(self, module: GenerativeModule, metric: str, value: float) -> None:
        """Write one that is the best so far by a metric; it is for scoring, and nothing goes on from it."""
        self._check(module)
        self.best = {"metric": metric, "value": value, "images_seen": module.images_seen}
        self.run.save_best(self._state(module), module.images_seen)

    def _check(self, module: GenerativeModule) -> None:
        if not torch.isfinite(torch.nn.utils.get_total_norm(list(module.parameters()))):
            raise GenlabError(
                f"the weights are no longer finite at {module.images_seen} images: try a lower optimizer.lr; "
                f"the last good checkpoint is in {self.run.checkpoints}"
            )

    def _state(self, module: GenerativeModule) -> dict[str, Any]:
        return {
            "genlab": __version__,
            "images_seen": module.images_seen,
            "seconds": self.clock.seconds,
            "state_dict": module.state_dict(),
            "averages": self.ema.state(),
            "best": self.best,
        }
