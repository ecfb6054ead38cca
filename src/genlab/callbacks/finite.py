"""Batches that cannot be learned from, and how many of them in a row end a run."""

from typing import Any

import lightning as L

from genlab.errors import GenlabError
from genlab.module import GenerativeModule
from genlab.run import Run


class Finite(L.Callback):
    """Ends a run after more than `limit` batches in a row whose loss or gradient is no number.

    The module itself has moved nothing for them: neither weights nor optimizers nor running statistics. Those for which
    16-mixed still halves the scale of its losses are not among them.
    """

    def __init__(self, run: Run, limit: int):
        self.run, self.limit = run, limit
        self.in_a_row = self.total = 0

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        if not module.nonfinite:
            self.in_a_row = 0
            return
        self.total += 1
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and scaler.get_scale() > 1:  # 16-mixed halves it until gradients fit into float16
            return
        self.in_a_row += 1
        if self.in_a_row > self.limit:
            raise GenlabError(
                f"the loss or its gradient is no number at {module.images_seen} images, for {self.in_a_row} batches in a "
                f"row, in {'; '.join(module.nonfinite)}: try a lower optimizer.lr or optimizer.clip_norm=1; "
                f"{self.run.last_good}"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"in_a_row": self.in_a_row, "total": self.total} if self.total else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.in_a_row, self.total = state_dict["in_a_row"], state_dict["total"]
