"""Variational autoencoders."""

import math
import sys
from typing import Any

import torch
from torch import Tensor, nn

from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.likelihood_heads import Head
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream
from genlab.precision import wide
from genlab.variational.ex_post import ExPost
from genlab.variational.objectives import Objective, Sampled
from genlab.variational.posterior import Posterior
from genlab.variational.prior import Density, Prior
from genlab.variational.temperature import Temperature

ACTIVE = 0.01  # Var_x E[z | x] of a latent in use; Burda et al. 2016, section 5.2
COLLAPSED = 0.1  # a smaller share of active latents is recorded, and said aloud when it stays


class VAE(GenerativeModule):
    """z ~ p(z), x ~ p(x | z), q(z | x): distortion = -E_q log p(x | z), rate = KL(q ‖ p), and an objective made of both.

    Kingma & Welling 2014, arXiv:1312.6114, eq. 3. log_prob is the importance-weighted bound with `importance` samples
    (Burda et al. 2016, arXiv:1509.00519, eq. 8), of which one at a time is in memory. `noisy` samples are draws from
    p(x | z), others its mean; a `sampler` draws z from elsewhere than p(z).
    """

    likelihood = "bound"
    averaged = ("encoder", "decoder", "posterior", "prior")
    collapses: Tensor

    def __init__(
        self,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        head: Head,
        posterior: Posterior,
        prior: Prior,
        objective: Objective,
        latent: int,
        importance: int,
        noisy: bool,
        sampler: ExPost | Temperature | None = None,
        **common: Any,
    ):
        super().__init__(**common)
        if latent < 1:
            raise GenlabError(f"model.latent={latent}: at least 1 latent is needed")
        if importance < 1:
            raise GenlabError(f"model.importance={importance}: the bound needs 1 sample (the ELBO) or more")
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.posterior, self.prior, self.objective = posterior, prior, objective
        self.discrete, self.sampler = head.discrete, self.drawn_by(sampler)
        if isinstance(self.sampler, ExPost):
            self.sampler.check(latent, self.classes)
        self.latent, self.importance, self.noisy = latent, importance, noisy
        self.bound = "ELBO" if importance == 1 else f"IW-{importance}"
        self._unseen = True
        self.register_buffer("collapses", torch.zeros((), dtype=torch.int64))  # passes in a row over held-out data
        self._codes: list[Tensor] = []  # of a pass over the held-out data, (B, latent) each
        self._rates: list[Tensor] = []

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        if self._unseen:  # once: on a GPU it waits
            self.head.check(x)
            self._unseen = False
        if self.head.unbounded:
            x = self.codec.spread(x)
        h, prior = self._encoded(x, y), self._density()
        draws = [self.posterior.draw(h, self._eps(h)) for _ in range(self.objective.draws)]
        s = Sampled(
            distortion=torch.stack([-self.head.log_prob(x, self._decoded(x, draw.z, y)) for draw in draws]),
            log_ratio=torch.stack([draw.log_q - prior.log_prob(draw.z) for draw in draws]),
            rate=prior.rate(draws[0]),
            z=draws[0].z,
            pairs=lambda: self.posterior.pairs(draws[0].z, h),
            prior=lambda: prior.sample(NoiseStream(int(torch.randint(1 << 62, ())), device=x.device), len(x)),
        )
        return {**self.objective(s, self.images_seen), "rate": s.mean_rate, "distortion": s.distortion.mean()}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if data := getattr(self.trainer, "datamodule", None):
            self.objective.begin(len(data.source.split("train").x))

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        terms = super().validation_step(batch, batch_idx) if len(batch.x) >= self.objective.fewest else {}
        h = self._encoded(self.codec.encode(batch.x), batch.y if self.classes else None)
        self._codes.append(self.posterior.mean(h))
        self._rates.append(self._density().rate(self.posterior.draw(h, self._eps(h))))
        return terms

    def validated(self) -> dict[str, Tensor]:
        """Active latents (Burda et al. 2016, section 5.2), whether hardly any is, and the rate of each, of the pass that ended."""
        codes, rate = torch.cat(self._codes).float(), torch.cat(self._rates).float().mean(0)
        self._codes, self._rates = [], []
        active = (codes.var(0, correction=0) > ACTIVE).float().sum()
        collapsed = active < COLLAPSED * self.latent
        self.collapses.copy_((self.collapses + 1) * collapsed)
        if self.collapses == 2:  # in a row: at first nothing is learned yet
            print(
                f"genlab: posterior collapse at {self.images_seen} images: {active:.0f} of {self.latent} latents say anything "
                "of the image; try variational/objective=warm_up or free_bits, or a smaller variational.objective.beta",
                file=sys.stderr,
            )
        each = {f"rate/{i}": value for i, value in enumerate(rate)}
        if self.collapses > 1:
            each["alarm"] = torch.ones(())
        return {"active_units": active, "collapsed": collapsed.float(), **each}

    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        z = self.latents(noise, n)
        if not self.noisy:
            return self.render(z, y)
        return self.head.sample(self.decoder(z, y), noise.uniform((n, *self.shape)))

    def latents(self, noise: NoiseStream, n: int) -> Tensor:
        """z ~ p(z), or of the `sampler`, (n, latent)."""
        return self.draw(noise, n) if self.sampler is None else self.sampler.sample(self, noise, n)

    def draw(self, noise: NoiseStream, n: int, temperature: float = 1.0) -> Tensor:
        """(n, latent) of p(z), or of its components with deviations times a temperature."""
        return self._density().sample(noise, n, temperature)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The code of x, which is the mean of a Gaussian q(z | x)."""
        return self.posterior.mean(self._encoded(x, y))

    def render(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x | z)."""
        return self.head.mean(self.decoder(z, y))

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """log (1/k) Σ_i p(x, z_i)/q(z_i | x), z_i ~ q."""
        self.head.check(x)
        h, prior = self._encoded(x, y), self._density()
        terms = []
        for _ in range(self.importance):
            draw = self.posterior.draw(h, self._eps(h))
            ratio = prior.log_prob(draw.z) - draw.log_q
            terms.append(self.head.log_prob(x, self._decoded(x, draw.z, y)) + ratio)
        return torch.logsumexp(torch.stack(terms), dim=0) - math.log(self.importance)

    def _density(self) -> Density:
        return self.prior.given(self.encoder, self.posterior)

    def _eps(self, h: Tensor) -> Tensor:
        return torch.randn_like(h[:, : self.latent])

    def _encoded(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = wide(self.encoder(x, y))  # (B, 2 · latent)
        if h.shape[1] != 2 * self.latent:
            needed = f"set network.encoder.outputs={2 * self.latent}"
            raise GenlabError(
                f"the encoder has {h.shape[1]} outputs, and {self.latent} latents need two each: {needed}"
            )
        return h

    def _decoded(self, x: Tensor, z: Tensor, y: Tensor | None) -> Tensor:
        return self.head.fitting(wide(self.decoder(z, y)), x.shape[1])
