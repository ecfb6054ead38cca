"""Samplers that take Langevin steps at a fixed noise: NCSN's annealing, and score-SDE's corrector."""

from collections.abc import Callable

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser
from genlab.gaussian.grids import Grid
from genlab.gaussian.samplers.sampler import OneStep
from genlab.gaussian.thresholds import Threshold
from genlab.noise import NoiseStream


class PredictorCorrector(OneStep):
    """`corrections` Langevin steps at t, then one step of the predictor to s.

    x ← x + h ∇log p + √(2h) z, h = 2a² (r ‖z‖/‖∇log p‖)². Song et al. 2021, arXiv:2011.13456, algorithms 2-5; the a² is
    the 1 - β_t of its code on VP, and 1 on VE. Published norms are means over the batch, so that a sample depends on its
    batch-mates; `per_sample` takes each sample's own, whose chance correlation with z widens the law a little (8 % of
    the variance in 64 dimensions at r = 0.16 on VP). Raises GenlabError for a predictor without single steps.
    """

    def __init__(
        self,
        steps: int,
        grid: Grid,
        predictor: Callable[..., OneStep],
        corrections: int,
        snr: float,
        per_sample: bool,
        threshold: Threshold | None = None,
        double: bool = False,
    ):
        super().__init__(steps, grid, threshold, double)
        self.predictor = predictor(steps=steps, grid=grid, threshold=threshold)
        if not hasattr(self.predictor, "step"):
            raise GenlabError(
                f"sampler.predictor: {type(self.predictor).__name__} is no sampler of single steps: use Ancestral, DDIM, "
                "ReverseDiffusion, EulerMaruyama, Euler or Heun"
            )
        self.corrections, self.snr, self.per_sample = corrections, snr, per_sample

    def check(self, denoiser: Denoiser) -> None:
        self.predictor.check(denoiser)  # of the same steps and grid

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p, q = denoiser.path(t, x_t.ndim), denoiser.path(s, x_t.ndim)
        a, _ = p.bridge(q)
        for _ in range(self.corrections):
            score, z = p.score(x_t, self.denoise(denoiser, x_t, t, y)), noise.normal(x_t.shape)
            h = 2 * a**2 * (self.snr * self._norm(z) / self._norm(score)) ** 2
            x_t = x_t + h * score + (2 * h).sqrt() * z
        return self.predictor.step(denoiser, x_t, t, s, noise, y)

    def _norm(self, v: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(v.flatten(1), dim=1).reshape((-1,) + (1,) * (v.ndim - 1))
        return norms if self.per_sample else norms.mean()


class AnnealedLangevin(OneStep):
    """At each level `inner` steps x ← x + h ∇log p + √(2h) z with h = step_size (σ_t/σ_1)², then, if asked, x ← x̂.

    Song & Ermon 2019, arXiv:1907.05600, algorithm 1, where h is α_i/2, and their code, where it is
    step_lr (σ_i/σ_L)², twice as much; the final x̂ is that of
    Jolicoeur-Martineau et al. 2020, arXiv:2009.05475. `steps` counts levels: one for each time of the grid.
    """

    needs_exploding = True

    def __init__(
        self,
        steps: int,
        grid: Grid,
        inner: int,
        step_size: float,
        denoise: bool,
        threshold: Threshold | None = None,
        double: bool = False,
    ):
        super().__init__(steps, grid, threshold, double)
        self.inner, self.step_size, self.final = inner, step_size, denoise

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p = denoiser.path(t, x_t.ndim)
        smallest = denoiser.path(self.grid(denoiser.path, self.steps)[-2], x_t.ndim)
        h = self.step_size * (p.sigma / smallest.sigma) ** 2
        x_hat = x_t
        for _ in range(self.inner):
            x_hat = self.denoise(denoiser, x_t, t, y)
            x_t = x_t + h * p.score(x_t, x_hat) + (2 * h).sqrt() * noise.normal(x_t.shape)
        if s == 0 and self.final:
            x_t = x_hat = self.denoise(denoiser, x_t, t, y)
        return x_t, x_hat
