"""From noise to data, step by step; a sampler sees a Denoiser and nothing else of a model."""

import abc
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser
from genlab.gaussian.grids import Grid
from genlab.gaussian.path import GaussianPath, Point
from genlab.noise import NoiseStream


class State(NamedTuple):
    """A trajectory after one step: the time reached, x there, and the x̂ that led to it."""

    t: Tensor
    x_t: Tensor
    x_hat: Tensor


class Sampler(abc.ABC):
    """`steps` steps down a grid of times, from x ~ N(0, σ(t_max)²) to data at t = 0."""

    needs_derivative: ClassVar[bool] = False
    needs_exploding: ClassVar[bool] = False
    divides_by_alpha: ClassVar[bool] = False

    def __init__(self, steps: int, grid: Grid):
        if steps < 1:
            raise GenlabError(f"sampler.steps={steps}: at least one step is needed")
        self.steps, self.grid = steps, grid

    @abc.abstractmethod
    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x_s and the x̂ it was made from; t > s are () float64, and the step to s = 0 adds no noise."""

    def trajectory(self, denoiser: Denoiser, x: Tensor, noise: NoiseStream, y: Tensor | None = None) -> Iterator[State]:
        """One State per step."""
        for t, s in pairwise(self.grid(denoiser.path, self.steps)):
            x, x_hat = self.step(denoiser, x, t, s, noise, y)
            yield State(s, x, x_hat)

    def check(self, path: GaussianPath) -> None:
        """Raise GenlabError where this sampler makes no sense on the path."""
        sampler, name = type(self).__name__, type(path).__name__
        if self.needs_derivative and path.twin is not None:
            raise GenlabError(f"{sampler} needs dα/dt, and the {name} path is discrete: use the path {path.twin}")
        if self.needs_exploding and not path.exploding:
            raise GenlabError(f"{sampler} needs a path with α = 1 (Levels, VE), not {name}")
        if self.divides_by_alpha and path.vanishing:
            raise GenlabError(
                f"{sampler} divides by α, which is 0 where the {name} path begins: use Ancestral, or DDIM with eta=1"
            )
        self.grid(path, self.steps)


def _bridge(p: Point, q: Point) -> tuple[Tensor, Tensor]:
    """q(x_t | x_s) = N(a x_s, b²): a = α_t/α_s and b² = σ_t² - a²σ_s², for p at t and q at s < t."""
    a = p.alpha / q.alpha
    return a, p.sigma**2 - a**2 * q.sigma**2


class Ancestral(Sampler):
    """x_s ~ q(x_s | x_t, x̂), its variance the posterior's ("small") or that of q(x_t | x_s) ("large").

    mean = (a σ_s²/σ_t²) x_t + (α_s b²/σ_t²) x̂. Ho et al. 2020, arXiv:2006.11239, algorithm 2, eq. 7; x̂ is clipped first.
    """

    def __init__(self, steps: int, grid: Grid, large_variance: bool, clip: bool):
        super().__init__(steps, grid)
        self.large_variance, self.clip = large_variance, clip

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p, q = denoiser.path(t, x_t.ndim), denoiser.path(s, x_t.ndim)
        x_hat = denoiser(x_t, t, y)
        if self.clip:
            x_hat = x_hat.clamp(-1, 1)
        a, b2 = _bridge(p, q)
        mean = (a * q.sigma**2 / p.sigma**2) * x_t + (q.alpha * b2 / p.sigma**2) * x_hat
        if s == 0:
            return mean, x_hat
        variance = b2 if self.large_variance else b2 * q.sigma**2 / p.sigma**2
        return mean + variance.sqrt() * noise.normal(x_t.shape), x_hat


class DDIM(Sampler):
    """x_s = α_s x̂ + √(σ_s² - c²) ε̂ + c z, c = η (σ_s/σ_t) b: η scales the standard deviation.

    Song et al. 2021, arXiv:2010.02502, eq. 12 and 16; clipping x̂ re-derives ε̂ from it.
    """

    def __init__(self, steps: int, grid: Grid, eta: float, clip: bool):
        super().__init__(steps, grid)
        self.eta, self.clip = eta, clip

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p, q = denoiser.path(t, x_t.ndim), denoiser.path(s, x_t.ndim)
        x_hat = denoiser(x_t, t, y)
        if self.clip:
            x_hat = x_hat.clamp(-1, 1)
        _, b2 = _bridge(p, q)
        c = self.eta * q.sigma / p.sigma * b2.sqrt()
        x_s = q.alpha * x_hat + (q.sigma**2 - c**2).clamp(min=0).sqrt() * p.eps(x_t, x_hat)
        if self.eta > 0 and s > 0:
            x_s = x_s + c * noise.normal(x_t.shape)
        return x_s, x_hat


class EulerMaruyama(Sampler):
    """x_s = x_t + (f x_t - g² ∇log p)(s - t) + g √(t - s) z of the reverse SDE.

    Song et al. 2021, arXiv:2011.13456, eq. 6 and appendix D.
    """

    needs_derivative = True
    divides_by_alpha = True

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p = denoiser.path(t, x_t.ndim)
        x_hat = denoiser(x_t, t, y)
        mean = x_t + (p.drift * x_t - p.diffusion2 * p.score(x_t, x_hat)) * (s - t)
        if s == 0:
            return mean, x_hat
        return mean + (p.diffusion2 * (t - s)).sqrt() * noise.normal(x_t.shape), x_hat


class ReverseDiffusion(Sampler):
    """x_s = (2 - a) x_t + b² ∇log p + b z: the forward steps of the path reversed one by one.

    Song et al. 2021, arXiv:2011.13456, eq. 46 (appendix E); on VE the step to 0 is the denoiser's x̂.
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p, q = denoiser.path(t, x_t.ndim), denoiser.path(s, x_t.ndim)
        x_hat = denoiser(x_t, t, y)
        a, b2 = _bridge(p, q)
        mean = (2 - a) * x_t + b2 * p.score(x_t, x_hat)
        if s == 0:
            return mean, x_hat
        return mean + b2.sqrt() * noise.normal(x_t.shape), x_hat


