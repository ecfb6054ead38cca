"""The variational bound of discrete Gaussian paths, and the term that teaches a network its variance."""

import math
from typing import Protocol

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser
from genlab.gaussian.path import GaussianPath
from genlab.gaussian.variances import Learned, Variance


class VariationalTerm(Protocol):
    """(B,) what is added to the loss of x at times t, from the network's output and its v there."""

    def __call__(
        self, denoiser: Denoiser, x: Tensor, x_t: Tensor, t: Tensor, out: Tensor, v: Tensor | None
    ) -> Tensor: ...


class DiscreteBound:
    """log p(x) >= -(L_T + Σ_{t>1} L_{t-1} + L_0): the rate is all but L_0, which is the distortion.

    Ho et al. 2020, arXiv:2006.11239, eq. 5, each term from an x_t of its own. `levels` of the data make L_0 that of
    probabilities (eq. 13), None that of a density. `terms` of the T - 1 terms are drawn for each sample, one from each of
    as many equal parts, which estimates the bound without bias; None takes all. `clip` clips x̂ to [-1, 1]. Noise is torch's.
    """

    kind = "bound"
    flow = None
    repeats = 1

    def __init__(self, variance: Variance, levels: int | None, clip: bool, terms: int | None = None):
        if terms is not None and terms < 1:
            raise GenlabError(f"likelihood.terms={terms}: at least one is needed; null takes all")
        self.variance, self.levels, self.clip, self.terms = variance, levels, clip, terms
        self.discrete = levels is not None

    def check(self, denoiser: Denoiser) -> None:
        """Raise GenlabError on a continuous path, and where the variance is not the one that the network learned."""
        _steps(denoiser.path)
        if self.variance.learned and not denoiser.learned_variance:
            raise GenlabError("this network learns no variance: use likelihood=bound instead of bound_learned")

    def log_prob(self, denoiser: Denoiser, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) nats, at most log p(x) in expectation over the noise."""
        rate, distortion = self.parts(denoiser, x, y).values()
        return rate + distortion

    def parts(self, denoiser: Denoiser, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """(B,) nats that add up to log_prob: minus the rate and minus the distortion."""
        steps = _steps(denoiser.path)
        terms = steps - 1 if self.terms is None else self.terms
        end = denoiser.path(torch.tensor(denoiser.path.t_max, dtype=torch.float64, device=x.device), x.ndim)
        rate = (end.alpha / end.sigma * x).square().flatten(1).sum(1) / 2  # L_T = KL(q(x_T | x) ‖ N(0, σ_T²))
        for i in range(terms):
            u = torch.rand(len(x), dtype=torch.float64, device=x.device)
            t = ((i + u) * (steps - 1) / terms).floor().clamp(max=steps - 2) + 2
            rate = rate + (steps - 1) / terms * self._term(denoiser, x, t, y)
        distortion = self._term(denoiser, x, torch.ones(len(x), dtype=torch.float64, device=x.device), y)
        return {"rate": -rate, "distortion": -distortion}

    def _term(self, denoiser: Denoiser, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        p = denoiser.path(t, x.ndim)
        x_hat, v = denoiser.predict(p.alpha * x + p.sigma * torch.randn_like(x), t, y)
        if self.clip:
            x_hat = x_hat.clamp(-1, 1)
        v = self.variance(p, v)
        if not self.variance.learned:
            v = v * (p.t > 1)  # the first of DDPM's fixed variances is β̃_2 whichever it is, as in their code
        return term(denoiser.path, x, x_hat, t, v, self.levels)


class LearnedVariance:
    """scale · T · L_{t-1} in bits/dim, whose mean over uniform t is scale times the bound but for L_T.

    With `frozen_mean` it teaches nothing but the variance: L_hybrid of Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 16,
    at scale 1e-3 as their code has it; without, and at weight zero, L_vlb. `levels` are those of DiscreteBound.
    """

    def __init__(self, scale: float, frozen_mean: bool, levels: int | None):
        self.scale, self.frozen_mean, self.levels = scale, frozen_mean, levels
        self.variance = Learned()

    def __call__(self, denoiser: Denoiser, x: Tensor, x_t: Tensor, t: Tensor, out: Tensor, v: Tensor | None) -> Tensor:
        """(B,), from the network's output and its v at t; raises GenlabError where it learns none."""
        p = denoiser.path(t, x.ndim)
        x_hat = denoiser.parametrization.denoise(x_t, out.detach() if self.frozen_mean else out, p)
        nats = term(denoiser.path, x, x_hat, t, self.variance(p, v), self.levels)
        return self.scale * _steps(denoiser.path) * nats / (math.prod(x.shape[1:]) * math.log(2))


