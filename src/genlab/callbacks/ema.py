"""The running averages of the weights that sampling uses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

from genlab import distributed
from genlab.averaging import named
from genlab.module import GenerativeModule
from genlab.sharding import FullySharded, local, whole


class EMA(L.Callback):
    """Shadow copies of `module.averaged`, moved after every batch; the raw weights are never replaced for saving.

    Of several averages the first, `ema`, is the one that is applied; all of them are in the checkpoint. `make` gives
    another module like this one, for the averages of one that is sharded.
    """

    def __init__(self, module: GenerativeModule, batch: int, make: Callable[[], GenerativeModule]):
        self.rules, self.batch, self.make = named(module.averaging), batch, make
        self.live = [module.get_submodule(name) for name in module.averaged]
        self.shadows = {
            name: nn.ModuleDict(
                {part.replace(".", "/"): deepcopy(module.get_submodule(part)) for part in module.averaged}
            )
            for name in self.rules
        }
        for shadow in self.shadows.values():
            shadow.requires_grad_(False)
        self.swapped = self.sharded = False
        # what a sharded module is copied to, on the CPU while it is not used
        self.spare: GenerativeModule | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # listed once: walking the modules for every batch would cost as much as the average itself
        self.weights = [local(p.data) for m in self.live for p in m.parameters()]
        self.sharded = isinstance(trainer.strategy, FullySharded)
        buffers = [b for m in self.live for b in m.buffers()]
        self.averages, self.buffers, self.normalized = [], [], []
        for name, shadow in self.shadows.items():
            if isinstance(trainer.strategy, FullySharded):
                for part in shadow.children():
                    trainer.strategy.shard(part)
            shadow.to(pl_module.device)
            self.averages.append((self.rules[name], [local(p.data) for p in shadow.parameters()]))
            normalized = [m for m in shadow.modules() if spectral(m)]
            own = {id(b) for m in normalized for b in m.get_submodule("parametrizations.weight").buffers()}
            self.buffers += [pair for pair in zip(shadow.buffers(), buffers, strict=True) if id(pair[0]) not in own]
            self.normalized += normalized

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        seen = module.images_seen + self.batch  # Budget, whose turn is next, counts this batch
        for rule, average in self.averages:
            torch._foreach_lerp_(average, self.weights, 1 - rule.at(seen, self.batch))  # pyright: ignore
        for theirs, ours in self.buffers:  # running statistics are averages already
            theirs.copy_(ours)
        with torch.no_grad():
            for layer in self.normalized:
                layer.weight  # noqa: B018 - a power iteration, for the largest singular value is the average's own

    @contextmanager
    def applied(self, module: GenerativeModule, wanted: bool = True) -> Iterator[GenerativeModule]:
        """The module, which within carries the averaged weights; of a sharded one a whole copy where it is wanted, for which
        all ranks have to come here, since ranks that draw or score do not take their steps together."""
        if self.sharded:
            copy = self._copy(module, wanted)
            try:
                yield copy or module
            finally:
                if copy is not None:
                    copy.to("cpu")
            return
        self._swap()
        try:
            yield module
        finally:
            self._swap()

    def place(self, device: torch.device) -> None:
        """Move the averages there, beside a module that is not fitted any more."""
        for shadow in self.shadows.values():
            shadow.to(device)

    def agree(self, module: GenerativeModule) -> None:
        """Give every rank the running statistics of the first, which are those of its checkpoints; all ranks come here."""
        distributed.share([*module.buffers(), *(b for shadow in self.shadows.values() for b in shadow.buffers())])

    def _copy(self, module: GenerativeModule, wanted: bool) -> GenerativeModule | None:
        average = {name.replace("/", "."): value for name, value in self.shadows["ema"].state_dict().items()}
        state = whole(module.state_dict() | average, keep=wanted)
        if not wanted:
            return None
        self.spare = self.spare or self.make()
        self.spare.load_state_dict(state)
        self.spare.images_seen = module.images_seen
        return self.spare.to(module.device)

    @contextmanager
    def raw(self) -> Iterator[None]:
        """Within, the module carries the raw weights, and the shadows the averaged ones, wherever this is called."""
        if not self.swapped:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        self.swapped = not self.swapped
        for shadow, live in zip(self.shadows["ema"].values(), self.live, strict=True):
            for s, p in zip(shadow.parameters(), live.parameters(), strict=True):
                s.data, p.data = p.data, s.data
            for s, p in zip(shadow.buffers(), live.buffers(), strict=True):
                s.data, p.data = p.data, s.data

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it: the state dict of each average."""
        return {name: shadow.state_dict() for name, shadow in self.shadows.items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, weights in state.items():
            self.shadows[name].load_state_dict(weights)


def spectral(module: nn.Module) -> bool:
    """Whether its weight is divided by its largest singular value, of whose power iteration each weight has its own vectors."""
    if not parametrize.is_parametrized(module, "weight"):
        return False
    return any(isinstance(p, _SpectralNorm) for p in module.parametrizations["weight"])  # pyright: ignore