class PredictorCorrector(Sampler):
    """`corrections` Langevin steps at t, then one step of the predictor to s.

    x ← x + h ∇log p + √(2h) z, h = 2a² (r ‖z‖/‖∇log p‖)². Song et al. 2021, arXiv:2011.13456, algorithms 2-5. Published
    norms are means over the batch, so that a sample depends on its batch-mates; `per_sample` takes each sample's own,
    whose chance correlation with z widens the law a little (8 % of the variance in 64 dimensions at r = 0.16 on VP).
    """

    def __init__(
        self, steps: int, grid: Grid, predictor: Callable[..., Sampler], corrections: int, snr: float, per_sample: bool
    ):
        super().__init__(steps, grid)
        self.predictor = predictor(steps=steps, grid=grid)
        self.corrections, self.snr, self.per_sample = corrections, snr, per_sample

    def check(self, path: GaussianPath) -> None:
        self.predictor.check(path)  # of the same steps and grid

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p, q = denoiser.path(t, x_t.ndim), denoiser.path(s, x_t.ndim)
        a, _ = _bridge(p, q)
        for _ in range(self.corrections):
            score, z = p.score(x_t, denoiser(x_t, t, y)), noise.normal(x_t.shape)
            h = 2 * a**2 * (self.snr * self._norm(z) / self._norm(score)) ** 2
            x_t = x_t + h * score + (2 * h).sqrt() * z
        return self.predictor.step(denoiser, x_t, t, s, noise, y)

    def _norm(self, v: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(v.flatten(1), dim=1).reshape((-1,) + (1,) * (v.ndim - 1))
        return norms if self.per_sample else norms.mean()


class AnnealedLangevin(Sampler):
    """At each level `inner` steps x ← x + h ∇log p + √(2h) z with h = step_size (σ_t/σ_1)², then, if asked, x ← x̂.

    Song & Ermon 2019, arXiv:1907.05600, algorithm 1, where h is α_i/2, and their code, where it is
    step_lr (σ_i/σ_L)², twice as much; the final x̂ is that of
    Jolicoeur-Martineau et al. 2020, arXiv:2009.05475. `steps` counts levels: one for each time of the grid.
    """

    needs_exploding = True

    def __init__(self, steps: int, grid: Grid, inner: int, step_size: float, denoise: bool):
        super().__init__(steps, grid)
        self.inner, self.step_size, self.denoise = inner, step_size, denoise

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p = denoiser.path(t, x_t.ndim)
        smallest = denoiser.path(self.grid(denoiser.path, self.steps)[-2], x_t.ndim)
        h = self.step_size * (p.sigma / smallest.sigma) ** 2
        x_hat = x_t
        for _ in range(self.inner):
            x_hat = denoiser(x_t, t, y)
            x_t = x_t + h * p.score(x_t, x_hat) + (2 * h).sqrt() * noise.normal(x_t.shape)
        if s == 0 and self.denoise:
            x_t = x_hat = denoiser(x_t, t, y)
        return x_t, x_hat


class Euler(Sampler):
    """x_s = x_t + (s - t) v(x_t, t) of the probability flow; on the Linear path this is DDIM with η = 0."""

    needs_derivative = True

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x_hat = denoiser(x_t, t, y)
        return x_t + (s - t) * denoiser.path(t, x_t.ndim).velocity(x_t, x_hat), x_hat


class Heun(Sampler):
    """Euler's step, then the mean of the velocities at both ends; the step to 0 stays Euler's: 2·steps - 1 evaluations."""

    needs_derivative = True

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x_hat = denoiser(x_t, t, y)
        v = denoiser.path(t, x_t.ndim).velocity(x_t, x_hat)
        x_s = x_t + (s - t) * v
        if s == 0:
            return x_s, x_hat
        v_s = denoiser.path(s, x_t.ndim).velocity(x_s, denoiser(x_s, s, y))
        return x_t + (s - t) * (v + v_s) / 2, x_hat
