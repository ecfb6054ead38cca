"""How weights move: the optimizer with its warm-up and clipping."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.optim import Optimizer


class Optimization:
    """An optimizer whose learning rate rises linearly over `warmup_images`, and may fall again, and whose gradients are
    clipped by norm.

    With `replace_nan` a gradient's nan becomes 0 and ±∞ becomes ±10⁵ before anything else, as in the code of Karras et al.
    2022, arXiv:2206.00364.
    """

    def __init__(
        self,
        algorithm: Callable[..., Optimizer],
        lr: float,
        warmup_images: int = 0,
        clip_norm: float | None = None,
        replace_nan: bool = False,
        decay_images: int | None = None,
    ):
        self.algorithm, self.lr = algorithm, lr
        self.warmup_images, self.clip_norm, self.replace_nan = warmup_images, clip_norm, replace_nan
        self.decay_images = decay_images

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimizer over these parameters."""
        return self.algorithm(parameters, lr=self.lr)

    def rate(self, images_seen: int) -> float:
        """lr · min(1, images_seen / warmup_images), then down to 0 in a line that ends at `decay_images`, if it is set.

        A function of progress alone, so nothing is lost on resuming.
        """
        if images_seen < self.warmup_images:
            return self.lr * images_seen / self.warmup_images
        if self.decay_images is None:
            return self.lr
        left = (self.decay_images - images_seen) / max(1, self.decay_images - self.warmup_images)
        return self.lr * max(0.0, min(1.0, left))

    def clip(self, optimizer: Optimizer) -> Tensor:
        """Scale this optimizer's gradients down to `clip_norm`, if they are longer; () their common norm before that."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters]
        if self.replace_nan:
            for gradient in gradients:
                gradient.nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)
        norm = nn.utils.get_total_norm(gradients)
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
        return norm
