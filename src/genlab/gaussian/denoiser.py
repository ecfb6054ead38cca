"""x̂ = E[x | x_t]: all that samplers ever see of a trained model."""

from typing import Protocol

from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.gaussian.parametrization import Parametrization
from genlab.gaussian.path import GaussianPath, Point


class Embedding(Protocol):
    """The number by which a network is told how much noise there is."""

    def __call__(self, p: Point) -> Tensor: ...


class Index:
    """t - 1 of a discrete path: 0 for the least noise, as in the published code bases."""

    def __call__(self, p: Point) -> Tensor:
        return p.t - 1


class Time:
    """scale · t of a continuous path; 999 t in score-SDE and rectified flow."""

    def __init__(self, scale: float):
        self.scale = scale

    def __call__(self, p: Point) -> Tensor:
        return self.scale * p.t


class LogSigma:
    """ln σ, as NCSN++ on the VE path."""

    def __call__(self, p: Point) -> Tensor:
        return p.sigma.log()


class Denoiser(nn.Module):
    """A network read as E[x | x_t] through its path, its parametrization and its noise embedding."""

    def __init__(self, network: nn.Module, path: GaussianPath, parametrization: Parametrization, embedding: Embedding):
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

    def output(self, x_t: Tensor, p: Point, y: Tensor | None = None) -> Tensor:
        """The raw network output F(x_t, c(p), y)."""
        noise = self.embedding(p).reshape(-1).to(x_t.device, x_t.dtype).expand(len(x_t))
        return self.network(x_t, noise, y)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """x̂ at time t, () or (B,)."""
        p = self.path(t, x_t.ndim)
        return self.parametrization.denoise(x_t, self.output(x_t, p, y), p)
