"""Samplers that discretize the reverse SDE of score-SDE."""

from torch import Tensor

from genlab.gaussian.denoiser import Denoiser
from genlab.gaussian.samplers.sampler import OneStep
from genlab.noise import NoiseStream


class EulerMaruyama(OneStep):
    """x_s = x_t + (f x_t - g² ∇log p)(s - t) + g √(t - s) z of the reverse SDE.

    Song et al. 2021, arXiv:2011.13456, eq. 6 and appendix D.
    """

    needs_derivative = True
    divides_by_alpha = True

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p = denoiser.path(t, x_t.ndim)
        x_hat = self.denoise(denoiser, x_t, t, y)
        mean = x_t + (p.drift * x_t - p.diffusion2 * p.score(x_t, x_hat)) * (s - t)
        if s == 0:
            return mean, x_hat
        return mean + (p.diffusion2 * (t - s)).sqrt() * noise.normal(x_t.shape), x_hat


class ReverseDiffusion(OneStep):
    """x_s = (2 - a) x_t + b² ∇log p + b z: the forward steps of the path reversed one by one.

    Song et al. 2021, arXiv:2011.13456, eq. 46 (appendix E); on VE the step to 0 is the denoiser's x̂.
    """

    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p, q = denoiser.path(t, x_t.ndim), denoiser.path(s, x_t.ndim)
        x_hat = self.denoise(denoiser, x_t, t, y)
        a, b2 = p.bridge(q)
        mean = (2 - a) * x_t + b2 * p.score(x_t, x_hat)
        if s == 0:
            return mean, x_hat
        return mean + b2.sqrt() * noise.normal(x_t.shape), x_hat
