"""The weight w(t) of each noise level in the loss w ‖F - target‖², whatever the network's output F is.

Weights that papers state for the error of ε̂ are carried over by ‖ε̂ - ε‖² = (gain · α/σ)² ‖F - target‖².
"""

from typing import Protocol

import torch
from torch import Tensor

from genlab.gaussian.parametrization import Parametrization
from genlab.gaussian.path import Point


class Weight(Protocol):
    """w(t) for an error of the parametrization's output."""

    def __call__(self, p: Point, parametrization: Parametrization) -> Tensor | float: ...


def eps_error(p: Point, parametrization: Parametrization) -> Tensor:
    """‖ε̂ - ε‖² for an error ‖F - target‖² of 1: (gain · α/σ)²."""
    return (parametrization.gain(p) * p.alpha / p.sigma) ** 2


class Unit:
    """w = 1: the simple loss of its parametrization (Ho et al. 2020, arXiv:2006.11239, eq. 14)."""

    def __call__(self, p: Point, parametrization: Parametrization) -> Tensor | float:
        return 1.0


class Zero:
    """w = 0: nothing but the variational term (L_vlb of Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 4)."""

    def __call__(self, p: Point, parametrization: Parametrization) -> Tensor | float:
        return 0.0


class SigmaSquared:
    """σ²/2 on the error of the score, which is ½ ‖ε̂ - ε‖² (Song & Ermon 2019, arXiv:1907.05600, eq. 5-6)."""

    def __call__(self, p: Point, parametrization: Parametrization) -> Tensor | float:
        return eps_error(p, parametrization) / 2


class Likelihood:
    """g² on the error of the score, which is (g²/σ²) ‖ε̂ - ε‖² (Song et al. 2021, arXiv:2101.09258, eq. 7)."""

    def __call__(self, p: Point, parametrization: Parametrization) -> Tensor | float:
        return p.diffusion2 / p.sigma**2 * eps_error(p, parametrization)


class MinSNR:
    """min(SNR, γ) on the error of x̂, SNR = α²/σ² (Hang et al. 2023, arXiv:2303.09556, eq. 8)."""

    def __init__(self, gamma: float):
        self.gamma = gamma

    def __call__(self, p: Point, parametrization: Parametrization) -> Tensor | float:
        snr = (p.alpha / p.sigma) ** 2
        return torch.clamp(snr, max=self.gamma) * torch.as_tensor(parametrization.gain(p)) ** 2


class P2:
    """1/(k + SNR)^γ on the error of ε̂ (Choi et al. 2022, arXiv:2204.00227, eq. 8)."""

    def __init__(self, gamma: float, k: float):
        self.gamma, self.k = gamma, k

    def __call__(self, p: Point, parametrization: Parametrization) -> Tensor | float:
        snr = (p.alpha / p.sigma) ** 2
        return (self.k + snr) ** -self.gamma * eps_error(p, parametrization)


def mean(error: Tensor) -> Tensor:
    """(B,) means over the dimensions of each sample."""
    return error.flatten(1).mean(1)


def half_sum(error: Tensor) -> Tensor:
    """(B,) half sums, as score-SDE's VE recipes have them; with clipped gradients this is not a matter of scale."""
    return error.flatten(1).sum(1) / 2


def total(error: Tensor) -> Tensor:
    """(B,) sums, as DDIM's code and EDM have them."""
    return error.flatten(1).sum(1)
