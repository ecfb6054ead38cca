"""x̂ = E[x | x_t]: all that samplers ever see of a trained model."""

from typing import NamedTuple, Protocol

from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.gaussian.parametrization import Parametrization
from genlab.gaussian.path import GaussianPath, Point
from genlab.gaussian.thresholds import Threshold, within


class Embedding(Protocol):
    """The number by which a network is told how much noise there is."""

    def __call__(self, p: Point) -> Tensor: ...


class Index:
    """scale · (t - 1) of a discrete path: 0 for the least noise, as in the published code bases."""

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def __call__(self, p: Point) -> Tensor:
        return self.scale * (p.t - 1)


class Time:
    """scale · t of a continuous path; 999 t in score-SDE and rectified flow."""

    def __init__(self, scale: float):
        self.scale = scale

    def __call__(self, p: Point) -> Tensor:
        return self.scale * p.t


class LogSigma:
    """scale · ln(σ/unit): NCSN++ on the VE path has 1 and counts σ in units of [0, 1] data, EDM has 1/4."""

    def __init__(self, scale: float = 1.0, unit: float = 1.0):
        self.scale, self.unit = scale, unit

    def __call__(self, p: Point) -> Tensor:
        return self.scale * (p.sigma / self.unit).log()


class Prediction(NamedTuple):
    """x̂, and where the network learns the variance of q(x_s | x_t) its v: log Σ = v log β + (1 - v) log β̃."""

    x_hat: Tensor
    v: Tensor | None


class Denoiser(nn.Module):
    """A network read as E[x | x_t] through its path, its parametrization and its noise embedding.

    With `learned_variance` it has twice the channels, the second half being 2v - 1 of every pixel
    (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15).
    """

    def __init__(
        self,
        network: nn.Module,
        path: GaussianPath,
        parametrization: Parametrization,
        embedding: Embedding,
        learned_variance: bool = False,
    ):
        super().__init__()
        if parametrization.needs_derivative and path.twin is not None:
            raise GenlabError(
                f"{type(parametrization).__name__} needs dα/dt, and the {type(path).__name__} path is discrete: "
                f"use the path {path.twin}"
            )
        if parametrization.divides_by_alpha and path.vanishing:
            raise GenlabError(
                f"{type(parametrization).__name__} divides by α, which is 0 where the {type(path).__name__} path ends: "
                "use the parametrization Velocity, V or X"
            )
        self.network, self.path = network, path
        self.parametrization, self.embedding = parametrization, embedding
        self.learned_variance = learned_variance

    def output(
        self, x_t: Tensor, p: Point, y: Tensor | None = None, augmentation: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The network's F(c_in x_t, c(p), y), and v where it is learned; x_t may be of more precision than the network."""
        weight = next(self.network.parameters(), x_t)
        noise = self.embedding(p).reshape(-1).to(x_t.device, weight.dtype).expand(len(x_t))
        x_in = (self.parametrization.scale_in(p) * x_t).to(weight.dtype)
        more = () if augmentation is None else (augmentation,)
        out = self.network(x_in, noise, y, *more).to(x_t.dtype)
        if not self.learned_variance:
            return out, None
        out, v = out.chunk(2, dim=1)
        return out, (v + 1) / 2

    def predict(
        self, x_t: Tensor, t: Tensor, y: Tensor | None = None, threshold: Threshold | None = None
    ) -> Prediction:
        """x̂ at time t, () or (B,), within the threshold, and v."""
        p = self.path(t, x_t.ndim)
        out, v = self.output(x_t, p, y)
        return Prediction(within(self.parametrization.denoise(x_t, out, p), threshold), v)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """x̂ at time t, () or (B,)."""
        return self.predict(x_t, t, y).x_hat
