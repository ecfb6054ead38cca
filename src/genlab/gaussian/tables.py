"""Discrete Gaussian paths: the T steps of DDPM and the L levels of NCSN, counted 1, 2, ... from the least noise."""

import math

import torch
from torch import Tensor

from genlab.gaussian.path import GaussianPath


def linear_betas(steps: int, start: float, end: float) -> Tensor:
    """β_1, ..., β_T equally spaced (Ho et al. 2020, arXiv:2006.11239, section 4)."""
    return torch.linspace(start, end, steps, dtype=torch.float64)


def scaled_linear_betas(steps: int, start: float, end: float) -> Tensor:
    """√β_t equally spaced: latent diffusion's "linear" (Rombach et al. 2022, arXiv:2112.10752, its published code)."""
    return torch.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=torch.float64) ** 2


def cosine_betas(steps: int, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """β_t = min(1 - ᾱ_t/ᾱ_{t-1}, largest) with ᾱ_t = cos²((t/T + s)/(1 + s) π/2), up to a factor.

    Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17.
    """
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    bar = ((t + offset) / (1 + offset) * math.pi / 2).cos() ** 2
    return (1 - bar[1:] / bar[:-1]).clamp(max=largest)


class Table(GaussianPath):
    """The T steps of DDPM: ᾱ_t = Π_{i≤t} (1 - β_i), α = √ᾱ_t, σ = √(1 - ᾱ_t), t in {0, ..., T}.

    Ho et al. 2020, arXiv:2006.11239, eq. 4; t = 0 is data, so the first row of the usual 0-based tables is t = 1.
    """

    twin = "VP or Cosine"
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

    def time(self, ratio: Tensor) -> Tensor:
        return _nearest(ratio, self.alpha, self.sigma)


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

    def time(self, ratio: Tensor) -> Tensor:
        return _nearest(ratio, self.alpha, self.sigma)


def _look_up(t: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    index = t.long()
    nan = torch.full_like(t, torch.nan)
    return alpha[index].to(t.dtype), sigma[index].to(t.dtype), nan, nan


def _nearest(ratio: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    levels = (sigma / alpha)[1:].log()  # nearest in the logarithm; step 0 has none
    return ((levels - ratio.log()[..., None]).abs().argmin(-1) + 1).to(ratio.dtype)
