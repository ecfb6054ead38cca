"""Errors whose own words name no remedy, in words that do."""

import torch
from omegaconf import DictConfig

from genlab import processes
from genlab.errors import GenlabError
from genlab.run import Run

BETWEEN_RANKS = ("gloo", "nccl", "connection", "timed out", "timeout")


def explained(error: BaseException, options: DictConfig, run: Run, others: list[processes.Popen]) -> BaseException:
    """The error itself, or one line in its place; `options` are those of the trainer, `others` the other ranks."""
    text = str(error).lower()
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        parts = 2 * options.accumulate
        return GenlabError(
            f"out of memory with trainer.batch={options.batch}: the same command with trainer.accumulate={parts} learns from "
            f"the same batches in {parts} parts and goes on (a lower evaluation.batch, if it was drawing); {run.last_good}"
        )
    if others and isinstance(error, RuntimeError) and any(word in text for word in BETWEEN_RANKS):
        waited = f"a rank did not answer within trainer.timeout={options.timeout:g} s"
        return GenlabError(f"{processes.lost(others) or waited}, so that all were stopped; {run.last_good}")
    return error
