"""Samplers that integrate the probability flow dx/dt = (σ'/σ) x_t + (α' - α σ'/σ) x̂."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser
from genlab.gaussian.grids import Grid
from genlab.gaussian.ode import Parts, integrate
from genlab.gaussian.samplers.sampler import OneStep, Sampler, State
from genlab.gaussian.thresholds import Threshold
from genlab.noise import NoiseStream


class Euler(OneStep):
    """x_s = x_t + (s - t) v(x_t, t) of the probability flow; on the Linear path this is DDIM with η = 0."""

    needs_derivative = True
    deterministic = True

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x_hat = self.denoise(denoiser, x_t, t, y)
        return x_t + (s - t) * denoiser.path(t, x_t.ndim).velocity(x_t, x_hat), x_hat


class Heun(OneStep):
    """Euler's step, then the mean of the velocities at both ends; the step to 0 stays Euler's: 2·steps - 1 evaluations.

    With `churn`, where s_min ≤ σ/α ≤ s_max, the noise level is first raised by γ = min(churn/steps, √2 - 1) of itself:
    x ← (α_t̂/α_t) x + α_t̂ √(r̂² - r²) s_noise z, r = σ/α, r̂ = (1 + γ) r, which on a path with α = 1 is
    Karras et al. 2022, arXiv:2206.00364, algorithm 2, and elsewhere its code's general form. Without churn no number is
    drawn. Raises GenlabError on a churn below 0 and on an empty range of noise levels.
    """

    needs_derivative = True

    def __init__(
        self,
        steps: int,
        grid: Grid,
        churn: float = 0.0,
        s_min: float = 0.0,
        s_max: float = math.inf,
        s_noise: float = 1.0,
        threshold: Threshold | None = None,
        double: bool = False,
    ):
        super().__init__(steps, grid, threshold, double)
        if churn < 0:
            raise GenlabError(f"sampler.churn={churn:g} would take noise away: 0 is deterministic, and 40 is EDM's")
        if s_min >= s_max:
            raise GenlabError(f"sampler.s_min={s_min:g}, s_max={s_max:g}: no noise level is between them")
        self.churn, self.s_min, self.s_max, self.s_noise = churn, s_min, s_max, s_noise
        self.deterministic = churn == 0

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x_t, t = self._stir(denoiser, x_t, t, noise)
        x_hat = self.denoise(denoiser, x_t, t, y)
        v = denoiser.path(t, x_t.ndim).velocity(x_t, x_hat)
        x_s = x_t + (s - t) * v
        if s == 0:
            return x_s, x_hat
        v_s = denoiser.path(s, x_t.ndim).velocity(x_s, self.denoise(denoiser, x_s, s, y))
        return x_t + (s - t) * (v + v_s) / 2, x_hat

    def _stir(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, noise: NoiseStream) -> tuple[Tensor, Tensor]:
        """x at the higher noise level (1 + γ) σ/α, and the time of it."""
        p = denoiser.path(t, x_t.ndim)
        ratio = p.sigma / p.alpha
        gamma = min(self.churn / self.steps, math.sqrt(2) - 1)
        if gamma == 0 or not self.s_min <= ratio <= self.s_max or ratio.isinf():
            return x_t, t
        higher = denoiser.path.time((1 + gamma) * ratio)
        q = denoiser.path(higher, x_t.ndim)
        z = noise.normal(x_t.shape)
        raised = ((1 + gamma) ** 2 - 1) ** 0.5 * ratio
        return q.alpha / p.alpha * x_t + q.alpha * raised * self.s_noise * z, higher


class ProbabilityFlow(Sampler):
    """dopri5 down to t_end at a tolerance, absolute and relative, then, if asked, x ← x̂ there.

    Song et al. 2021, arXiv:2011.13456, section 4.3 and appendix D.1; its code denoises by one reverse-diffusion step without
    noise, which is x̂ on VE. The solver
    chooses its own steps, one size for the whole batch, so that a sample depends on its batch-mates as far as the
    tolerance lets it; `steps` is the number of states shown, and each but the last costs one evaluation more. Raises
    GenlabError where the tolerance is not reached within `most` evaluations.
    """

    needs_derivative = True
    deterministic = True
    adaptive = True

    def __init__(
        self,
        steps: int,
        grid: Grid,
        t_end: float,
        tolerance: float,
        denoise: bool,
        most: int = 2000,
        threshold: Threshold | None = None,
        double: bool = False,
    ):
        super().__init__(steps, grid, threshold, double)
        self.t_end, self.tolerance, self.final, self.most = t_end, tolerance, denoise, most

    def check(self, denoiser: Denoiser) -> None:
        super().check(denoiser)
        if not 0 < self.t_end < denoiser.path.t_max:
            raise GenlabError(f"sampler.t_end={self.t_end:g}: a small time above 0, such as 1e-5")

    def walk(
        self, denoiser: Denoiser, x: Tensor, times: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> Iterator[State]:
        def field(t: Tensor, parts: Parts) -> Parts:
            (x_t,) = parts
            return (denoiser.path(t, x_t.ndim).velocity(x_t, self.denoise(denoiser, x_t, t, y)),)

        times = torch.cat([times[times > self.t_end], times.new_tensor([self.t_end])])
        (states,) = integrate(field, (x,), times, self.tolerance, self.most)  # (len(times), B, ...)
        for t, x_t in zip(times[1:-1], states[1:-1], strict=True):
            yield State(t, x_t, self.denoise(denoiser, x_t, t, y))
        x = states[-1]
        x_hat = self.denoise(denoiser, x, times[-1], y) if self.final else x
        yield State(torch.zeros_like(times[-1]), x_hat, x_hat)
