"""Sampling that leans towards a label: each stands in for a Denoiser, under every sampler."""

import abc
import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser, Prediction
from genlab.gaussian.path import GaussianPath
from genlab.gaussian.thresholds import Threshold, within


class Guidance(abc.ABC):
    """A denoiser of `classes` labels (0: it takes none) that leans towards y; no nn.Module, so no weight is listed twice."""

    def __init__(self, denoiser: Denoiser, classes: int):
        self.denoiser, self.classes = denoiser, classes

    @property
    def path(self) -> GaussianPath:
        return self.denoiser.path

    @property
    @abc.abstractmethod
    def labels(self) -> int:
        """How many labels samples may be asked for."""

    @abc.abstractmethod
    def check(self, shape: Sequence[int], label_drop: float) -> None:
        """Raise GenlabError where a model of x of this shape, trained with this share of dropped labels, cannot be guided."""

    @abc.abstractmethod
    def predict(
        self, x_t: Tensor, t: Tensor, y: Tensor | None = None, threshold: Threshold | None = None
    ) -> Prediction:
        """x̂ at time t, () or (B,), within the threshold, and v; without y nothing is guided."""

    def __call__(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """x̂ at time t, () or (B,)."""
        return self.predict(x_t, t, y).x_hat


class ClassifierFree(Guidance):
    """F̃ = (1 + w) F(x_t, t, y) - w F(x_t, t), for ε and for all that is affine in it: x̂, v, the velocity, the score.

    Ho & Salimans 2022, arXiv:2207.12598, eq. 6; `scale` is 1 + w, the scale of latent diffusion and DiT. With `interval`
    only where low < σ/α ≤ high (Kynkäänniemi et al. 2024, arXiv:2404.07724), and elsewhere at the cost of one
    evaluation instead of two. With `rescale` φ then F̃ · (φ std F/std F̃ + 1 - φ), std over all but the batch (Lin et al.
    2024, arXiv:2305.08891, eq. 15-16), on the network's own output F as there. The v of a learned variance is the
    conditional one's. Raises GenlabError unless one of w and scale is given, low < high, and φ is in [0, 1].
    """

    def __init__(
        self,
        denoiser: Denoiser,
        classes: int,
        w: float | None = None,
        scale: float | None = None,
        interval: Sequence[float | None] | None = None,
        rescale: float = 0.0,
    ):
        super().__init__(denoiser, classes)
        if scale is not None and w is None:
            w, scale = scale - 1, None
        if w is None or scale is not None:
            raise GenlabError(
                "classifier-free guidance takes guidance.w or guidance.scale, which is 1 + w: give one of them"
            )
        if interval is not None and len(interval) != 2:
            raise GenlabError(f"guidance.interval={list(interval)}: two noise levels σ/α, from low to high")
        low, high = interval or (None, None)
        self.low, self.high = 0.0 if low is None else low, math.inf if high is None else high
        if not 0 <= self.low < self.high:
            raise GenlabError(f"guidance.interval=[{low},{high}]: noise levels σ/α from low to high, 0 or more")
        if not 0 <= rescale <= 1:
            raise GenlabError(f"guidance.rescale={rescale}: a number from 0 (off) to 1")
        self.w, self.rescale = w, rescale

    @property
    def labels(self) -> int:
        return self.classes

    def check(self, shape: Sequence[int], label_drop: float) -> None:
        if not self.classes:
            raise GenlabError("classifier-free guidance needs a conditional model: train it with model.classes=K")
        if not label_drop:
            raise GenlabError(
                "classifier-free guidance needs a model that also knows no label, and this one was trained without "
                "dropped labels: train it with model.label_drop=0.1"
            )

    def predict(
        self, x_t: Tensor, t: Tensor, y: Tensor | None = None, threshold: Threshold | None = None
    ) -> Prediction:
        p = self.path(t, x_t.ndim)
        level = p.sigma / p.alpha
        guided = (self.low < level) & (level <= self.high)
        if y is None or self.w == 0 or not guided.any():
            return self.denoiser.predict(x_t, t, y, threshold)
        twice = self.path(torch.cat([t, t]) if t.ndim else t, x_t.ndim)
        none = torch.full_like(y, self.classes)
        both, v = self.denoiser.output(torch.cat([x_t, x_t]), twice, torch.cat([y, none]))
        conditional, unconditional = both.chunk(2)
        out = conditional + self.w * guided.to(both) * (conditional - unconditional)
        if self.rescale:
            ratio = (_std(conditional) / _std(out)).reshape(-1, *[1] * (x_t.ndim - 1))
            out = out * (self.rescale * ratio + 1 - self.rescale)
        x_hat = self.denoiser.parametrization.denoise(x_t, out, p)
        return Prediction(within(x_hat, threshold), None if v is None else v.chunk(2)[0])


def _std(x: Tensor) -> Tensor:
    return x.flatten(1).std(1)


class NoisyPosterior(Protocol):
    """p(y | x_t) of a path, for x of a shape; paradigms.noisy_classifier trains one."""

    path: GaussianPath
    shape: tuple[int, ...]
    classes: int

    def log_posterior(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(B, K) log p(y | x_t) at time t, () or (B,)."""
        ...

    def to(self, device: torch.device) -> Any: ...


class Classifier(Guidance):
    """x̂' = x̂ + s (σ²/α) ∇ log p(y | x_t), which is score' = score + s ∇ log p(y | x_t) and ε̂' = ε̂ - s σ ∇ log p(y | x_t).

    Dhariwal & Nichol 2021, arXiv:2105.05233: the last is algorithm 2, for DDIM and every ODE. Algorithm 1 shifts the
    ancestral mean by sΣ∇ instead, Σ the variance of the step; this one shifts it by s(b²/a)∇, which with the large
    variance Σ = b² is 1/a = 1/√(1 - β) as much, and with the small one σ_t²/(a σ_s²) as much; with a learned Σ between
    the two. A threshold is for x̂, and x̂' may leave it, as in the published code. The denoiser may know labels itself, or
    none. Where α = 0 nothing is shifted, x_t holding no label. Raises GenlabError for another path.
    """

    def __init__(self, denoiser: Denoiser, classes: int, classifier: NoisyPosterior, scale: float):
        super().__init__(denoiser, classes)
        if not hasattr(classifier, "log_posterior"):
            raise GenlabError(f"a {type(classifier).__name__} cannot guide: train a classifier, model=noisy_classifier")
        self.classifier, self.scale = classifier, scale

    @property
    def labels(self) -> int:
        return self.classifier.classes

    def check(self, shape: Sequence[int], label_drop: float) -> None:
        if tuple(shape) != tuple(self.classifier.shape):
            raise GenlabError(
                f"the classifier sees x of shape {self.classifier.shape}, and the model has {tuple(shape)}"
            )
        if self.classes and self.classes != self.labels:
            raise GenlabError(f"the classifier has {self.labels} classes, and the model {self.classes}")
        ours, theirs = self.path, self.classifier.path
        t = torch.linspace(0, 1, 11)[1:] * ours.t_max
        same = ours.t_max == theirs.t_max and all(
            torch.allclose(a, b, rtol=1e-4, atol=1e-8)
            for a, b in zip(ours.coefficients(t)[:2], theirs.coefficients(t)[:2], strict=True)
        )
        if not same:
            raise GenlabError(
                f"the classifier knows another noise than the model's ({type(theirs).__name__} path, not "
                f"{type(ours).__name__}, or other numbers): train one with the model's path"
            )

    def predict(
        self, x_t: Tensor, t: Tensor, y: Tensor | None = None, threshold: Threshold | None = None
    ) -> Prediction:
        x_hat, v = self.denoiser.predict(x_t, t, y if self.classes else None, threshold)
        if y is None or self.scale == 0:
            return Prediction(x_hat, v)
        p = self.path(t, x_t.ndim)
        lever = torch.where(p.alpha > 0, p.sigma**2 / p.alpha, 0.0)
        return Prediction(x_hat + self.scale * lever * self.gradient(x_t, t, y), v)

    def gradient(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """∇ log p(y | x_t) with respect to x_t, whose gradients are off in sampling."""
        self.classifier.to(x_t.device)
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            chosen = self.classifier.log_posterior(x, t).gather(1, y[:, None])
            return torch.autograd.grad(chosen.sum(), x)[0]
