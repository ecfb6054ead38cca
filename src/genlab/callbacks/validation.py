"""The loss on held-out data at a cadence of images, with the averaged weights and always the same random numbers."""

from typing import Any

import lightning as L
import torch

from genlab.callbacks.budget import Clock, due
from genlab.callbacks.ema import EMA
from genlab.callbacks.history import History, Means
from genlab.data.loader import SequentialLoader
from genlab.data.source import Batch
from genlab.module import GenerativeModule
from genlab.noise import key


class Validation(L.Callback):
    """val/* in the history. Not Lightning's own loop, whose cadence starts anew whenever a run is resumed."""

    def __init__(self, data: Batch, history: History, ema: EMA, clock: Clock, seed: int, batch: int, every: int):
        self.data, self.history, self.ema, self.clock = data, history, ema, clock
        self.seed, self.batch, self.every = seed, batch, every
        self.last: dict[str, float] = {}

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        final = trainer.is_last_batch and module.judged_by is not None
        if not final and not due(module.images_seen, self.batch, self.every):
            return
        means = Means()
        module.eval()
        with self.ema.applied(), torch.no_grad():
            for k, batch in enumerate(SequentialLoader(self.data, self.batch)):
                torch.manual_seed(key(self.seed, "validation", k))
                moved = module.transfer_batch_to_device(batch, module.device, 0)
                with trainer.precision_plugin.forward_context():
                    means.add(module.validation_step(moved, k))
        means.add(module.validated())
        module.train()
        self.last = means.take("val")
        self.history.write(module, self.last)
        self.clock.mark()
