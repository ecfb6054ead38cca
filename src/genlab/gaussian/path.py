"""Gaussian paths x_t = α(t) x + σ(t) ε: t = 0 is data on every one of them, and t grows with noise."""

import abc
import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class Point(NamedTuple):
    """One instant of a path, each field broadcastable to x."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    dalpha: Tensor  # dα/dt, nan on a discrete path
    dsigma: Tensor

    @property
    def drift(self) -> Tensor:
        """f = α'/α of the forward SDE dx = f x dt + g dw."""
        return self.dalpha / self.alpha

    @property
    def diffusion2(self) -> Tensor:
        """g² = 2σσ' - 2fσ²."""
        return 2 * self.sigma * self.dsigma - 2 * self.drift * self.sigma**2

    def score(self, x_t: Tensor, x_hat: Tensor) -> Tensor:
        """∇ log p_t(x_t) = (α x̂ - x_t) / σ²."""
        return (self.alpha * x_hat - x_t) / self.sigma**2

    def eps(self, x_t: Tensor, x_hat: Tensor) -> Tensor:
        """ε̂ = (x_t - α x̂) / σ."""
        return (x_t - self.alpha * x_hat) / self.sigma

    def velocity(self, x_t: Tensor, x_hat: Tensor) -> Tensor:
        """Of the probability flow: dx/dt = (σ'/σ) x_t + (α' - α σ'/σ) x̂."""
        ratio = self.dsigma / self.sigma
        return ratio * x_t + (self.dalpha - self.alpha * ratio) * x_hat

    def bridge(self, q: "Point") -> tuple[Tensor, Tensor]:
        """a and b² of q(x_t | x_s) = N(a x_s, b²) for this point at t and q at s < t: a = α_t/α_s, b² = σ_t² - a²σ_s²."""
        a = self.alpha / q.alpha
        return a, self.sigma**2 - a**2 * q.sigma**2

    def posterior(self, q: "Point", x_t: Tensor | float, x: Tensor | float) -> tuple[Tensor, Tensor]:
        """Mean (a σ_s²/σ_t²) x_t + (α_s b²/σ_t²) x and variance b² σ_s²/σ_t² of q(x_s | x_t, x), for q at s < t.

        Ho et al. 2020, arXiv:2006.11239, eq. 7, from α and σ at the two times alone.
        """
        a, b2 = self.bridge(q)
        mean = (a * q.sigma**2 / self.sigma**2) * x_t + (q.alpha * b2 / self.sigma**2) * x
        return mean, b2 * q.sigma**2 / self.sigma**2


class GaussianPath(nn.Module, abc.ABC):
    """α(t) and σ(t) with their derivatives on [0, t_max]; α(0) = 1 and σ(0) = 0."""

    t_max: float = 1.0
    twin: ClassVar[str | None] = None  # on a discrete path, the continuous one that has derivatives
    exploding: ClassVar[bool] = False  # α = 1 throughout
    vanishing: ClassVar[bool] = False  # α = 0 at t_max

    @abc.abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """α, σ, dα/dt, dσ/dt at t, in the shape and dtype of t."""

    @abc.abstractmethod
    def time(self, ratio: Tensor) -> Tensor:
        """The t at which σ(t)/α(t) = ratio, the noise level of EDM; on a discrete path the nearest step."""

    def forward(self, t: Tensor, ndim: int) -> Point:
        """The point at t, () or (B,), broadcastable to a tensor of `ndim` dimensions."""
        shape = (-1,) + (1,) * (ndim - 1) if t.ndim else ()
        return Point(*(c.reshape(shape) for c in (t, *self.coefficients(t))))


class VP(GaussianPath):
    """Variance preserving: α = exp(-β̄/2), σ² = 1 - α², β̄(t) = β_min t + (β_max - β_min) t²/2.

    Song et al. 2021, arXiv:2011.13456, eq. 33.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        super().__init__()
        self.beta_min, self.beta_max = beta_min, beta_max

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        beta, integral = _betas(t, self.beta_min, self.beta_max)
        alpha = (-integral / 2).exp()
        sigma = (-torch.expm1(-integral)).sqrt()
        return alpha, sigma, -beta / 2 * alpha, beta * alpha**2 / (2 * sigma)

    def time(self, ratio: Tensor) -> Tensor:
        return _beta_time(torch.log1p(ratio**2), self.beta_min, self.beta_max)


class SubVP(GaussianPath):
    """A variance below that of VP: α = exp(-β̄/2), σ = 1 - α², whose g² = β (1 - exp(-2β̄)).

    Song et al. 2021, arXiv:2011.13456, eq. 28 and 34.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        super().__init__()
        self.beta_min, self.beta_max = beta_min, beta_max

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        beta, integral = _betas(t, self.beta_min, self.beta_max)
        alpha = (-integral / 2).exp()
        return alpha, -torch.expm1(-integral), -beta / 2 * alpha, beta * alpha**2

    def time(self, ratio: Tensor) -> Tensor:
        return _beta_time(2 * (ratio / 2).asinh(), self.beta_min, self.beta_max)


