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

    @abc.abstractmethod
    def gain(self, p: Point) -> Tensor | float:
        """∂x̂/∂F: an error of the output is an error of x̂ gain times as large, and of ε̂ gain·α/σ times."""

    def scale_in(self, p: Point) -> Tensor | float:
        """c_in, by which x_t is scaled before the network sees it."""
        return 1.0


class Eps(Parametrization):
    """F = ε, x̂ = (x_t - σF)/α. Ho et al. 2020, arXiv:2006.11239, eq. 14."""

    divides_by_alpha = True

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return eps

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        return (x_t - p.sigma * out) / p.alpha

    def gain(self, p: Point) -> Tensor | float:
        return -p.sigma / p.alpha


class X(Parametrization):
    """F = x = x̂."""

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return x

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        return out

    def gain(self, p: Point) -> Tensor | float:
        return 1.0


class V(Parametrization):
    """F = αε - σx, x̂ = (αx_t - σF)/(α² + σ²). Salimans & Ho 2022, arXiv:2202.00512, appendix D, off the circle as well."""

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return p.alpha * eps - p.sigma * x

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        return (p.alpha * x_t - p.sigma * out) / (p.alpha**2 + p.sigma**2)

    def gain(self, p: Point) -> Tensor | float:
        return -p.sigma / (p.alpha**2 + p.sigma**2)


class Score(Parametrization):
    """F = ∇ log p(x_t | x) = -ε/σ, x̂ = (x_t + σ²F)/α. Song & Ermon 2019, arXiv:1907.05600, eq. 5."""

    divides_by_alpha = True

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return -eps / p.sigma

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        return (x_t + p.sigma**2 * out) / p.alpha

    def gain(self, p: Point) -> Tensor | float:
        return p.sigma**2 / p.alpha


class ScaledScore(Parametrization):
    """F = σ ∇ log p(x_t | x) = -ε, x̂ = (x_t + σF)/α: the output over σ is the score.

    Song & Ermon 2020, arXiv:2006.09011, section 3.3 (technique 3).
    """

    divides_by_alpha = True

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return -eps

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        return (x_t + p.sigma * out) / p.alpha

    def gain(self, p: Point) -> Tensor | float:
        return p.sigma / p.alpha


class Velocity(Parametrization):
    """F = α'x + σ'ε, x̂ = (σF - σ'x_t)/(α'σ - ασ'). Lipman et al. 2023, arXiv:2210.02747, eq. 23."""

    needs_derivative = True

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return p.dalpha * x + p.dsigma * eps

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        return (p.sigma * out - p.dsigma * x_t) / (p.dalpha * p.sigma - p.alpha * p.dsigma)

    def gain(self, p: Point) -> Tensor | float:
        return p.sigma / (p.dalpha * p.sigma - p.alpha * p.dsigma)


class Karras(Parametrization):
    """x̂ = c_skip x_t + c_out F(c_in x_t), whose target has unit variance at every noise level for data of variance s².

    c_in = 1/√(α²s² + σ²), c_skip = αs² c_in², c_out = sσ c_in, so F = (σx - αs²ε) c_in / s, in closed form because
    (x - c_skip x_t)/c_out cancels as σ → 0. Karras et al. 2022, arXiv:2206.00364, table 1, with α as well.
    """

    def __init__(self, sigma_data: float):
        self.sigma_data = sigma_data

    def target(self, x: Tensor, eps: Tensor, p: Point) -> Tensor:
        return (p.sigma * x - p.alpha * self.sigma_data**2 * eps) * self.scale_in(p) / self.sigma_data

    def denoise(self, x_t: Tensor, out: Tensor, p: Point) -> Tensor:
        skip = p.alpha * self.sigma_data**2 * self.scale_in(p) ** 2
        return skip * x_t + self.gain(p) * out

    def gain(self, p: Point) -> Tensor:
        return self.sigma_data * p.sigma * self.scale_in(p)

    def scale_in(self, p: Point) -> Tensor:
        return (p.alpha**2 * self.sigma_data**2 + p.sigma**2).rsqrt()
