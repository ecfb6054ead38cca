"""How weights move: the optimizer with its warm-up and clipping."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.errors import GenlabError
from genlab.schedules import Schedule
from genlab.sharding import full, local


class Optimization:
    """An optimizer whose learning rate rises linearly over `warmup_images`, and may fall again, and whose gradients are
    clipped by norm. `schedule` is a factor of the rate, and `beta2` stands for Adam's.

    Gradients that are no numbers move nothing. With `replace_nan` they do, but for what overflows in 16-mixed: nan becomes 0 and ±∞ becomes ±10⁵, as in the
    code of Karras et al. 2022, arXiv:2206.00364. Nor do gradients longer than `skip_norm` move anything, as in the
    published code of Child 2021, arXiv:2011.10650. Ranks agree on it, as they share their gradients.
    """

    def __init__(
        self,
        algorithm: Callable[..., Optimizer],
        lr: float,
        warmup_images: int = 0,
        clip_norm: float | None = None,
        replace_nan: bool = False,
        decay_images: int | None = None,
        schedule: Schedule | None = None,
        beta2: Schedule | None = None,
        skip_norm: float | None = None,
    ):
        self.algorithm, self.lr, self.schedule, self.beta2 = algorithm, lr, schedule, beta2
        self.skip_norm = skip_norm
        self.warmup_images, self.clip_norm, self.replace_nan = warmup_images, clip_norm, replace_nan
        self.decay_images = decay_images

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimizer over these parameters; raises GenlabError for numbers that it refuses, and a β₂ of one that has none."""
        try:
            optimizer = self.algorithm(parameters, lr=self.lr)
        except (TypeError, ValueError) as error:
            raise GenlabError(f"optimizer: {error}") from None
        if self.beta2 is not None and "betas" not in optimizer.defaults:
            raise GenlabError(f"optimizer.beta2: {type(optimizer).__name__} has none, set optimizer.beta2=null")
        return optimizer

    def advance(self, optimizer: Optimizer, images_seen: int) -> None:
        """Give it the numbers of the batch that comes next: functions of progress alone, so nothing is lost on resuming."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(images_seen)
            if self.beta2 is not None:
                group["betas"] = (group["betas"][0], self.beta2(images_seen))

    def rate(self, images_seen: int) -> float:
        """lr · schedule(images_seen) · min(1, images_seen / warmup_images), then down to 0 in a line that ends at
        `decay_images`, if it is set."""
        lr = self.lr if self.schedule is None else self.lr * self.schedule(images_seen)
        if images_seen < self.warmup_images:
            return lr * images_seen / self.warmup_images
        if self.decay_images is None:
            return lr
        left = (self.decay_images - images_seen) / max(1, self.decay_images - self.warmup_images)
        return lr * max(0.0, min(1.0, left))

    def norm(self, optimizer: Optimizer) -> Tensor:
        """() the common norm of this optimizer's gradients."""
        return full(nn.utils.get_total_norm([p.grad for p in moving(optimizer)]))

    def clip(self, optimizer: Optimizer, norm: Tensor) -> None:
        """Scale its gradients, whose norm this is, down to `clip_norm`, if they are longer; leave none beyond `skip_norm`."""
        if self.skips(norm):
            optimizer.zero_grad(set_to_none=True)  # optimizers pass over what has none, their own averages with it
            return
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(moving(optimizer), self.clip_norm, norm)

    def skips(self, norm: Tensor) -> bool:
        """Whether a step with gradients of this length is left out."""
        return self.skip_norm is not None and not bool(norm <= self.skip_norm)  # also where it is nan

    def mend(self, optimizer: Optimizer) -> None:
        """Of gradients whose norm is no number: leave none, so that the step moves neither weights nor the optimizer's own
        state; or make numbers of them, where `replace_nan` says so."""
        if not self.replace_nan:
            optimizer.zero_grad(set_to_none=True)
            return
        for p in moving(optimizer):
            local(p.grad).nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)
        self.clip(optimizer, self.norm(optimizer))


def moving(optimizer: Optimizer) -> list[Any]:
    """The parameters of an optimizer that have a gradient."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
