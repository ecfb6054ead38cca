"""What a network's output F means: its training target, and x̂ = E[x | x_t] read off it, the exact inverse."""

import abc
from typing import ClassVar

from torch import Tensor

from genlab.gaussian.path import Point


class Parametrization(abc.ABC):
    """A pair target(x, ε) -> F and denoise(x_t, F) -> x̂ with denoise(αx + σε, target(x, ε)) = x."""

    needs_derivative: ClassVar[bool] = False
    divides_by_alpha: ClassVar[bool] = False

    @abc.abstractmethod
    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor: ...

    @abc.abstractmethod
    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor: ...


class Eps(Parametrization):
    """F = ε, x̂ = (x_t - σF)/α. Ho et al. 2020, arXiv:2006.11239, eq. 14."""

    divides_by_alpha = True

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return eps

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        return (x_t - p.sigma * out) / p.alpha


class X(Parametrization):
    """F = x = x̂."""

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return x

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        return out


class V(Parametrization):
    """F = αε - σx, x̂ = (αx_t - σF)/(α² + σ²). Salimans & Ho 2022, arXiv:2202.00512, appendix D, off the circle as well."""

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return p.alpha * eps - p.sigma * x

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        return (p.alpha * x_t - p.sigma * out) / (p.alpha**2 + p.sigma**2)


class Score(Parametrization):
    """F = ∇ log p(x_t | x) = -ε/σ, x̂ = (x_t + σ²F)/α. Song & Ermon 2019, arXiv:1907.05600, eq. 5."""

    divides_by_alpha = True

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return -eps / p.sigma

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        return (x_t + p.sigma**2 * out) / p.alpha


class ScaledScore(Parametrization):
    """F = σ ∇ log p(x_t | x) = -ε, x̂ = (x_t + σF)/α: the output over σ is the score.

    Song & Ermon 2020, arXiv:2006.09011, section 3.3 (technique 3).
    """

    divides_by_alpha = True

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return -eps

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        return (x_t + p.sigma * out) / p.alpha


class Velocity(Parametrization):
    """F = α'x + σ'ε, x̂ = (σF - σ'x_t)/(α'σ - ασ'). Lipman et al. 2023, arXiv:2210.02747, eq. 23."""

    needs_derivative = True

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return p.dalpha * x + p.dsigma * eps

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        return (p.sigma * out - p.dsigma * x_t) / (p.dalpha * p.sigma - p.alpha * p.dsigma)
