"""Gaussian-path models: DDPM, NCSN, score-SDE, EDM and flow matching are five choices of path, parametrization, p(t), weight, sampler."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.gaussian import weights
from genlab.gaussian.coupling import Coupling, Independent
from genlab.gaussian.denoiser import Denoiser
from genlab.gaussian.guidance import Guidance
from genlab.gaussian.likelihood import Density, Flow
from genlab.gaussian.prior import Normal, Prior
from genlab.gaussian.samplers import Sampler
from genlab.gaussian.times import Times
from genlab.gaussian.variational import VariationalTerm
from genlab.gaussian.weights import Weight
from genlab.module import Frame, GenerativeModule, Transport
from genlab.noise import NoiseStream

LEVELS = 10  # of noise, at which validation reports the error of x̂


class Diffusion(GenerativeModule):
    """Trained to denoise: E w(t) ‖F(α_t x + σ_t ε, t, y) - target(x, ε)‖², t ~ p(t), (x, ε) ~ the coupling.

    `variational` adds a term that teaches the variance; `augment` gives (x, labels of how x was changed); `density`
    evaluates log p(x); `guidance` makes of the denoiser and its classes another one, for sampling alone.
    """

    averaged = ("denoiser.network",)
    shards = True

    def __init__(
        self,
        *,
        denoiser: Denoiser,
        times: Times,
        weight: Weight,
        sampler: Sampler,
        reduction: Callable[[Tensor], Tensor] = weights.mean,
        variational: VariationalTerm | None = None,
        coupling: Coupling | None = None,
        prior: Prior | None = None,
        augment: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        density: Density | None = None,
        guidance: Callable[[Denoiser, int], Guidance] | None = None,
        label_drop: float,
        **common,
    ):
        super().__init__(**common)
        self.denoiser = denoiser
        self.sampler = self.drawn_by(sampler)
        sampler.check(denoiser)
        times.check(denoiser.path)
        if self.codec.unbounded and sampler.threshold is not None:
            raise GenlabError(
                "these data have no bounds to clip x̂ to: set sampler.threshold=null, or take another sampler"
            )
        if augment is not None and (len(self.shape) != 3 or hasattr(coupling, "run")):  # a teacher's pairs
            raise GenlabError(
                "augment changes images of the data, which are not what is learned from here: leave it out"
            )
        if augment is not None and getattr(denoiser.network, "augmentation", None) is None:
            raise GenlabError(
                "augment changes what is learned unless the network is told of it: set network.augmentations=9"
            )
        self.times, self.weight = times, weight
        self.reduction, self.variational, self.augment = reduction, variational, augment
        self.coupling, self.prior = coupling or Independent(), prior or Normal()
        if not self.prior.gaussian and not (denoiser.path.vanishing and sampler.deterministic and density is None):
            raise GenlabError(
                "a prior that is not N(0, 1) needs the path Linear, a deterministic sampler such as euler or heun, "
                "and no likelihood"
            )
        self.density, self.label_drop = density, label_drop
        self.guidance = None if guidance is None else guidance(denoiser, self.classes)
        if self.guidance is not None:
            self.guidance.check(self.shape, label_drop)
        if density is not None:
            density.check(denoiser)
            self.likelihood, self.discrete = density.kind, density.discrete
            self.repeats = density.repeats

    @property
    def guided(self) -> Any:
        """What samplers see: the denoiser, or what guides it and answers as it does."""
        return self.denoiser if self.guidance is None else self.guidance

    @property
    def choices(self) -> int:
        return self.classes if self.guidance is None else self.guidance.labels

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        x, augmentation = (x, None) if self.augment is None or not self.training else self.augment(x)
        x, eps, y = self.coupling(x, self.prior.like(x), y)
        t = self.times(len(x), x.device)
        losses = self.losses(x, eps, t, self.drop_labels(y), augmentation)
        correction = self.times.correction(t)  # by the law that t was drawn from, before it learns
        if self.training:
            self.times.observe(t, losses["loss"].detach())
        return {name: (correction * value).mean() for name, value in losses.items()}

    def losses(
        self, x: Tensor, eps: Tensor, t: Tensor, y: Tensor | None, augmentation: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The (B,) terms of given noise and times, with nothing random left."""
        p = self.denoiser.path(t, x.ndim)
        x_t = p.alpha * x + p.sigma * eps
        out, v = self.denoiser.output(x_t, p, y, augmentation)
        error = (out - self.denoiser.parametrization.target(x, eps, p)).square()
        simple = self.reduction(self.weight(p, self.denoiser.parametrization) * error)
        if self.variational is None:
            return {"loss": simple}
        bound = self.variational(self.denoiser, x, x_t, t, out, v)
        return {"loss": simple + bound, "simple": simple, "bound": bound}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        terms = super().validation_step(batch, batch_idx)
        return {**terms, **self.denoising_errors(self.codec.encode(batch.x), batch.y if self.classes else None)}

    def denoising_errors(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        """Mean of (x̂ - x)² per dimension at ten levels of noise, the quantiles (k + 1/2)/10 of p(t).

        Row i is seen at level i mod 10, so that one evaluation tells them all; a batch of fewer rows tells nothing.
        """
        if len(x) < LEVELS:
            return {}
        x, eps, y = self.coupling(x, self.prior.like(x), y)
        level = torch.arange(len(x), device=x.device) % LEVELS
        t = self.times.quantile((level + 0.5) / LEVELS)
        p = self.denoiser.path(t, x.ndim)
        errors = (self.denoiser(p.alpha * x + p.sigma * eps, t, y) - x).square().flatten(1).mean(1)  # (B,)
        return {f"x_error/{k}": errors[k::LEVELS].mean() for k in range(LEVELS)}

    def drop_labels(self, y: Tensor | None) -> Tensor | None:
        """Each label becomes "none" with probability `label_drop`, for classifier-free guidance."""
        if y is None:
            return None
        return torch.where(torch.rand(len(y), device=y.device) < self.label_drop, self.classes, y)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) log-density or its bound; NotImplementedError without a `density`."""
        if self.density is None:
            return super().log_prob(x, y)
        return self.density.log_prob(self.denoiser, x, y)

    def log_prob_parts(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        if self.density is None:
            return super().log_prob_parts(x, y)
        return self.density.parts(self.denoiser, x, y)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """z = x(t_max)/σ(t_max) at the end of the probability flow from x; raises GenlabError without one."""
        return self._flow().encode(self.denoiser, x, y)

    def render(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """x of the latent z, by the same ODE downwards."""
        return self._flow().render(self.denoiser, z, y)

    def _flow(self) -> Flow:
        path = self.denoiser.path
        if path.twin is not None:
            raise GenlabError(
                f"the {type(path).__name__} path is discrete and has no ODE between images and latents: "
                f"train on the path {path.twin}"
            )
        if self.density is None or self.density.flow is None:
            raise GenlabError("latents are those of the likelihood's ODE, and there is none: use likelihood=hutchinson")
        return self.density.flow

    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        frame = None
        for frame in self.trajectory(noise, n, y):  # noqa: B007 - only the last is wanted, and none of the others kept
            pass
        assert frame is not None  # a sampler has at least one step
        return frame.x_t

    def trajectory(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Iterator[Frame]:
        for state in self.sampler.trajectory(self.guided, self.start(noise, n), noise, y):
            yield Frame(state.x_t.float(), state.x_hat.float())

    def start(self, noise: NoiseStream, n: int, eps: Tensor | None = None) -> Tensor:
        """(n, *shape) σ(t_max) ε, where sampling begins, of the prior's ε or those given."""
        path = self.denoiser.path
        sigma = path(torch.tensor(path.t_max, dtype=torch.float64), 1).sigma
        return sigma * (self.latents(noise, n) if eps is None else eps)

    def latents(self, noise: NoiseStream, n: int) -> Tensor:
        """z of the prior, (n, *shape)."""
        return self.prior.sample(noise, (n, *self.shape))

    def transport(self, noise: NoiseStream, n: int, y: Tensor | None = None, eps: Tensor | None = None) -> Transport:
        """The integral as Σ ‖Δx‖²/Δt over the sampler's steps, from ε of the prior or those given; raises GenlabError where
        the steps draw noise."""
        if not self.sampler.deterministic:
            raise GenlabError(f"{type(self.sampler).__name__} draws noise on its way: use the sampler euler or heun")
        z = x = self.start(noise, n, eps)
        t, energy = self.denoiser.path.t_max, torch.zeros(n, dtype=torch.float64, device=z.device)
        for state in self.sampler.trajectory(self.guided, x, noise, y):
            energy += (state.x_t - x).flatten(1).square().sum(1) / (t - state.t.item())
            x, t = state.x_t, state.t.item()
        return Transport(z, x.float(), energy)
