"""Numbers that change with progress: functions of images seen alone, so that nothing is lost on resuming."""

import abc
import math

from genlab.errors import GenlabError


class Schedule(abc.ABC):
    """images seen -> a number."""

    @abc.abstractmethod
    def __call__(self, images_seen: int) -> float: ...


class Cosine(Schedule):
    """From `first` to `last` over `images`, and `last` from then on: last + (first - last)(1 + cos(π n/images))/2.

    Huang et al. 2024, R3GAN, arXiv:2501.05441, published code, which moves everything that it moves in this way. Raises
    GenlabError for no images.
    """

    def __init__(self, first: float, last: float, images: int):
        if images < 1:
            raise GenlabError(f"a schedule over images={images}: at least 1 is needed")
        self.first, self.last, self.images = first, last, images

    def __call__(self, images_seen: int) -> float:
        left = (1 + math.cos(math.pi * min(1.0, images_seen / self.images))) / 2
        return self.last + (self.first - self.last) * left


class Linear(Schedule):
    """`first` for a share `hold` of `images`, then in a line to `last` at `images`, and `last` from then on.

    Raises GenlabError for no images, and for a share that leaves none to the line.
    """

    def __init__(self, first: float, last: float, images: int, hold: float = 0.0):
        if images < 1 or not 0 <= hold < 1:
            raise GenlabError(
                f"a line over images={images} after hold={hold:g} of them: at least 1 image, hold in [0, 1)"
            )
        self.first, self.last, self.images, self.hold = first, last, images, hold

    def __call__(self, images_seen: int) -> float:
        done = (images_seen / self.images - self.hold) / (1 - self.hold)
        return self.first + (self.last - self.first) * max(0.0, min(1.0, done))
