"""Scores during training, at a cadence of images with the averaged weights, and the best checkpoint by one of them."""

import math
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch

from genlab.better import badness
from genlab.callbacks.budget import Clock, due
from genlab.callbacks.checkpoint import Checkpoint
from genlab.callbacks.ema import EMA
from genlab.callbacks.history import History
from genlab.config import near
from genlab.errors import GenlabError
from genlab.evaluation.evaluator import Score
from genlab.module import GenerativeModule
from genlab.scoring import Scoring


class Interrupted(Exception):
    """A signal came while samples were scored."""


class Evaluations(L.Callback):
    """eval/* in the history, of n samples that are always of the same noise; every rank draws and scores its share.

    Training goes on as if nothing had happened: its random numbers are keyed by the batch. A signal ends the scoring at
    once, and that point of the curve is then missing in the resumed run.
    """

    def __init__(
        self,
        scoring: Scoring,
        n: int,
        monitor: str | None,
        every: int,
        batch: int,
        ema: EMA,
        clock: Clock,
        checkpoint: Checkpoint,
        history: History | None,
        signalled: Callable[[], bool],
    ):
        self.scoring, self.n, self.monitor, self.every, self.batch = scoring, n, monitor, every, batch
        self.ema, self.clock, self.checkpoint, self.history, self.signalled = ema, clock, checkpoint, history, signalled

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        if not due(module.images_seen, self.batch, self.every):
            return
        started = time.perf_counter()

        def between() -> None:
            if trainer.world_size == 1 and self.signalled():  # the ranks of several stop after the batch, together
                raise Interrupted

        try:
            with self.ema.applied(), torch.no_grad():
                scores = self.scoring.evaluator.quick(module, self.n, between)
        except Interrupted:
            return
        finally:
            module.train()
            self.clock.mark()
        if self.history is not None:
            row = {f"eval/{name}": score.row["value"] for name, score in scores.items()}
            self.history.write(module, {**row, "eval/seconds": time.perf_counter() - started})
            self._keep(module, scores)
            self.clock.mark()

    def _keep(self, module: GenerativeModule, scores: dict[str, Score]) -> None:
        """A checkpoint, if this is the best by now."""
        name = self.monitor or next(iter(scores))
        if name not in scores:
            raise GenlabError(f"evaluation.monitor={name}{near(name, list(scores))}; there is {', '.join(scores)}")
        best, value = self.checkpoint.best, scores[name].row["value"]
        if math.isnan(value):
            return
        if (
            best is None
            or best["metric"] != name
            or badness(value, scores[name].better) < badness(best["value"], scores[name].better)
        ):
            self.checkpoint.save_best(module, name, value)
