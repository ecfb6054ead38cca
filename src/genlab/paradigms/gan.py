"""Generative adversarial networks."""

from typing import Any

import torch
from torch import Tensor, nn

from genlab.adversarial.objectives import Objective
from genlab.adversarial.penalties import Penalty
from genlab.data.source import Batch
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream
from genlab.optimization import Optimization


class GAN(GenerativeModule):
    """x = G(z), z ~ N(0, I); every batch moves the critic, and every `n_critic`-th the generator too."""

    averaged = ("generator",)

    def __init__(
        self,
        *,
        generator: nn.Module,
        discriminator: nn.Module,
        objective: Objective,
        penalty: Penalty,
        latent: int,
        n_critic: int,
        critic_optimizer: Optimization,
        **common: Any,
    ):
        super().__init__(**common)
        self.automatic_optimization = False
        self.generator, self.discriminator = generator, discriminator
        self.objective, self.penalty = objective, penalty
        self.latent, self.n_critic = latent, n_critic
        self.optimizations = (*self.optimizations, critic_optimizer)

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        """The generator's loss, and the critic's with its values on data and on samples."""
        fake = self.generator(self._latents(x), y)
        return {"loss": self.objective.generator(self.discriminator(fake, y)), **self._critic_terms(x, fake, y)}

    def fit_batch(self, batch: Batch) -> dict[str, Tensor]:
        x, y = self.codec.encode(batch.x), batch.y if self.classes else None
        generator_step, critic_step = self.optimizers()  # pyright: ignore[reportGeneralTypeIssues]
        with self.toggled_optimizer(critic_step):
            with torch.no_grad():
                fake = self.generator(self._latents(x), y)
            terms = self._critic_terms(x, fake, y)
            self._descend(critic_step, terms["critic"])
        turn = self.images_seen // (len(x) * self.trainer.world_size)
        if turn % self.n_critic == self.n_critic - 1:
            with self.toggled_optimizer(generator_step):
                loss = self.objective.generator(self.discriminator(self.generator(self._latents(x), y), y))
                self._descend(generator_step, loss)
            terms["loss"] = loss
        return {name: term.detach() for name, term in terms.items()}

    def _critic_terms(self, x: Tensor, fake: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        real_value, fake_value = self.discriminator(x, y), self.discriminator(fake, y)
        penalty = self.penalty(self.discriminator, x, fake, y)
        return {
            "critic": self.objective.critic(real_value, fake_value) + penalty,
            "penalty": penalty,
            "real": real_value.mean(),
            "fake": fake_value.mean(),
        }

    def _descend(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def _latents(self, x: Tensor) -> Tensor:
        return torch.randn(len(x), self.latent, device=x.device)

    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        return self.render(noise.normal((n, self.latent)), y)

    def render(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """G(z)."""
        return self.generator(z, y)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        parts = (self.generator, self.discriminator)
        return [o.build(part.parameters()) for o, part in zip(self.optimizations, parts, strict=True)]
