"""Autoencoders with a slight KL penalty and a discriminator of patches, for models of their latents."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genlab.adversarial.objectives import Objective
from genlab.adversarial.perceptual import Perceptual
from genlab.data.source import Batch
from genlab.distributed import total, world
from genlab.errors import GenlabError
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream
from genlab.optimization import Optimization
from genlab.precision import wide


def adaptive_weight(likelihood: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """‖∇ L_rec‖/(‖∇ L_adv‖ + 10⁻⁴), at most 10⁴, with respect to the weights of the last layer, over all ranks.

    Esser et al. 2021, VQGAN, arXiv:2012.09841, eq. 7, with its code's δ and bound.
    """
    gradients = [torch.autograd.grad(term, last, retain_graph=True)[0] for term in (likelihood, adversarial)]
    rec, adv = ((total(gradient) / world()).norm() for gradient in gradients)
    return (rec / (adv + 1e-4)).clamp(max=1e4)


class KLAutoencoder(GenerativeModule):
    """L_rec + κ KL(q(z | x) ‖ N(0, I)) + w λ L_adv: L_rec = D (mean |x - x̂| + p · perceptual), x̂ = D(z), z ~ q(z | x), in
    nats of an image of D dimensions, λ the adaptive weight.

    Rombach et al. 2022, arXiv:2112.10752, eq. 25 and its code, whose learned log σ² no optimizer is given, so that it stays
    0. The discriminator, its weight and the perceptual distance in its features begin after `start` images. κ is so small
    that draws of z ~ N(0, I), which `sample` renders, are no pictures: it is judged by its reconstructions, and is there
    for others to be trained on its latents (`codec=latent`). Raises GenlabError for labels, which are left to these.
    """

    averaged = ("encoder", "decoder")
    judged_by = "reconstruction"
    reconstructs = True

    def __init__(
        self,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        discriminator: nn.Module,
        objective: Objective,
        perceptual: Perceptual | None,
        latent_shape: Sequence[int],
        kl_weight: float,
        adversarial_weight: float,
        perceptual_weight: float,
        start: int,
        critic_optimizer: Optimization,
        **common: Any,
    ):
        super().__init__(**common)
        if self.classes:
            raise GenlabError(
                "an autoencoder takes no labels, what is trained on its latents does: set model.classes=0"
            )
        if latent_shape[0] < 1:
            raise GenlabError(f"network.latent={latent_shape[0]}: at least 1 channel of latents is needed")
        for name, weight in (("kl", kl_weight), ("adversarial", adversarial_weight), ("perceptual", perceptual_weight)):
            if not weight >= 0:
                raise GenlabError(f"model.{name}_weight={weight}: 0 or more is needed")
        if objective.paired:
            raise GenlabError("patches of an image and of its reconstruction are no pairs: objective=hinge or another")
        self.automatic_optimization = False
        self.encoder, self.decoder, self.discriminator = encoder, decoder, discriminator
        self.objective, self.perceptual = objective, perceptual
        self.latent_shape, self.start = tuple(latent_shape), start
        self.kl_weight, self.perceptual_weight = kl_weight, perceptual_weight
        self.adversarial_weight = adversarial_weight
        self.optimizations = (*self.optimizations, critic_optimizer)

    @property
    def playing(self) -> bool:
        """Whether the discriminator has begun."""
        return self.images_seen >= self.start

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        """What is minimized but for the adversarial term, whose weight is that of a moment in training."""
        return self._terms_of(x)[0]

    def fit_batch(self, batch: Batch) -> dict[str, Tensor]:
        parts = batch.parts(self.accumulate)
        step, critic_step = self.optimizers()  # pyright: ignore[reportGeneralTypeIssues]
        terms = self.descend(step, "loss", self._turn, parts)
        if self.playing:
            terms |= self.descend(critic_step, "critic", self._critic_turn, parts)
        return terms

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x = self.codec.encode(batch.x)
        return self.loss(x, None) | (self._critic_turn(x, None) if self.playing else {})

    def _turn(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        terms, x_hat = self._terms_of(x)
        if self.playing:
            adversarial = self.objective.generator(None, wide(self.discriminator(x_hat)))
            weight = adaptive_weight(terms["likelihood"], adversarial, self.decoder.last.weight)  # pyright: ignore
            terms |= {"adversarial": adversarial, "adaptive_weight": weight}
            terms["loss"] = terms["loss"] + self.adversarial_weight * weight * adversarial
        return terms

    def _critic_turn(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        with torch.no_grad():
            x_hat = self.decoder(self._drawn(*self._posterior(x)))
        real, fake = wide(self.discriminator(x)), wide(self.discriminator(x_hat))
        return {"critic": self.objective.critic(real, fake), "real": real.mean(), "fake": fake.mean()}

    def _terms_of(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        mean, log_variance = self._posterior(x)
        x_hat = self.decoder(self._drawn(mean, log_variance))
        error = wide(x_hat) - x
        distance, terms = error.abs().mean(), {"reconstruction": error.square().mean()}
        if self.perceptual is not None and self.playing:
            terms["perceptual"] = self.perceptual(self.discriminator, x, x_hat)
            distance = distance + self.perceptual_weight * terms["perceptual"]
        rate = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / (2 * len(x))
        terms |= {"likelihood": math.prod(self.shape) * distance, "rate": rate}
        return {"loss": terms["likelihood"] + self.kl_weight * rate, **terms}, x_hat

    @staticmethod
    def _drawn(mean: Tensor, log_variance: Tensor) -> Tensor:
        return mean + (log_variance / 2).exp() * torch.randn_like(mean)

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log variances (B, *latent_shape) of q(z | x); the bounds are those of the published code."""
        mean, log_variance = wide(self.encoder(x)).chunk(2, dim=1)
        if mean.shape[1:] != self.latent_shape:
            raise GenlabError(
                f"the encoder makes {tuple(mean.shape[1:])}, and model.latent_shape is {self.latent_shape}"
            )
        return mean, log_variance.clamp(-30, 20)

    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        return self.render(self.latents(noise, n))

    def latents(self, noise: NoiseStream, n: int) -> Tensor:
        """z ~ N(0, I), (n, *latent_shape)."""
        return noise.normal((n, *self.latent_shape))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of q(z | x), (B, *latent_shape)."""
        return self._posterior(x)[0]

    def render(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.decoder(z)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        own = [*self.encoder.parameters(), *self.decoder.parameters()]
        parts = (own, self.discriminator.parameters())
        return [o.build(part) for o, part in zip(self.optimizations, parts, strict=True)]
