"""The loss on held-out data at a cadence of images, with the averaged weights and always the same random numbers."""

from typing import Any

import lightning as L
import torch

from genlab.callbacks.history import History, Means
from genlab.callbacks.occasion import Occasion
from genlab.data.loader import SequentialLoader
from genlab.data.source import Batch
from genlab.module import GenerativeModule
from genlab.noise import key


class Validation(Occasion):
    """val/* in the history. Not Lightning's own loop, whose cadence starts anew whenever a run is resumed."""

    prefix = "val/"

    def __init__(self, data: Batch, history: History | None, seed: int, *kept: Any):
        super().__init__(*kept)
        self.data, self.history, self.seed = data, history, seed
        self.last: dict[str, float] = {}

    def wanted(self, module: GenerativeModule) -> bool:
        return super().wanted(module) or (self.ends(module) and module.judged_by is not None)

    def act(self, trainer: L.Trainer, module: GenerativeModule) -> None:
        means = Means()
        with self.averaged(module) as averaged:
            if self.history is None:
                return
            averaged.eval()
            for k, batch in enumerate(SequentialLoader(self.data, self.batch)):
                torch.manual_seed(key(self.seed, "validation", k))
                moved = averaged.transfer_batch_to_device(batch, averaged.device, 0)
                with trainer.precision_plugin.forward_context():
                    means.add(averaged.validation_step(moved, k), len(moved.x))
        means.add(averaged.validated())
        self.last = means.take("val")
        self.history.write(module, self.last, final=not super().wanted(module))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "last": self.last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.last = state_dict["last"]
