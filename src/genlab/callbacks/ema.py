"""The running average of the weights that sampling uses."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import lightning as L
import torch
from torch import nn

from genlab.module import GenerativeModule


class EMA(L.Callback):
    """Shadow copies of `module.averaged`, moved after every batch; the raw weights are never replaced for saving."""

    def __init__(self, module: GenerativeModule):
        self.rule = module.averaging
        self.live = [module.get_submodule(name) for name in module.averaged]
        self.shadow = nn.ModuleDict(
            {name.replace(".", "/"): deepcopy(live) for name, live in zip(module.averaged, self.live, strict=True)}
        ).requires_grad_(False)
        self.updates = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.shadow.to(pl_module.device)
        # listed once: walking the modules for every batch would cost as much as the average itself
        self.weights = [p.data for p in self.shadow.parameters()], [p.data for m in self.live for p in m.parameters()]
        self.buffers = list(zip(self.shadow.buffers(), (b for m in self.live for b in m.buffers()), strict=True))

    def on_train_batch_end(self, *_: Any) -> None:
        shadow, live = self.weights
        torch._foreach_lerp_(shadow, live, 1 - self.rule.at(self.updates))  # pyright: ignore[reportPrivateImportUsage]
        self.updates += 1
        for theirs, ours in self.buffers:  # running statistics are averages already
            theirs.copy_(ours)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the module carries the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for shadow, live in zip(self.shadow.values(), self.live, strict=True):
            for s, p in zip(shadow.parameters(), live.parameters(), strict=True):
                s.data, p.data = p.data, s.data
            for s, p in zip(shadow.buffers(), live.buffers(), strict=True):
                s.data, p.data = p.data, s.data

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"updates": self.updates, "weights": self.shadow.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.shadow.load_state_dict(state["weights"])