def _betas(t: Tensor, beta_min: float, beta_max: float) -> tuple[Tensor, Tensor]:
    """β(t) and its integral β̄(t)."""
    slope = beta_max - beta_min
    return beta_min + slope * t, beta_min * t + slope * t**2 / 2


def _beta_time(integral: Tensor, beta_min: float, beta_max: float) -> Tensor:
    """The t > 0 that solves β̄(t) = β_min t + (β_max - β_min) t²/2 = integral, without cancellation."""
    slope = beta_max - beta_min
    return 2 * integral / (beta_min + (beta_min**2 + 2 * slope * integral).sqrt())


class Cosine(GaussianPath):
    """α = cos(u)/cos(u_0), u = (t + s)/(1 + s) π/2, σ² = 1 - α², the continuous form of improved DDPM's schedule.

    Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17; it ends at t_max = 0.9946, where Lu et al. 2022,
    arXiv:2206.00927, appendix D.4 stop it, because α reaches 0 at t = 1.
    """

    def __init__(self, offset: float = 0.008, t_max: float = 0.9946):
        super().__init__()
        self.offset, self.t_max = offset, t_max

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rate = math.pi / 2 / (1 + self.offset)
        start = self.offset * rate
        u = t * rate + start
        alpha = u.cos() / math.cos(start)
        # 1 - α as a product of sines, which does not cancel near t = 0
        below_one = 2 * ((u + start) / 2).sin() * (t * rate / 2).sin() / math.cos(start)
        sigma = (below_one * (1 + alpha)).sqrt()
        dalpha = -rate * u.sin() / math.cos(start)
        return alpha, sigma, dalpha, -alpha * dalpha / sigma

    def time(self, ratio: Tensor) -> Tensor:
        rate = math.pi / 2 / (1 + self.offset)
        start = self.offset * rate
        return ((math.cos(start) / (1 + ratio**2).sqrt()).acos() - start) / rate


class VE(GaussianPath):
    """Variance exploding: α = 1, σ = σ_min (σ_max/σ_min)^t for t > 0, and σ(0) = 0 (the paper's own discontinuity).

    Song et al. 2021, arXiv:2011.13456, eq. 30-31.
    """

    exploding = True

    def __init__(self, sigma_min: float, sigma_max: float):
        super().__init__()
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ratio = math.log(self.sigma_max / self.sigma_min)
        sigma = torch.where(t > 0, self.sigma_min * (ratio * t).exp(), 0.0)
        return torch.ones_like(t), sigma, torch.zeros_like(t), ratio * sigma

    def time(self, ratio: Tensor) -> Tensor:
        return (ratio / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)


class Karras(GaussianPath):
    """Time is the noise level: α = 1, σ = t, t in [0, σ_max]. Karras et al. 2022, arXiv:2206.00364, eq. 1 and table 1."""

    exploding = True

    def __init__(self, sigma_max: float):
        super().__init__()
        self.t_max = sigma_max

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return torch.ones_like(t), t, torch.zeros_like(t), torch.ones_like(t)

    def time(self, ratio: Tensor) -> Tensor:
        return ratio


class Linear(GaussianPath):
    """Straight lines of flow matching: α = 1 - t, σ = σ_min + (1 - σ_min) t, and σ(0) = 0 as on VE.

    Lipman et al. 2023, arXiv:2210.02747, eq. 20-22, with time reversed; σ_min = 0 is Liu et al. 2022, arXiv:2209.03003,
    eq. 1.
    """

    vanishing = True

    def __init__(self, sigma_min: float = 0.0, t_max: float = 1.0):
        super().__init__()
        self.sigma_min, self.t_max = sigma_min, t_max

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        slope = 1 - self.sigma_min
        sigma = torch.where(t > 0, self.sigma_min + slope * t, 0.0)
        return 1 - t, sigma, -torch.ones_like(t), torch.full_like(t, slope)

    def time(self, ratio: Tensor) -> Tensor:
        return (ratio - self.sigma_min) / (ratio + 1 - self.sigma_min)
