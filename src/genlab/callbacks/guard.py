"""Signals: the first ends the run at a batch boundary with a checkpoint, the second at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L
import torch

from genlab.module import GenerativeModule

ENDING = (signal.SIGINT, signal.SIGTERM)


class Preempted(BaseException):
    """A signal asked the run to stop; no Exception, so that nobody on its way takes it for a failure of his own."""

    def __init__(self, signum: int, at_once: bool = False):
        super().__init__(f"stopped by {signal.Signals(signum).name}" + (", at once" if at_once else ""))
        self.signum, self.at_once = signum, at_once
        self.exit_code = 128 + (signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)


class Guard(L.Callback):
    """Turns signals into Preempted: at once where no batch is in the making, else at the end of that batch.

    Where it is raised between two batches, `Checkpoint` saves. The ranks that do not lead only take note: they leave
    with the first rank, at the end of a batch, or are ended by it. SIGINT or SIGTERM for the second time does not wait.
    `together` is a run in which all ranks have to save: the first, too, waits for the end of a batch.
    """

    def __init__(self, requeue: Sequence[str], leads: bool, together: bool = False):
        self.leads, self.together = leads, together
        self.patient, self.whole = not leads, False
        self.agreed = False  # that all ranks stop at this batch
        self.signum, self.times = 0, 0
        self.requeuing = tuple(getattr(signal, name) for name in requeue)
        self.before = {signum: signal.signal(signum, self._received) for signum in (*ENDING, *self.requeuing)}

    def _received(self, signum: int, frame: FrameType | None) -> None:
        first, self.signum = not self.signum, self.signum or signum
        self.times += signum in ENDING
        if self.times > 1:
            for ending in ENDING:  # for the third time, even Python is not asked
                signal.signal(ending, signal.SIG_DFL)
            raise Preempted(signum, at_once=True)
        if first and not self.patient:
            raise Preempted(signum)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.patient = True

    def on_train_batch_start(self, *_: Any) -> None:
        self.whole = False  # some of the model, its averages and its optimizers may have moved already

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        signum = self.signum
        if (
            trainer.world_size > 1
        ):  # every rank leaves at the same batch, even if the signal is still on its way to this one
            heard = trainer.strategy.reduce(torch.tensor(signum, device=module.device), reduce_op="max")
            signum = signum or int(heard)
        self.whole = True
        if signum:
            self.agreed = True
            raise Preempted(signum)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.patient = not self.leads

    @contextmanager
    def between_batches(self) -> Iterator[None]:
        """Within, the state of training is whole, and a signal ends at once what the first rank does there."""
        patient, self.whole = self.patient, True
        self.patient = self.together or not self.leads
        try:
            if self.signum and not self.patient:
                raise Preempted(self.signum)
            yield
        finally:
            self.patient = patient

    def requeue(self, signum: int) -> None:
        """Put the job back into SLURM's queue, once, if this was the signal for it: as submitit does, or by scontrol."""
        if signum not in self.requeuing:
            return
        self.requeuing = ()
        handler, job = self.before[signum], os.environ.get("SLURM_JOB_ID")
        if callable(handler) and handler is not signal.default_int_handler:
            handler(signum, None)
        elif job is not None:
            array = os.environ.get("SLURM_ARRAY_JOB_ID")
            name = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
            try:
                subprocess.run(["scontrol", "requeue", name], check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"genlab: cannot requeue job {name} ({error}): submit the same command again", file=sys.stderr)

    def release(self) -> None:
        """Give the signals back to whoever had them."""
        for signum, handler in self.before.items():
            signal.signal(signum, handler)
