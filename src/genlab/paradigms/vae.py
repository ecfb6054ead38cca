"""Variational autoencoders."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from genlab.likelihood_heads import Head
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream


class VAE(GenerativeModule):
    """z ~ N(0, I), x ~ p(x | z), q(z | x) = N(μ, s²); loss = -E_q log p(x | z) + β KL(q ‖ N(0, I)).

    Kingma & Welling 2014, arXiv:1312.6114, eq. 3; β: Higgins et al. 2017. log_prob is the importance-weighted bound with
    `importance` samples (Burda et al. 2016, arXiv:1509.00519, eq. 8). `noisy` samples are draws from p(x | z), others its mean.
    """

    likelihood = "bound"
    averaged = ("encoder", "decoder")

    def __init__(
        self,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        head: Head,
        latent: int,
        beta: float,
        importance: int,
        noisy: bool,
        **common: Any,
    ):
        super().__init__(**common)
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.discrete = head.discrete
        self.latent, self.beta, self.importance, self.noisy = latent, beta, importance, noisy

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        mu, log_s = self.encoder(x, y).chunk(2, dim=1)  # (B, latent) each
        z = mu + log_s.exp() * torch.randn_like(mu)
        distortion = -self.head.log_prob(x, self.decoder(z, y)).mean()
        rate = (0.5 * (mu**2 + (2 * log_s).exp() - 1) - log_s).sum(1).mean()
        return {"loss": distortion + self.beta * rate, "rate": rate, "distortion": distortion}

    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        z = noise.normal((n, self.latent))
        if not self.noisy:
            return self.render(z, y)
        return self.head.sample(self.decoder(z, y), noise.uniform((n, *self.shape)))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """μ, the mean of q(z | x)."""
        return self.encoder(x, y).chunk(2, dim=1)[0]

    def render(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x | z)."""
        return self.head.mean(self.decoder(z, y))

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """log (1/k) Σ_i p(x, z_i)/q(z_i | x), z_i ~ q."""
        mu, log_s = self.encoder(x, y).chunk(2, dim=1)
        terms = []
        for _ in range(self.importance):
            eps = torch.randn_like(mu)
            z = mu + log_s.exp() * eps
            # log p(z) - log q(z | x): the normalizing constants cancel
            ratio = (0.5 * eps**2 + log_s - 0.5 * z**2).sum(1)
            terms.append(self.head.log_prob(x, self.decoder(z, y)) + ratio)
        return torch.logsumexp(torch.stack(terms), dim=0) - math.log(self.importance)
