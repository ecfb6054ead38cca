"""The levels of a hierarchical VAE, z_l = μ_p + s_p ζ_l: in ζ the prior of every level is N(0, I), whatever is above it."""

import abc

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.variational.posterior import Diagonal, Draw


class Parametrization(abc.ABC):
    """What the numbers of a level mean: (μ_p, log s_p) of its prior, and h of its posterior, (B, 2 C, H, W) each.

    With a `bound` b every number a is b tanh(a/b), as the published code of Vahdat & Kautz 2020 has it.
    """

    def __init__(self, bound: float | None = None):
        if bound is not None and not bound > 0:
            raise GenlabError(f"parametrization.bound={bound}: a number above 0, or null for none")
        self.bound = bound

    def prior(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """μ_p and log s_p."""
        return self._numbers(p)

    @abc.abstractmethod
    def posterior(self, p: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """(m, log r) of q(ζ | x) = N(m, r²)."""

    def _numbers(self, a: Tensor) -> tuple[Tensor, Tensor]:
        a = a.to(torch.promote_types(a.dtype, torch.float32))  # half precision has no place for an exponential
        first, second = (a if self.bound is None else self.bound * (a / self.bound).tanh()).chunk(2, dim=1)
        return first, second


class Absolute(Parametrization):
    """q(z | x) = N(μ_q, s_q²), h = (μ_q, log s_q): m = (μ_q - μ_p)/s_p, r = s_q/s_p. Child 2021, arXiv:2011.10650, section 3."""

    def posterior(self, p: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        (mu_p, log_s_p), (mu_q, log_s_q) = self._numbers(p), self._numbers(h)
        return (mu_q - mu_p) * (-log_s_p).exp(), log_s_q - log_s_p


class Residual(Parametrization):
    """q(z | x) = N(μ_p + Δμ, (s_p Δs)²), h = (Δμ, log Δs): m = Δμ/s_p, r = Δs, and KL = ½ Σ (Δμ²/s_p² + Δs² - log Δs² - 1).

    Vahdat & Kautz 2020, arXiv:2007.03898, section 3.2 and eq. 2.
    """

    def posterior(self, p: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        (_, log_s_p), (shift, log_stretch) = self._numbers(p), self._numbers(h)
        return shift * (-log_s_p).exp(), log_stretch


class Descent:
    """One way down: called level by level for z, it keeps what was drawn. Without a posterior ζ = ε."""

    def __init__(self, parametrization: Parametrization):
        self.parametrization, self.diagonal = parametrization, Diagonal()
        self.draws: list[Draw] = []  # of ζ, flattened

    def __call__(self, p: Tensor, h: Tensor | None, eps: Tensor) -> Tensor:
        """z (B, C, H, W) of numbers of the prior and, to infer, of the posterior, and ε ~ N(0, I)."""
        mu, log_s = self.parametrization.prior(p)
        if h is not None:
            numbers = torch.cat([part.flatten(1) for part in self.parametrization.posterior(p, h)], dim=1)
            draw = self.diagonal.draw(numbers, eps.flatten(1))
            self.draws.append(draw)
            eps = draw.z.reshape(eps.shape)
        return mu + log_s.exp() * eps

    @property
    def code(self) -> Tensor:
        """(B, D) ζ of all levels, from the top down."""
        return torch.cat([draw.z for draw in self.draws], dim=1)

    @property
    def rates(self) -> Tensor:
        """(B, L) KL(q ‖ p) of each level, given what was drawn above it."""
        return torch.stack([draw.rate.sum(1) for draw in self.draws], dim=1)

    @property
    def log_q(self) -> Tensor:
        """(B,) Σ_l log q(ζ_l | x, ζ above)."""
        return torch.stack([draw.log_q for draw in self.draws]).sum(0)