def term(path: GaussianPath, x: Tensor, x_hat: Tensor, t: Tensor, v: Tensor, levels: int | None) -> Tensor:
    """(B,) nats of L_{t-1} = KL(q(x_{t-1} | x_t, x) ‖ p(x_{t-1} | x_t)), and of L_0 = -log p(x | x_1) where t = 1.

    Ho et al. 2020, arXiv:2006.11239, eq. 5. p has the mean of q with x̂ for x: x_t, common to both, drops out.
    """
    _steps(path)
    t = t.double()  # b² is a difference of numbers that are nearly equal
    p, q, second = path(t, x.ndim), path(t - 1, x.ndim), t.clamp(min=2)
    slope, _ = p.posterior(q, 0.0, 1.0)  # of the mean in x: 1 at t = 1, where the mean is x̂ itself
    _, posterior = path(second, x.ndim).posterior(path(second - 1, x.ndim), 0.0, 1.0)
    slope, log_beta, log_posterior = (c.to(x_hat.dtype) for c in (slope, p.bridge(q)[1].log(), posterior.log()))
    log_variance = v * log_beta + (1 - v) * log_posterior
    decoded = p.t == 1
    kl = gaussian_kl(slope * x, log_posterior, slope * x_hat, log_variance)
    # elsewhere x̂ may be so wrong that the logarithm of its probability has no gradient
    decoder = decoder_log_prob(x, torch.where(decoded, x_hat, x), log_variance, levels)
    return torch.where(decoded, -decoder, kl).flatten(1).sum(1)


def gaussian_kl(mean_q: Tensor, log_variance_q: Tensor, mean_p: Tensor, log_variance_p: Tensor) -> Tensor:
    """KL(N(mean_q, e^log_variance_q) ‖ N(mean_p, e^log_variance_p)) in nats, for each number."""
    ratio = log_variance_q - log_variance_p
    return (torch.expm1(ratio) - ratio + (mean_q - mean_p) ** 2 * (-log_variance_p).exp()) / 2


def decoder_log_prob(x: Tensor, mean: Tensor, log_variance: Tensor, levels: int | None) -> Tensor:
    """log of the mass of N(mean, e^log_variance) in the cell of x, for each number; the density where levels is None.

    The cells around the `levels` points of [-1, 1] are 2/(levels - 1) wide, the outer two open: Ho et al. 2020,
    arXiv:2006.11239, eq. 13, with Φ itself where their code has an approximation by tanh.
    """
    if levels is None:
        return -((x - mean) ** 2 * (-log_variance).exp() + log_variance + math.log(2 * math.pi)) / 2
    half, s = 1 / (levels - 1), (log_variance / 2).exp()
    error = x - mean
    # Φ is small and exact where it falls off, so the cell is looked at from that side
    upper = torch.special.log_ndtr((half - error.abs()) / s)
    lower = torch.special.log_ndtr((-half - error.abs()) / s)
    step = (lower - upper).clamp(max=-torch.finfo(x.dtype).eps)
    inside = upper + torch.log(-torch.expm1(step))
    outer = torch.special.log_ndtr((half - error * x.sign()) / s)
    return torch.where(x.abs() > 1 - half, outer, inside)


def _steps(path: GaussianPath) -> int:
    if path.twin is None:
        raise GenlabError(
            f"the {type(path).__name__} path is continuous and has no steps to sum a bound over: "
            "use likelihood=hutchinson, or exact in the plane"
        )
    if path.t_max < 2:
        raise GenlabError("a bound needs a path of at least 2 steps")
    return int(path.t_max)
