"""How weights move: the optimizer with its warm-up and clipping, and the running average that is sampled from."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer


class Optimization:
    """An optimizer whose learning rate rises linearly over `warmup_images` and whose gradients are clipped by norm."""

    def __init__(
        self, algorithm: Callable[..., Optimizer], lr: float, warmup_images: int = 0, clip_norm: float | None = None
    ):
        self.algorithm, self.lr = algorithm, lr
        self.warmup_images, self.clip_norm = warmup_images, clip_norm

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimizer over these parameters."""
        return self.algorithm(parameters, lr=self.lr)

    def rate(self, images_seen: int) -> float:
        """lr · min(1, images_seen / warmup_images): a function of progress alone, so nothing is lost on resuming."""
        return self.lr * min(1.0, images_seen / self.warmup_images) if self.warmup_images else self.lr

    def clip(self, optimizer: Optimizer) -> None:
        """Scale this optimizer's gradients down to `clip_norm`, if they are longer."""
        if self.clip_norm is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)


class Averaging:
    """θ̄ ← d θ̄ + (1 - d) θ after every update; with `ramp`, d = min(decay, (1 + n)/(10 + n)) at update n.

    The ramp is that of score-SDE and its descendants; DDPM has none.
    """

    def __init__(self, decay: float, ramp: bool):
        self.decay, self.ramp = decay, ramp

    def at(self, n: int) -> float:
        """The decay of update n = 0, 1, ..."""
        return min(self.decay, (1 + n) / (10 + n)) if self.ramp else self.decay
