"""Augmentation of all that a critic sees, data and samples alike, through which gradients reach the generator."""

import abc

import torch
from torch import Tensor, nn

from genlab.adversarial.objectives import Objective
from genlab.adversarial.pipe import Pipe, spread
from genlab.data.augment import moved
from genlab.distributed import total
from genlab.errors import GenlabError
from genlab.schedules import Schedule


class Augmentation(nn.Module, abc.ABC):
    """A random change of images, new for each; a module, so that what it adapts is in the checkpoint."""

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, changed; twice differentiable in x."""

    def check(self, objective: Objective) -> None:
        """Raise GenlabError for an objective whose critic gives this nothing to adapt to."""

    def begin(self, images_seen: int) -> None:
        """Take note of progress, before a batch."""

    def observe(self, certainty: Tensor, images: int) -> None:
        """Take note of D(x) - undecided of so many images, of a batch or of a part of it; a pack of images has one."""

    def adapt(self, turn: int) -> None:
        """Move, after batch `turn`, this process's own being counted from 0."""


class DiffAugment(Augmentation):
    """Brightness, saturation, contrast; translation by whole pixels over 0; a square of 0 cut out.

    `color` is the strength of the first three, 1 as published and 0 for none; `translation` and `cutout` are shares of the
    image's side, 0 for none. Zhao et al. 2020, arXiv:2006.10738, section 3.2, with the ranges of its code.
    """

    def __init__(self, color: float, translation: float, cutout: float):
        super().__init__()
        if min(color, translation, cutout) < 0 or max(translation, cutout) > 1:
            raise GenlabError("DiffAugment: color is 0 or more, translation and cutout are shares of the side, 0 to 1")
        self.color, self.translation, self.cutout = color, translation, cutout

    def forward(self, x: Tensor) -> Tensor:
        if self.color:
            x = self.colored(x, *self.color * (torch.rand(3, len(x), device=x.device, dtype=x.dtype) - 0.5))
        if self.translation:
            x = moved(x, *(self._up_to(self.translation, size, x) for size in x.shape[2:]), reflect=False)
        return self._cut(x) if self.cutout else x

    @staticmethod
    def colored(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
        """x + b, then (1 + 2s) times its distance from grey, then (1 + c) times that from the image's mean; b, s, c (B,)."""
        x = x + spread(brightness)
        grey = x.mean(1, keepdim=True)
        x = grey + (1 + 2 * spread(saturation)) * (x - grey)
        mean = x.mean((1, 2, 3), keepdim=True)
        return mean + (1 + spread(contrast)) * (x - mean)

    def _up_to(self, share: float, size: int, x: Tensor) -> Tensor:
        most = int(share * size + 0.5)
        return torch.randint(-most, most + 1, (len(x),), device=x.device)

    def _cut(self, x: Tensor) -> Tensor:
        """Squares whose centre is anywhere in the image, so that borders cut them."""
        keep = []
        for size in x.shape[2:]:
            side = int(self.cutout * size + 0.5)
            first = torch.randint(0, size + (1 - side % 2), (len(x), 1), device=x.device) - side // 2
            place = torch.arange(size, device=x.device)
            keep.append((place < first) | (place >= first + side))
        return x * (keep[0][:, None, :, None] | keep[1][:, None, None, :])


class Adaptive(Augmentation):
    """ADA: each change with probability p, which follows how sure the critic is of data: p += sign(E sign D(x) - target) · n/`images`.

    p moves every `every` batches, n images being seen since by all ranks, within [0, 1]: `images` are what it takes from 0
    to 1. Karras et al. 2020, arXiv:2006.06676, section 3.
    """

    p: Tensor
    signs: Tensor

    def __init__(self, *, pipe: Pipe, target: float, every: int, images: int, p: float = 0.0):
        super().__init__()
        if every < 1 or images < 1 or not 0 <= p <= 1:
            raise GenlabError(f"ADA every={every}, images={images}, p={p}: both counts are 1 or more, and p is 0 to 1")
        if not target < 1:
            raise GenlabError(f"ADA target={target}: it is held against a mean of signs, which is at most 1")
        self.pipe, self.target, self.every, self.images = pipe, target, every, images
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("signs", torch.zeros(2))  # their sum over images since p moved last, and of how many

    def check(self, objective: Objective) -> None:
        if objective.undecided is None:
            raise GenlabError(
                f"ADA asks how sure the critic is of data, and values of {type(objective).__name__} have no zero: "
                "take critic_augment=diffaugment, or another objective"
            )

    @torch.no_grad()
    def observe(self, certainty: Tensor, images: int) -> None:
        self.signs += total(images * torch.stack([certainty.sign().mean(), certainty.new_ones(())]))

    @torch.no_grad()
    def adapt(self, turn: int) -> None:
        if turn % self.every == self.every - 1:
            mean, n = self.signs[0] / self.signs[1], self.signs[1]
            self.p.add_((mean - self.target).sign() * n / self.images).clamp_(0, 1)
            self.signs.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.pipe(x, self.p)


class Scheduled(Augmentation):
    """The changes of ADA with a probability p that is a function of images seen alone, whatever the objective.

    Huang et al. 2024, R3GAN, arXiv:2501.05441, published code.
    """

    p: Tensor

    def __init__(self, *, pipe: Pipe, p: Schedule):
        super().__init__()
        self.pipe, self.schedule = pipe, p
        self.register_buffer("p", torch.tensor(float(p(0))))

    def begin(self, images_seen: int) -> None:
        self.p.fill_(self.schedule(images_seen))

    def forward(self, x: Tensor) -> Tensor:
        return self.pipe(x, self.p)
