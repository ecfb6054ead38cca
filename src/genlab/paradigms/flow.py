"""Normalizing flows: x is what a bijection makes of noise, and its density is exact."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.flows.bijection import Bijection, summed
from genlab.flows.dequantization import Variational
from genlab.flows.logit import Logit
from genlab.flows.temperature import Tempered
from genlab.module import Frame, GenerativeModule
from genlab.noise import NoiseStream


class Flow(GenerativeModule):
    """log p(x) = log N(f(x); 0, I) + log |det ∂f/∂x|, and the loss is -log p in bits per dimension of the data.

    Dinh et al. 2017, arXiv:1605.08803, eq. 2. Data on a lattice are dequantized uniformly by the codec, or by a
    `dequantization` that is learned too: then the likelihood is its bound, and says so. `weight_decay` times the squared
    scales of weight norm is added to the loss, as in RealNVP's published code. Raises GenlabError for data that are not
    finite.
    """

    likelihood = "exact"

    def __init__(
        self,
        *,
        bijection: Bijection,
        dequantization: Variational | None = None,
        sampler: Tempered | None = None,
        weight_decay: float = 0.0,
        **common: Any,
    ):
        super().__init__(**common)
        if self.codec.whole:
            raise GenlabError(
                "a density of bytes or codes has no bound: use a model of tokens, such as model=transformer"
            )
        if self.codec.unbounded and any(isinstance(part, Logit) for part in bijection.modules()):
            raise GenlabError("the logit is for grey levels, and latents have no bounds: set network.before=null")
        if self.codec.unbounded and dequantization is not None:
            raise GenlabError("latents are no grey levels that could be dequantized: leave dequantization out")
        if not weight_decay >= 0:
            raise GenlabError(f"model.weight_decay={weight_decay}: 0 or more is needed")
        self.bijection, self.dequantization = bijection, dequantization
        self.sampler = self.drawn_by(sampler or Tempered(1.0))
        self.averaged = (f"bijection.{bijection.evaluated}".rstrip("."),)
        if bijection.solved:
            self.likelihood = "ode"
        if dequantization is not None:
            self.likelihood, self.bound, self.discrete = "bound", "variational dequantization", True
            self.averaged = (*self.averaged, "dequantization")
        self.weight_decay = weight_decay
        scales = (".original0", ".rescale")  # of weight norm, and of the logarithms of RealNVP's couplings
        self._scales = [p for name, p in bijection.named_parameters() if weight_decay and name.endswith(scales)]
        self._unseen = True

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        if self._unseen:  # once: on a GPU it waits
            check(x)
            self._unseen = False
        if self.discrete:
            nats = self._log_prob(x, y)
        else:
            nats = self._log_prob(self.codec.spread(x), y) + math.prod(self.shape) * (self.codec.log_volume or 0.0)
        loss = self.bits(nats).mean()
        if not self._scales:
            return {"loss": loss}
        norm = torch.stack([p.square().sum() for p in self._scales]).sum()
        return {"loss": loss + self.weight_decay * norm, "bits_per_dim": loss, "scales": norm}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        check(x)
        return self._log_prob(x, y)

    def _log_prob(self, x: Tensor, y: Tensor | None) -> Tensor:
        v, log_q = (x, 0.0) if self.dequantization is None else self.dequantization(x)
        z, log_det = self.bijection(v, y)
        return summed(-0.5 * z.square() - 0.5 * math.log(2 * math.pi)) + log_det - log_q

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """f(x), of x's shape."""
        return self.bijection(x, y)[0]

    def render(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """f⁻¹(z)."""
        return self.bijection(z, y, backward=True)[0]

    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        return self.render(self.latents(noise, n), y)

    def latents(self, noise: NoiseStream, n: int) -> Tensor:
        """z of the sampler, which is N(0, 1) unless it is tempered, (n, *shape)."""
        return self.sampler.latents(noise, (n, *self.shape))

    def trajectory(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Iterator[Frame]:
        """What each layer makes of the noise, latents that are left for later in their places."""
        for x in self.bijection.unfold(self.latents(noise, n), y):
            yield Frame(x, x)


def check(x: Tensor) -> None:
    """Raise GenlabError unless x is finite."""
    if not x.isfinite().all():
        raise GenlabError("the data are not finite: look for nan or inf in them")
