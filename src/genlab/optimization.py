"""How weights move: the optimizer with its warm-up and clipping."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.optim import Optimizer

from genlab.errors import GenlabError
from genlab.schedules import Schedule


class Optimization:
    """An optimizer whose learning rate rises linearly over `warmup_images`, and may fall again, and whose gradients are
    clipped by norm. `schedule` is a factor of the rate, and `beta2` stands for Adam's.

    With `replace_nan` a gradient's nan becomes 0 and ±∞ becomes ±10⁵ before anything else, as in the code of Karras et al.
    2022, arXiv:2206.00364. A step whose gradients are longer than `skip_norm`, or are no numbers, is left out, as in the
    published code of Child 2021, arXiv:2011.10650; ranks agree on it, as they share their gradients.
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
        """The optimizer over these parameters; raises GenlabError for a β₂ of one that has none."""
        optimizer = self.algorithm(parameters, lr=self.lr)
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

    def clip(self, optimizer: Optimizer) -> Tensor:
        """Scale this optimizer's gradients down to `clip_norm`, if they are longer; () their common norm before that."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters]
        if self.replace_nan:
            for gradient in gradients:
                gradient.nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)
        norm = nn.utils.get_total_norm(gradients)
        if self.skips(norm):
            for parameter in parameters:
                parameter.grad = None  # which optimizers pass over, their own averages with it
            return norm
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        return norm

    def skips(self, norm: Tensor) -> bool:
        """Whether a step with gradients of this length is left out."""
        return self.skip_norm is not None and not bool(norm <= self.skip_norm)  # also where it is nan
