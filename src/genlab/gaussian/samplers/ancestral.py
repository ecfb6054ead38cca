"""Samplers that draw x_s from a law q(x_s | x_t, x̂) known in closed form: DDPM and DDIM."""

from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser
from genlab.gaussian.grids import Grid
from genlab.gaussian.samplers.sampler import OneStep
from genlab.gaussian.thresholds import Threshold
from genlab.gaussian.variances import Variance
from genlab.noise import NoiseStream


class Ancestral(OneStep):
    """x_s ~ N((a σ_s²/σ_t²) x_t + (α_s b²/σ_t²) x̂, Σ), log Σ = v log b² + (1 - v) log(b²σ_s²/σ_t²).

    Ho et al. 2020, arXiv:2006.11239, algorithm 2, eq. 7. On a grid that skips steps a, b² and the variance are those
    of the steps taken. Raises GenlabError where the variance is learned and the denoiser's is not.
    """

    def __init__(
        self, steps: int, grid: Grid, variance: Variance, threshold: Threshold | None = None, double: bool = False
    ):
        super().__init__(steps, grid, threshold, double)
        self.variance = variance

    def check(self, denoiser: Denoiser) -> None:
        super().check(denoiser)
        if self.variance.learned and not denoiser.learned_variance:
            raise GenlabError(
                "sampler.variance is Learned, and this model has not learned one: use the variance Small or Large"
            )

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p, q = denoiser.path(t, x_t.ndim), denoiser.path(s, x_t.ndim)
        x_hat, v = self.predict(denoiser, x_t, t, y)
        mean, small = p.posterior(q, x_t, x_hat)
        if s == 0:
            return mean, x_hat
        _, large = p.bridge(q)
        v = self.variance(p, v)
        return mean + (v * large.log() + (1 - v) * small.log()).exp().sqrt() * noise.normal(x_t.shape), x_hat


class DDIM(OneStep):
    """x_s = α_s x̂ + √(σ_s² - c²) ε̂ + c z, c = η (σ_s/σ_t) b: η scales the standard deviation.

    Song et al. 2021, arXiv:2010.02502, eq. 12 and 16. Raises GenlabError unless η is in [0, 1].
    """

    def __init__(self, steps: int, grid: Grid, eta: float, threshold: Threshold | None = None, double: bool = False):
        super().__init__(steps, grid, threshold, double)
        if not 0 <= eta <= 1:
            raise GenlabError(f"sampler.eta={eta:g}: from 0, which is deterministic, to 1, which is Ancestral")
        self.eta, self.deterministic = eta, eta == 0

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p, q = denoiser.path(t, x_t.ndim), denoiser.path(s, x_t.ndim)
        x_hat = self.denoise(denoiser, x_t, t, y)
        _, b2 = p.bridge(q)
        c = self.eta * q.sigma / p.sigma * b2.sqrt()
        x_s = q.alpha * x_hat + (q.sigma**2 - c**2).clamp(min=0).sqrt() * p.eps(x_t, x_hat)
        if self.eta > 0 and s > 0:
            x_s = x_s + c * noise.normal(x_t.shape)
        return x_s, x_hat
