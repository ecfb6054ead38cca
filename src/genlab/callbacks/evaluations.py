"""Scores during training, at a cadence of images with the averaged weights, and the best checkpoint by one of them."""

import math
import time
from typing import Any

import lightning as L

from genlab.better import badness
from genlab.callbacks.checkpoint import Checkpoint
from genlab.callbacks.history import History
from genlab.callbacks.occasion import Occasion
from genlab.distributed import gathered, ranks
from genlab.errors import GenlabError
from genlab.evaluation.evaluator import Score
from genlab.hints import near
from genlab.module import GenerativeModule
from genlab.scoring import Scoring


class Evaluations(Occasion):
    """eval/* in the history, of n samples that are always of the same noise; every rank draws and scores its share.

    Training goes on as if nothing had happened: its random numbers are keyed by the batch.
    """

    prefix, shared = "eval/", True

    def __init__(
        self,
        scoring: Scoring,
        n: int,
        monitor: str | None,
        checkpoint: Checkpoint,
        history: History | None,
        *kept: Any,
    ):
        super().__init__(*kept)
        self.scoring, self.n, self.monitor = scoring, n, monitor
        self.checkpoint, self.history = checkpoint, history
        if monitor is not None:
            _check(monitor, [name for metric in scoring.metrics.values() for name in metric.better])

    def act(self, trainer: L.Trainer, module: GenerativeModule) -> None:
        started = time.perf_counter()
        self.ema.agree(module)
        with self.averaged(module) as averaged:
            scores = self.scoring.evaluator.quick(averaged, self.n)
        record = None
        if self.history is not None:
            row = {f"eval/{name}": score.row["value"] for name, score in scores.items()}
            self.history.write(module, {**row, "eval/seconds": time.perf_counter() - started})
            record = self._record(scores)
        record = gathered({ranks()[0]: record})[0]  # of which the first rank alone knows
        if record is not None:
            self.checkpoint.save_best(trainer, module, *record)

    def _record(self, scores: dict[str, Score]) -> tuple[str, float] | None:
        """The watched metric and its value, if this is the best by now."""
        name = self.monitor or next(iter(scores))
        _check(name, list(scores))  # one that needs more samples than there are has none
        best, value = self.checkpoint.best, scores[name].row["value"]
        if math.isnan(value):
            return None
        if best is not None and best["metric"] == name:
            better = scores[name].better
            if badness(value, better) >= badness(best["value"], better):
                return None
        return name, value


def _check(monitor: str, names: list[str]) -> None:
    if monitor not in names:
        raise GenlabError(f"evaluation.monitor={monitor}{near(monitor, names)}; there is {', '.join(names)}")
