"""The running averages of the weights that sampling uses: each is one number β per update, θ̄ ← β θ̄ + (1 - β) θ."""

import abc
from collections.abc import Mapping

import numpy as np

from genlab.errors import GenlabError
from genlab.schedules import Schedule


class Averaging(abc.ABC):
    """A rule for β: a function of progress alone, so that nothing is lost on resuming."""

    @abc.abstractmethod
    def at(self, images_seen: int, batch: int) -> float:
        """β of the update made by the `batch` images with which `images_seen` have been seen, its own included."""


class Constant(Averaging):
    """β = decay (Ho et al. 2020, arXiv:2006.11239, appendix B)."""

    def __init__(self, decay: float):
        self.decay = decay

    def at(self, images_seen: int, batch: int) -> float:
        return self.decay


class Ramped(Averaging):
    """β = min(decay, (1 + n)/(10 + n)) at update n = 1, 2, ..., as in the code of score-SDE (arXiv:2011.13456)."""

    def __init__(self, decay: float):
        self.decay = decay

    def at(self, images_seen: int, batch: int) -> float:
        n = images_seen // batch
        return min(self.decay, (1 + n) / (10 + n))


class HalfLife(Averaging):
    """β = 0.5^(B / min(h, r · N)) with N images seen before the batch of B, so that β = 0 at first.

    h is `images` and r `ramp_ratio`, without which the half-life is h from the start; Karras et al. 2022,
    arXiv:2206.00364, appendix F.3, and its code.
    """

    def __init__(self, images: float, ramp_ratio: float | None):
        self.images, self.ramp_ratio = images, ramp_ratio

    def at(self, images_seen: int, batch: int) -> float:
        ramp = float("inf") if self.ramp_ratio is None else self.ramp_ratio * (images_seen - batch)
        half_life = min(self.images, ramp)
        return 0.5 ** (batch / half_life) if half_life else 0.0


class ScheduledHalfLife(Averaging):
    """β = 0.5^(B / h(N)) with N images seen before the batch of B and h(N) from a schedule; β = 0 where h is 0.

    Huang et al. 2024, R3GAN, arXiv:2501.05441, published code.
    """

    def __init__(self, images: Schedule):
        self.images = images

    def at(self, images_seen: int, batch: int) -> float:
        half_life = self.images(images_seen - batch)
        return 0.5 ** (batch / half_life) if half_life else 0.0


class PowerFunction(Averaging):
    """β = (1 - B/N)^(γ + 1) with N images seen after the batch of B: the average of θ(τ) with density ∝ τ^γ on [0, N].

    `std` is that density's standard deviation relative to N; Karras et al. 2024, arXiv:2312.02696, eq. 127. Raises
    GenlabError where no γ > 0 has it.
    """

    def __init__(self, std: float):
        if not 0 < std < 12**-0.5:  # of the uniform density
            raise GenlabError(
                f"averaging std={std}: it is a fraction of training, between 0 and 0.288; EDM2 takes 0.05"
            )
        # σ² = (γ + 1)/((γ + 2)²(γ + 3)), a cubic with one positive root (eq. 123, 126)
        t = std**-2
        self.gamma = float(np.roots([1, 7, 16 - t, 12 - t]).real.max())

    def at(self, images_seen: int, batch: int) -> float:
        return (1 - batch / images_seen) ** (self.gamma + 1)


def named(averaging: Averaging | Mapping[str, Averaging]) -> dict[str, Averaging]:
    """Rules by name, one rule being the only one; the first is `ema`, which samples. Raises GenlabError otherwise."""
    rules = dict(averaging) if isinstance(averaging, Mapping) else {"ema": averaging}
    if next(iter(rules), None) != "ema" or "raw" in rules:
        raise GenlabError(f"averages {', '.join(rules) or 'none'}: the first must be named ema, and none raw")
    return rules
