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


class GaussianPath(nn.Module, abc.ABC):
    """α(t) and σ(t) with their derivatives on [0, t_max]; α(0) = 1 and σ(0) = 0."""

    t_max: float = 1.0
    twin: ClassVar[str | None] = None  # on a discrete path, the continuous one that has derivatives
    exploding: ClassVar[bool] = False  # α = 1 throughout
    vanishing: ClassVar[bool] = False  # α = 0 at t_max

    @abc.abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """α, σ, dα/dt, dσ/dt at t, in the shape and dtype of t."""

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
        slope = self.beta_max - self.beta_min
        integral = self.beta_min * t + slope * t**2 / 2
        beta = self.beta_min + slope * t
        alpha = (-integral / 2).exp()
        sigma = (-torch.expm1(-integral)).sqrt()
        return alpha, sigma, -beta / 2 * alpha, beta * alpha**2 / (2 * sigma)


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


class Linear(GaussianPath):
    """Straight lines of flow matching: α = 1 - t, σ = t.

    Liu et al. 2022, arXiv:2209.03003, eq. 1; Lipman et al. 2023, arXiv:2210.02747, eq. 20 at σ_min = 0, with time reversed.
    """

    vanishing = True

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return 1 - t, t, -torch.ones_like(t), torch.ones_like(t)


def linear_betas(steps: int, start: float, end: float) -> Tensor:
    """β_1, ..., β_T equally spaced (Ho et al. 2020, arXiv:2006.11239, section 4)."""
    return torch.linspace(start, end, steps, dtype=torch.float64)


class Table(GaussianPath):
    """The T steps of DDPM: ᾱ_t = Π_{i≤t} (1 - β_i), α = √ᾱ_t, σ = √(1 - ᾱ_t), t in {0, ..., T}.

    Ho et al. 2020, arXiv:2006.11239, eq. 4; t = 0 is data, so the first row of the usual 0-based tables is t = 1.
    """

    twin = "VP"
    alpha: Tensor
    sigma: Tensor

    def __init__(self, betas: Tensor):
        super().__init__()
        log_bar = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-betas.double()).cumsum(0)])
        self.t_max = float(len(betas))
        self.register_buffer("alpha", (log_bar / 2).exp(), persistent=False)
        self.register_buffer("sigma", (-torch.expm1(log_bar)).sqrt(), persistent=False)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _look_up(t, self.alpha, self.sigma)


class Levels(GaussianPath):
    """The noise levels of NCSN: α = 1, σ geometric from σ(1) = σ_min to σ(L) = σ_max, t in {0, ..., L}.

    Song & Ermon 2019, arXiv:1907.05600, section 4.2, counted from the smallest level so that t grows with noise.
    """

    twin = "VE"
    exploding = True
    alpha: Tensor
    sigma: Tensor

    def __init__(self, sigma_min: float, sigma_max: float, levels: int):
        super().__init__()
        geometric = torch.linspace(math.log(sigma_min), math.log(sigma_max), levels, dtype=torch.float64).exp()
        self.t_max = float(levels)
        self.register_buffer("alpha", torch.ones(levels + 1, dtype=torch.float64), persistent=False)
        self.register_buffer("sigma", torch.cat([torch.zeros(1, dtype=torch.float64), geometric]), persistent=False)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _look_up(t, self.alpha, self.sigma)


def _look_up(t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    index = t.long()
    nan = torch.full_like(t, torch.nan)
    return alpha[index].to(t.dtype), sigma[index].to(t.dtype), nan, nan
