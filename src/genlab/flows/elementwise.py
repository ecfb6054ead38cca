"""Monotonic functions of one number, whose parameters a network gives: what couplings and autoregressive layers are made of."""

import abc
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

from genlab.errors import GenlabError

OPEN = 2.0  # so that σ = S(2 + s) begins near 1


class Elementwise(nn.Module, abc.ABC):
    """z_i = f(x_i; θ_i), increasing: x of any shape, θ (*shape, outputs), in float32 at least."""

    outputs: int
    """How many parameters each number has."""

    @abc.abstractmethod
    def transform(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """z and log dz/dx, both of x's shape."""

    @abc.abstractmethod
    def inverse(self, z: Tensor, theta: Tensor) -> Tensor: ...


class Additive(Elementwise):
    """z = x + t. Dinh et al. 2015, NICE, arXiv:1410.8516, section 3.2."""

    outputs = 1

    def transform(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return x + theta[..., 0], torch.zeros_like(x)

    def inverse(self, z: Tensor, theta: Tensor) -> Tensor:
        return z - theta[..., 0]


class Affine(Elementwise):
    """z = σ (x + t), σ = S(s + 2), as the published code of Kingma & Dhariwal 2018, arXiv:1807.03039, has it."""

    outputs = 2

    def transform(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        t, s = theta.unbind(-1)
        return (x + t) * (s + OPEN).sigmoid(), F.logsigmoid(s + OPEN)

    def inverse(self, z: Tensor, theta: Tensor) -> Tensor:
        t, s = theta.unbind(-1)
        return z / (s + OPEN).sigmoid() - t


class Exponential(Elementwise):
    """z = (x + t) e^{r tanh s}, r one learned number for all, 0 at first.

    Dinh et al. 2017, arXiv:1605.08803, eq. 7, with the scale of their published code.
    """

    outputs = 2

    def __init__(self):
        super().__init__()
        self.rescale = nn.Parameter(torch.zeros(()))

    def transform(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        log_scale = self.rescale * theta[..., 1].tanh()
        return (x + theta[..., 0]) * log_scale.exp(), log_scale

    def inverse(self, z: Tensor, theta: Tensor) -> Tensor:
        return z * (-self.rescale * theta[..., 1].tanh()).exp() - theta[..., 0]


class Scaled(Elementwise):
    """z = e^s x + t, s bounded softly by ±|log slope|: Papamakarios et al. 2017, arXiv:1705.07057, eq. 5; zuko's."""

    outputs = 2

    def __init__(self, slope: float = 1e-3):
        super().__init__()
        self.slope = slope

    def transform(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return MonotonicAffineTransform(theta[..., 0], theta[..., 1], self.slope).call_and_ladj(x)  # pyright: ignore

    def inverse(self, z: Tensor, theta: Tensor) -> Tensor:
        return MonotonicAffineTransform(theta[..., 0], theta[..., 1], self.slope).inv(z)  # pyright: ignore


class RationalQuadratic(Elementwise):
    """A rational-quadratic spline of `bins` pieces on [-bound, bound], and x itself outside; θ = 0 is the identity.

    Durkan et al. 2019, arXiv:1906.04032, section 3.1; zuko's, whose slopes and relative sizes of bins are at least `slope`.
    """

    def __init__(self, bins: int, bound: float, slope: float = 1e-3):
        super().__init__()
        if bins < 2 or not 0 < bound < math.inf:
            raise GenlabError(
                f"a spline of bins={bins} and bound={bound}: at least 2 bins and a bound above 0 are needed"
            )
        self.bins, self.bound, self.slope = bins, bound, slope
        self.outputs = 3 * bins - 1

    def transform(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return self._spline(theta).call_and_ladj(x)  # pyright: ignore

    def inverse(self, z: Tensor, theta: Tensor) -> Tensor:
        return self._spline(theta).inv(z)  # pyright: ignore

    def _spline(self, theta: Tensor) -> MonotonicRQSTransform:
        parts = theta.split([self.bins, self.bins, self.bins - 1], dim=-1)
        return MonotonicRQSTransform(*parts, bound=self.bound, slope=self.slope)
