"""p(z): what latents are drawn from."""

import abc
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.noise import NoiseStream
from genlab.precision import wide
from genlab.variational.posterior import Diagonal, Draw, Posterior, log_normal


class Density(abc.ABC):
    """A density of latents, as the weights stand."""

    @abc.abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """(B,) nats of z (B, latent)."""

    @abc.abstractmethod
    def sample(self, noise: NoiseStream, n: int, temperature: float = 1.0) -> Tensor:
        """(n, latent), every standard deviation times the temperature."""

    def rate(self, draw: Draw) -> Tensor:
        """(B, G) KL(q ‖ p): here an estimate by z, log q(z | x) - log p(z), with G = 1."""
        return (draw.log_q - self.log_prob(draw.z))[:, None]


class Normal(Density):
    """N(0, I), whose KL has a closed form for each dimension where q is Gaussian."""

    def __init__(self, latent: int):
        self.latent = latent

    def log_prob(self, z: Tensor) -> Tensor:
        return log_normal(z).sum(1)

    def sample(self, noise: NoiseStream, n: int, temperature: float = 1.0) -> Tensor:
        return temperature * noise.normal((n, self.latent))

    def rate(self, draw: Draw) -> Tensor:
        return draw.rate


class Aggregate(Density):
    """Σ_k w_k q(z | h_k), a mixture of K posteriors with parameters h (K, 2 · latent) and log w (K,)."""

    def __init__(self, posterior: Posterior, h: Tensor, log_weights: Tensor):
        self.posterior, self.h, self.log_weights = posterior, h, log_weights

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.logsumexp(self.posterior.pairs(z, self.h).sum(2) + self.log_weights, dim=1)

    def sample(self, noise: NoiseStream, n: int, temperature: float = 1.0) -> Tensor:
        eps = temperature * noise.normal((n, self.h.shape[1] // 2))
        k = (noise.uniform((n, 1)) > self.log_weights.exp().cumsum(0)).sum(1).clamp(max=len(self.h) - 1)
        return self.posterior.draw(self.h[k], eps).z


class Prior(nn.Module, abc.ABC):
    """A choice of p(z)."""

    @abc.abstractmethod
    def given(self, encode: Callable[[Tensor, Tensor | None], Tensor], posterior: Posterior) -> Density:
        """p(z) with the encoder x, y -> h as it stands."""


class StandardNormal(Prior):
    """N(0, I)."""

    def __init__(self, latent: int):
        super().__init__()
        self.density = Normal(latent)

    def given(self, encode: Callable[[Tensor, Tensor | None], Tensor], posterior: Posterior) -> Density:
        return self.density


class Mixture(Prior):
    """Σ_k w_k N(μ_k, diag s_k²), all of it learned; the means begin as draws of N(0, I).

    The baseline "MoG" of Tomczak & Welling 2018, arXiv:1705.07120.
    """

    def __init__(self, latent: int, components: int):
        super().__init__()
        _check(components)
        self.h = nn.Parameter(torch.cat([torch.randn(components, latent), torch.zeros(components, latent)], dim=1))
        self.logits = nn.Parameter(torch.zeros(components))
        self.diagonal = Diagonal()

    def given(self, encode: Callable[[Tensor, Tensor | None], Tensor], posterior: Posterior) -> Density:
        return Aggregate(self.diagonal, self.h, self.logits.log_softmax(0))


class VampPrior(Prior):
    """(1/K) Σ_k q(z | u_k), u_k pseudo-inputs in model space, learned; of a conditional model u_k has the label k mod classes.

    Tomczak & Welling 2018, arXiv:1705.07120, eq. 9. Each use of it encodes all K: K evaluations, counted as such.
    """

    labels: Tensor | None

    def __init__(self, shape: Sequence[int], components: int, spread: float, classes: int):
        super().__init__()
        _check(components)
        if not spread >= 0:
            raise GenlabError(f"prior.spread={spread}: a deviation of 0 or more is needed")
        self.u = nn.Parameter(spread * torch.randn(components, *shape))
        self.register_buffer("labels", torch.arange(components) % classes if classes else None)

    def given(self, encode: Callable[[Tensor, Tensor | None], Tensor], posterior: Posterior) -> Density:
        weights = self.u.new_full((len(self.u),), -math.log(len(self.u)))
        return Aggregate(posterior, wide(encode(self.u, self.labels)), weights)


def _check(components: int) -> None:
    if components < 1:
        raise GenlabError(f"a prior of {components} components: at least 1 is needed")
