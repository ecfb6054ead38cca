"""Signals: the first ends the run at a batch boundary with a checkpoint, the second at once."""

import signal
from types import FrameType
from typing import Any

import lightning as L

from genlab.callbacks.checkpoint import Checkpoint
from genlab.module import GenerativeModule


class Preempted(Exception):
    """A signal asked the run to stop, and its checkpoint is written."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class Guard(L.Callback):
    """Turns SIGINT and SIGTERM into a checkpoint and Preempted."""

    def __init__(self, checkpoint: Checkpoint):
        self.checkpoint, self.signum = checkpoint, 0
        self.before = {signum: signal.signal(signum, self._note) for signum in (signal.SIGINT, signal.SIGTERM)}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Once more: Lightning has put its own SIGTERM handler over ours, which saves nothing and exits with 0."""
        for signum in self.before:
            if not self.signum:
                signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signum, signal.SIG_DFL if signum == signal.SIGTERM else signal.default_int_handler)

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        stop = bool(self.signum)
        if trainer.world_size > 1:  # every rank leaves at the same batch
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            if trainer.is_global_zero:
                self.checkpoint.save(trainer, module)
            raise Preempted(self.signum or signal.SIGTERM)

    def release(self) -> None:
        """Give the signals back to whoever had them."""
        for signum, handler in self.before.items():
            signal.signal(signum, handler)

    def check(self) -> None:
        """Raise Preempted between pieces of work that are not training, whose checkpoint is written already."""
        if self.signum:
            raise Preempted(self.signum)
