"""How far x̂ may leave the range of data; ε̂, the score and the velocity are read off the x̂ that is left."""

from typing import Protocol

import torch
from torch import Tensor

from genlab.errors import GenlabError


class Threshold(Protocol):
    """x̂ brought into range, in its own shape (B, ...)."""

    def __call__(self, x_hat: Tensor) -> Tensor: ...


def within(x_hat: Tensor, threshold: Threshold | None) -> Tensor:
    """x̂ brought into range, if there is one."""
    return x_hat if threshold is None else threshold(x_hat)


class Clip:
    """x̂ between low and high, the range of images in model space (Ho et al. 2020, arXiv:2006.11239, its code)."""

    def __init__(self, low: float = -1.0, high: float = 1.0):
        if not low < high:
            raise GenlabError(f"sampler.threshold low={low:g}, high={high:g}: low must be below high")
        self.low, self.high = low, high

    def __call__(self, x_hat: Tensor) -> Tensor:
        return x_hat.clamp(self.low, self.high)


class Dynamic:
    """clip(x̂, -s, s)/s, s the percentile of each sample's |x̂| and at least 1.

    Saharia et al. 2022, Imagen, arXiv:2205.11487, section 2.3, for data in [-1, 1]. Raises GenlabError unless the
    percentile, given as a fraction, is in (0, 1].
    """

    def __init__(self, percentile: float):
        if not 0 < percentile <= 1:
            raise GenlabError(f"sampler.threshold.percentile={percentile:g}: a fraction in (0, 1], 0.995 for example")
        self.percentile = percentile

    def __call__(self, x_hat: Tensor) -> Tensor:
        s = torch.quantile(x_hat.abs().flatten(1), self.percentile, dim=1).clamp(min=1)  # (B,)
        s = s.reshape((-1,) + (1,) * (x_hat.ndim - 1))
        return x_hat.clamp(-s, s) / s
