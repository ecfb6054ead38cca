"""Generative adversarial networks."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genlab.adversarial.augment import Augmentation
from genlab.adversarial.objectives import Objective
from genlab.adversarial.penalties import Penalty, Round
from genlab.adversarial.truncation import Truncation
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream
from genlab.optimization import Optimization
from genlab.precision import wide

FEW = 64  # samples between whose pairs a distance is measured


class GAN(GenerativeModule):
    """x = G(z), z ~ N(0, I); every batch moves the critic, and every `n_critic`-th the generator too, by `fakes`
    samples for each image of the batch.

    The critic sees `packing` samples at once, side by side in channels (Lin et al. 2018, arXiv:1712.04086), after
    `critic_augment`, and with `dequantize` data with noise over their cells, to whose ends G(z) then reaches. Below
    `collapse`, the share of the data's diversity that samples have, the log says so. A `sampler` draws z from elsewhere
    than N(0, I). Raises GenlabError for counts below 1, a penalty or an augmentation that the objective or the data cannot
    use, packs of many labels, and data that are out of the generator's reach.
    """

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
        critic_augment: Augmentation | None = None,
        packing: int = 1,
        fakes: int = 1,
        collapse: float = 0.1,
        dequantize: bool = False,
        sampler: Truncation | None = None,
        **common: Any,
    ):
        super().__init__(**common)
        for name, count in (("latent", latent), ("n_critic", n_critic), ("packing", packing), ("fakes", fakes)):
            if not isinstance(count, int) or count < 1:
                raise GenlabError(f"model.{name}={count}: at least 1 is needed, and a whole number")
        if not collapse >= 0:
            raise GenlabError(f"model.collapse={collapse}: a share of the data's diversity, 0 for no alarm")
        if packing > 1 and self.classes:
            raise GenlabError(f"model.packing={packing}: a pack has no label of its own, so model.classes must be 0")
        if len(self.shape) == 3 and self.shape[1] != self.shape[2]:
            raise GenlabError(f"the data are {self.shape[1]} x {self.shape[2]}, and GANs here draw square images")
        self.automatic_optimization = False
        self.generator, self.discriminator = generator, discriminator
        self.objective, self.penalty, self.critic_augment = objective, penalty, critic_augment
        penalty.check(objective, self.shape)
        if critic_augment is not None:
            critic_augment.check(objective)
            if len(self.shape) != 3:
                raise GenlabError("critic_augment changes images, and these data are none: write ~critic_augment")
        self.latent, self.n_critic, self.packing, self.fakes, self.collapse = latent, n_critic, packing, fakes, collapse
        self.dequantize, self.sampler = dequantize, self.drawn_by(sampler)
        self.optimizations = (*self.optimizations, critic_optimizer)

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        """The generator's loss, and the critic's with its values on data and on samples."""
        x = x[torch.arange(-len(x) % self.packing + len(x), device=x.device) % len(x)]  # the last pack is filled
        z = self._latents(x)
        terms = self._critic_terms(x, self._drawn(z, y), z, y, 0)
        return {"loss": self._generator_loss(x, z, y, 0), **terms}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """What the critic says of data here is said of data that it has not learned from: `held_out`."""
        terms = super().validation_step(batch, batch_idx)
        return {"held_out" if name == "real" else name: term for name, term in terms.items()}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        bound = getattr(self.generator, "bound", None)
        if batch_idx == 0 and bound is not None and (most := self.codec.encode(batch.x).abs().max().item()) > bound:
            raise GenlabError(
                f"the data reach {most:.3g} in model space, and a {type(self.generator).__module__}.Generator draws "
                f"within ±{bound:g}: take another network, such as network=stylegan2, or another codec"
            )

    def fit_batch(self, batch: Batch) -> dict[str, Tensor]:
        parts = batch.parts(self.accumulate)
        n = len(parts[0].x)
        if n % self.packing:
            raise GenlabError(f"model.packing={self.packing} does not divide a batch of {n}: change trainer.batch")
        turn = self.images_seen // (len(batch.x) * self.trainer.world_size)
        generator_step, critic_step = self.optimizers()  # pyright: ignore[reportGeneralTypeIssues]
        if self.critic_augment is not None:
            self.critic_augment.begin(self.images_seen)
        terms = self.descend(critic_step, "critic", lambda x, y: self._critic_turn(x, y, turn), parts)
        self.penalty.project(self.discriminator)
        if self.critic_augment is not None:
            self.critic_augment.adapt(turn)
        if turn % self.n_critic == self.n_critic - 1:
            terms |= self.descend(generator_step, "loss", lambda x, y: self._generator_turn(x, y, turn), parts)
        return terms

    def _critic_turn(self, x: Tensor, y: Tensor | None, turn: int) -> dict[str, Tensor]:
        z = self._latents(x)
        with torch.no_grad():
            fake = self._drawn(z, y)
        apart = {"diversity": self._distance(fake, y) / self._distance(x, y)} if len(x) > 1 else {}
        return {**self._critic_terms(x, fake, z, y, turn), **apart}

    def _generator_turn(self, x: Tensor, y: Tensor | None, turn: int) -> dict[str, Tensor]:
        x, y = torch.cat([x] * self.fakes), None if y is None else torch.cat([y] * self.fakes)
        return {"loss": self._generator_loss(x, self._latents(x), y, turn)}

    def warning(self, means: Mapping[str, float]) -> str | None:
        diversity = means.get("diversity", 1.0)
        if not diversity < self.collapse:
            return super().warning(means)
        return (
            f"the generator has collapsed: its samples are {diversity:.3f} times as far from each other as the data are "
            "(try penalty=r1, model.packing=2 or a lower optimizer.lr)"
        )

    @torch.enable_grad()  # for penalties, in validation too
    def _critic_terms(self, x: Tensor, fake: Tensor, z: Tensor, y: Tensor | None, turn: int) -> dict[str, Tensor]:
        shown, drawn = (self._packed(a).detach().requires_grad_() for a in (self._seen(x), fake))
        seen = self._round(shown, drawn, z, y, turn)
        assert seen.real_value is not None
        penalty = self.penalty.critic(seen)
        if self.critic_augment is not None and self.training and self.objective.undecided is not None:
            self.critic_augment.observe(seen.real_value.detach() - self.objective.undecided, len(x))
        return {
            "critic": self.objective.critic(seen.real_value, seen.fake_value) + penalty,
            "penalty": penalty,
            "real": seen.real_value.mean(),
            "fake": seen.fake_value.mean(),
        }

    def _generator_loss(self, x: Tensor, z: Tensor, y: Tensor | None, turn: int) -> Tensor:
        seen = self._round(
            self._packed(self._seen(x)), self._packed(self._drawn(z, y)), z, y, turn, self.objective.paired
        )
        return self.objective.generator(seen.real_value, seen.fake_value) + self.penalty.generator(seen)

    def _round(self, x: Tensor, fake: Tensor, z: Tensor, y: Tensor | None, turn: int, real: bool = True) -> Round:
        values = self._judge(x, y) if real else None, self._judge(fake, y)
        drawn = (lambda z: self._packed(self._drawn(z, y)), x, fake, z, y)
        return Round(self._judge, *drawn, *values, turn, self.images_seen, self.packing)

    def _seen(self, x: Tensor) -> Tensor:
        """Data as the critic sees them."""
        return self.codec.spread(x) if self.dequantize else x

    def _drawn(self, z: Tensor, y: Tensor | None) -> Tensor:
        """G(z) as both turns see it: float32, as data are, because an augmentation's places in bfloat16 are pixels off."""
        return self._stretched(wide(self.generator(z, y)))

    def _stretched(self, x: Tensor) -> Tensor:
        """What is drawn within ±1, to the ends of what the critic sees of data: else it would know them by these."""
        return x * (1 + self.codec.overhang) if self.dequantize else x

    def _judge(self, x: Tensor, y: Tensor | None) -> Tensor:
        """D of packs x, augmented: penalties differentiate by what was there before, as Karras et al. 2020 do."""
        if self.critic_augment is not None:
            x = self._packed(self.critic_augment(x.reshape(-1, x.shape[1] // self.packing, *x.shape[2:])))
        return wide(self.discriminator(x, y))

    def _packed(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B / packing, packing · C, ...)."""
        return x if self.packing == 1 else x.reshape(-1, self.packing * x.shape[1], *x.shape[2:])

    @staticmethod
    @torch.no_grad()
    def _distance(x: Tensor, y: Tensor | None) -> Tensor:
        """The mean distance between two of a few of x, of one label where two have one: labels alone are no diversity."""
        apart = torch.pdist(x[:FEW].flatten(1).float())
        if y is None:
            return apart.mean()
        i, j = torch.triu_indices(len(x[:FEW]), len(x[:FEW]), 1, device=x.device)
        alike = y[i] == y[j]
        weight = torch.where(alike.any(), alike, True).float()
        return (weight * apart).sum() / weight.sum()

    def _latents(self, x: Tensor) -> Tensor:
        return torch.randn(len(x), self.latent, device=x.device)

    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        z, noises = self.latents(noise, n), getattr(self.generator, "noises", 0)
        return self._rendered(z, y, **({"noise": noise.normal((n, noises))} if noises else {}))

    def latents(self, noise: NoiseStream, n: int) -> Tensor:
        """z ~ N(0, I), or of the `sampler`, (n, latent)."""
        size = (n, self.latent)
        return noise.normal(size) if self.sampler is None else self.sampler.latents(self.generator, noise, size)

    def render(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """G(z), of noise that is always the same where layers add any."""
        return self._rendered(z, y)

    def _rendered(self, z: Tensor, y: Tensor | None, **noise: Tensor) -> Tensor:
        if self.sampler is None:
            return self._stretched(self.generator(z, y, **noise))
        return self._stretched(self.sampler.render(self.generator, z, y, **noise))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        parts = (self.generator, self.discriminator)
        return [o.build(part.parameters()) for o, part in zip(self.optimizations, parts, strict=True)]
