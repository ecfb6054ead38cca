"""q(z | x), made of the 2 · latent numbers h = (μ, log s) that an encoder gives."""

import abc
import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.variational.flows import Step


class Draw(NamedTuple):
    """z ~ q(z | x), its density, and what q costs beside N(0, I)."""

    z: Tensor  # (B, latent)
    log_q: Tensor  # (B,)
    rate: Tensor  # (B, latent) KL(q ‖ N(0, I)) of each dimension, or (B, 1) an estimate of their sum by z


def log_normal(z: Tensor) -> Tensor:
    """log N(z; 0, 1), number by number."""
    return -0.5 * z**2 - 0.5 * math.log(2 * math.pi)


class Posterior(nn.Module, abc.ABC):
    """A family of q(z | x); the methods take h (B, 2 · latent)."""

    @abc.abstractmethod
    def mean(self, h: Tensor) -> Tensor:
        """(B, latent) the code of x: where ε = 0 goes."""

    @abc.abstractmethod
    def draw(self, h: Tensor, eps: Tensor) -> Draw:
        """z of ε ~ N(0, I), (B, latent)."""

    @abc.abstractmethod
    def pairs(self, z: Tensor, h: Tensor) -> Tensor:
        """(N, B, G) log q(z_i | x_j) of every pair, G = latent terms where q is a product over dimensions and 1 elsewhere."""


class Diagonal(Posterior):
    """N(μ, diag s²). Kingma & Welling 2014, arXiv:1312.6114, section 3 and appendix B."""

    def mean(self, h: Tensor) -> Tensor:
        return h.chunk(2, dim=1)[0]

    def draw(self, h: Tensor, eps: Tensor) -> Draw:
        mu, log_s = h.chunk(2, dim=1)
        rate = 0.5 * (mu**2 + (2 * log_s).exp() - 1) - log_s
        return Draw(mu + log_s.exp() * eps, (log_normal(eps) - log_s).sum(1), rate)

    def pairs(self, z: Tensor, h: Tensor) -> Tensor:
        mu, log_s = h.chunk(2, dim=1)
        return log_normal((z[:, None] - mu) * (-log_s).exp()) - log_s


class Flow(Posterior):
    """z = f(z_0; h), z_0 ~ N(μ, diag s²), f of `steps` invertible steps, between which the dimensions are reversed:
    log q(z | x) = log q_0(z_0 | x) - log |∂f/∂z_0|.

    Rezende & Mohamed 2015, arXiv:1505.05770, eq. 12; inverse autoregressive: Kingma et al. 2016, arXiv:1606.04934,
    algorithm 1, whose extra context is h itself here. `step(latent, 2 · latent)` makes a step.
    """

    def __init__(self, latent: int, steps: int, step: Callable[[int, int], Step]):
        super().__init__()
        if steps < 1:
            raise GenlabError(f"a flow of {steps} steps: at least 1 is needed (or variational/posterior=diagonal)")
        self.base = Diagonal()
        self.steps = nn.ModuleList(step(latent, 2 * latent) for _ in range(steps))

    def mean(self, h: Tensor) -> Tensor:
        return self._forward(self.base.mean(h), h)[0]

    def draw(self, h: Tensor, eps: Tensor) -> Draw:
        base = self.base.draw(h, eps)
        z, log_det = self._forward(base.z, h)
        log_q = base.log_q - log_det
        return Draw(z, log_q, (log_q - log_normal(z).sum(1))[:, None])

    def pairs(self, z: Tensor, h: Tensor) -> Tensor:
        n, b = len(z), len(h)
        context = h.repeat(n, 1)
        z_0, log_det = self._inverse(z.repeat_interleave(b, dim=0), context)
        mu, log_s = context.chunk(2, dim=1)
        log_q = (log_normal((z_0 - mu) * (-log_s).exp()) - log_s).sum(1) - log_det
        return log_q.reshape(n, b, 1)

    def _forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(len(z))
        for step in self.steps:
            z, more = step(z.flip(1), h)
            log_det = log_det + more
        return z, log_det

    def _inverse(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """z_0, and the log |∂f/∂z_0| of the way from there."""
        log_det = z.new_zeros(len(z))
        for step in reversed(self.steps):
            z = step.inverse(z, h)  # pyright: ignore[reportCallIssue]
            log_det = log_det + step(z, h)[1]
            z = z.flip(1)
        return z, log_det
