"""The variance Σ of p(x_s | x_t), between that of the posterior and that of the forward step."""

from typing import Protocol

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.path import Point


class Variance(Protocol):
    """Σ as the v of log Σ = v log β + (1 - v) log β̃, β = b² and β̃ = b²σ_s²/σ_t² those of the step from t to s."""

    learned: bool
    """Whether it needs a denoiser with a learned variance."""

    def __call__(self, p: Point, v: Tensor | None) -> Tensor: ...


class Small:
    """Σ = β̃, the posterior's (Ho et al. 2020, arXiv:2006.11239, section 3.2)."""

    learned = False

    def __call__(self, p: Point, v: Tensor | None) -> Tensor:
        return torch.zeros_like(p.t)


class Large:
    """Σ = β, that of q(x_t | x_s) (Ho et al. 2020, arXiv:2006.11239, section 3.2)."""

    learned = False

    def __call__(self, p: Point, v: Tensor | None) -> Tensor:
        return torch.ones_like(p.t)


class Learned:
    """v is the network's, for each number (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15)."""

    learned = True

    def __call__(self, p: Point, v: Tensor | None) -> Tensor:
        if v is None:
            raise GenlabError(
                "a learned variance needs a network that predicts it: "
                "set model.denoiser.learned_variance=true and network.outputs_per_channel=2"
            )
        return v
