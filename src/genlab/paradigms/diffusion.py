"""Gaussian-path models: DDPM, NCSN, score-SDE and flow matching are five choices of path, parametrization, p(t), weight, sampler."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from genlab.gaussian.denoiser import Denoiser
from genlab.gaussian.likelihood import ProbabilityFlow
from genlab.gaussian.path import Point
from genlab.gaussian.samplers import Sampler
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream


class Diffusion(GenerativeModule):
    """Trained to denoise: E w(t) ‖F(α_t x + σ_t ε, t, y) - target(x, ε)‖², t ~ p(t)."""

    averaged = ("denoiser.network",)

    def __init__(
        self,
        *,
        denoiser: Denoiser,
        times: Callable[[int, torch.device], Tensor],
        weight: Callable[[Point], Tensor | float],
        sampler: Sampler,
        flow: ProbabilityFlow | None = None,
        label_drop: float,
        **common,
    ):
        super().__init__(**common)
        sampler.check(denoiser.path)  # before hours of training, not after them
        self.denoiser, self.times, self.weight, self.sampler = denoiser, times, weight, sampler
        self.flow, self.label_drop = flow, label_drop
        if flow is not None:
            flow.check(denoiser.path)
            self.likelihood = "ode"

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        return self.loss_at(x, torch.randn_like(x), self.times(len(x), x.device), self.drop_labels(y))

    def loss_at(self, x: Tensor, eps: Tensor, t: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        """The loss of given noise and times, with nothing random left."""
        p = self.denoiser.path(t, x.ndim)
        out = self.denoiser.output(p.alpha * x + p.sigma * eps, p, y)
        error = (out - self.denoiser.parametrization.target(x, eps, p)).square()
        return {"loss": (self.weight(p) * error).mean()}

    def drop_labels(self, y: Tensor | None) -> Tensor | None:
        """Each label becomes "none" with probability `label_drop`, for classifier-free guidance."""
        if y is None:
            return None
        return torch.where(torch.rand(len(y), device=y.device) < self.label_drop, self.classes, y)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) log-density along the probability flow; NotImplementedError without a `flow`."""
        if self.flow is None:
            return super().log_prob(x, y)
        return self.flow.log_prob(self.denoiser, x, y)

    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        x = torch.empty(0)
        for x in self.trajectory(noise, n, y):  # noqa: B007 - only the last is wanted, and none of the others kept
            pass
        return x

    def trajectory(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Iterator[Tensor]:
        path = self.denoiser.path
        start = path(torch.tensor(path.t_max, dtype=torch.float64), 1)
        x = start.sigma * noise.normal((n, *self.shape))
        for state in self.sampler.trajectory(self.denoiser, x, noise, y):
            yield state.x_t
