"""Checkpoints at a cadence of images or of minutes, at the end and when a run is stopped; all that it needs to go on exactly."""

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig

from genlab import __version__
from genlab.callbacks.budget import Clock, due
from genlab.callbacks.ema import EMA
from genlab.callbacks.guard import Guard, Preempted
from genlab.callbacks.occasion import Occasion
from genlab.errors import GenlabError
from genlab.module import GenerativeModule
from genlab.run import Run
from genlab.sharding import divided, full, whole


class Resume(L.Callback):
    """Gives the optimizers their state back, on every rank, and 16-mixed its scale. They exist only now; the weights were
    restored before the fit."""

    def __init__(self, state: dict[str, Any] | None):
        self.state = state

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.state is not None:
            for optimizer, state in zip(trainer.optimizers, self.state["optimizers"], strict=True):
                optimizer.load_state_dict(divided(state, optimizer))
            trainer.precision_plugin.load_state_dict(self.state.get("precision", {}))
        self.state = None


class Checkpoint(L.Callback):
    """Saves raw weights, averages, optimizers and progress; random numbers need no state, they are keyed by it.

    Of `trainer.save_failures` checkpoints in a row that cannot be written the run is only told; one more ends it.
    The first rank writes; where weights are sharded, all ranks come here to put them together.
    """

    def __init__(
        self,
        run: Run,
        ema: EMA,
        clock: Clock,
        guard: Guard,
        options: DictConfig,
        conditions: dict[str, Any],
        state: dict[str, Any] | None,
    ):
        self.run, self.ema, self.clock, self.guard = run, ema, clock, guard
        self.conditions = conditions
        # of which some may be owed when it saves; they need it before it can know them
        self.occasions: list[Occasion] = []
        self.batch, self.every, self.keep = options.batch, options.checkpoint_every, options.keep
        self.seconds, self.tolerated = 60 * options.checkpoint_minutes, options.save_failures
        self.best: dict[str, Any] | None = None if state is None else state["best"]
        self.saved = None if state is None else state["images_seen"]
        self.since, self.failures = time.monotonic(), 0

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        late = self.seconds > 0 and time.monotonic() - self.since > self.seconds
        if self.guard.together and self.seconds > 0:
            late = trainer.strategy.reduce_boolean_decision(late, all=False)
        if not (late or due(module.images_seen, self.batch, self.every) or trainer.is_last_batch):
            return
        self._check(module)
        self.since = time.monotonic()
        self._tolerant(trainer, module, lambda: self.save(trainer, module))
        self.clock.mark()

    def on_exception(self, trainer: L.Trainer, module: GenerativeModule, exception: BaseException) -> None:  # pyright: ignore
        """What goes wrong between two batches costs none of them, unless it takes the shards of ranks that are elsewhere."""
        at_once = isinstance(exception, Preempted) and exception.at_once
        if not self.guard.whole or at_once or (self.guard.together and not self.guard.agreed):
            return
        try:
            self._check(module)
            self.save(trainer, module)
        except GenlabError as error:  # the user is told of the exception itself, too
            print(f"genlab: {error}", file=sys.stderr)

    def save(self, trainer: L.Trainer, module: GenerativeModule) -> None:
        """Write one now, unless this very state is written already."""
        if self.saved != module.images_seen:
            optimizers = [optimizer.state_dict() for optimizer in trainer.optimizers]  # pyright: ignore
            callbacks = {c.state_key: state for c in trainer.callbacks if (state := c.state_dict())}  # pyright: ignore
            with self.ema.raw():
                state = {**self._state(module), "optimizers": optimizers, "callbacks": callbacks}
                state["precision"] = trainer.precision_plugin.state_dict()  # the scale of 16-mixed
                state["owing"] = any(occasion.owed(module) for occasion in self.occasions)
                state = whole(state, self.guard.leads)
                self._write(trainer, lambda: self.run.save_checkpoint(state, module.images_seen, self.keep))
            self.saved = module.images_seen

    def _tolerant(self, trainer: L.Trainer, module: GenerativeModule, save: Callable[[], object]) -> bool:
        """Whether it could be saved; raises GenlabError for one failure too many, and for any at the end."""
        try:
            save()
        except GenlabError as error:
            self.failures += 1
            if trainer.is_last_batch or self.failures > self.tolerated:
                raise
            if self.guard.leads:
                print(f"genlab: warning at {module.images_seen} images: {error}", file=sys.stderr)
            return False
        self.failures = 0
        return True

    def _write(self, trainer: L.Trainer, write: Callable[[], object]) -> None:
        """By the first rank; where others have come here with it, they hear how it went."""
        failed = None
        if self.guard.leads:
            try:
                write()
            except GenlabError as error:
                failed = error
        if self.guard.together and trainer.strategy.reduce_boolean_decision(failed is not None, all=False):
            failed = failed or GenlabError("the first rank could not write a checkpoint")
        if failed is not None:
            raise failed

    def save_best(self, trainer: L.Trainer, module: GenerativeModule, metric: str, value: float) -> None:
        """Write one that is the best so far by a metric; it is for scoring, and nothing goes on from it."""
        self._check(module)
        best = {"metric": metric, "value": value, "images_seen": module.images_seen}
        state = whole({**self._state(module), "best": best}, self.guard.leads)
        write = partial(self._write, trainer, lambda: self.run.save_best(state, module.images_seen))
        if self._tolerant(trainer, module, write):  # what is nowhere is not the best that there is
            self.best = best

    def _check(self, module: GenerativeModule) -> None:
        if not torch.isfinite(full(torch.nn.utils.get_total_norm(list(module.parameters())))):
            raise GenlabError(
                f"the weights are no longer finite at {module.images_seen} images: try a lower optimizer.lr; "
                f"{self.run.last_good}"
            )

    def _state(self, module: GenerativeModule) -> dict[str, Any]:
        return {
            "genlab": __version__,
            "images_seen": module.images_seen,
            "seconds": self.clock.seconds,
            "state_dict": module.state_dict(),
            "averages": self.ema.state(),
            "best": self.best,
            "conditions": self.conditions,
        }
