"""The weight of each noise level in the loss."""

from torch import Tensor

from genlab.gaussian.path import Point


class Unit:
    """w = 1: the simple loss of its parametrization (Ho et al. 2020, arXiv:2006.11239, eq. 14)."""

    def __call__(self, p: Point) -> Tensor | float:
        return 1.0


class SigmaSquared:
    """w = σ²/2 (Song & Ermon 2019, arXiv:1907.05600, eq. 5-6)."""

    def __call__(self, p: Point) -> Tensor | float:
        return p.sigma**2 / 2
