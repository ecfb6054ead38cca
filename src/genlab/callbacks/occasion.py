"""What is done between two batches, at a cadence of images."""

import abc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import lightning as L
import torch

from genlab.callbacks.budget import Clock, due
from genlab.callbacks.ema import EMA
from genlab.callbacks.guard import Guard
from genlab.module import GenerativeModule


class Occasion(L.Callback, abc.ABC):
    """Validation, pictures, scores. A signal ends one at once, and the resumed run does it before anything else, so that
    a run that was stopped has the history of one that was not."""

    shared: ClassVar[bool] = False
    """Whether every rank has its part in it; else it is the first one's."""
    prefix: ClassVar[str]
    """How the keys begin that it writes into the history."""

    def __init__(self, guard: Guard, ema: EMA, clock: Clock, batch: int, budget: int, every: int):
        self.guard, self.ema, self.clock = guard, ema, clock
        self.batch, self.budget, self.every = batch, budget, every
        self.done = 0  # after how many images, the last time

    @abc.abstractmethod
    def act(self, trainer: L.Trainer, module: GenerativeModule) -> None:
        """Do it, within `averaged` what takes time; where not every rank acts, the others do no more than enter there."""

    @contextmanager
    def averaged(self, module: GenerativeModule) -> Iterator[GenerativeModule]:
        """The module, which within carries the averaged weights, or its whole copy that does; a signal may be raised."""
        wanted = self.shared or self.guard.leads
        with self.ema.applied(module, wanted) as averaged, self.guard.between_batches(), torch.no_grad():
            yield averaged

    def wanted(self, module: GenerativeModule) -> bool:
        """Whether the batch that has ended is followed by it."""
        return due(module.images_seen, self.batch, self.every)

    def owed(self, module: GenerativeModule) -> bool:
        """Whether it should have been done at this point, and was not."""
        return self.wanted(module) and self.done < module.images_seen

    def ends(self, module: GenerativeModule) -> bool:
        """Whether the batch that has ended was the last."""
        return module.images_seen >= self.budget

    def on_fit_start(self, trainer: L.Trainer, module: GenerativeModule) -> None:  # pyright: ignore
        if self.owed(module):
            self._do(trainer, module)

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        if self.wanted(module):
            self._do(trainer, module)

    def _do(self, trainer: L.Trainer, module: GenerativeModule) -> None:
        try:
            self.act(trainer, module)
        finally:
            module.train()
            self.clock.mark()
        self.done = module.images_seen

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.done = state_dict["done"]
