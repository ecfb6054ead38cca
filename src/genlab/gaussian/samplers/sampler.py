"""What every sampler is: a walk down a grid of times, with x̂ kept within its threshold."""

import abc
from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser, Prediction
from genlab.gaussian.grids import Grid, Linspace, Shifted, Trailing
from genlab.gaussian.path import Karras
from genlab.gaussian.thresholds import Threshold
from genlab.noise import NoiseStream


class State(NamedTuple):
    """A trajectory after one step: the time reached, x there, and the x̂ that led to it."""

    t: Tensor
    x_t: Tensor
    x_hat: Tensor


class Sampler(abc.ABC):
    """`steps` steps down a grid of times, from x ~ N(0, σ(t_max)²) to data at t = 0.

    `threshold` acts on every x̂ before anything is derived from it; `double` keeps x in float64, whatever the network
    computes in. Raises GenlabError unless steps is whole and ≥ 1.
    """

    needs: ClassVar[str] = "denoiser"
    """The part of a model that it works on."""
    needs_derivative: ClassVar[bool] = False
    needs_exploding: ClassVar[bool] = False
    divides_by_alpha: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False
    """Whether it chooses its own steps, and the grid only what is shown."""
    deterministic: bool = False
    """Whether x at t_max alone decides the sample, so that the trajectory is an ODE's."""

    def __init__(self, steps: int, grid: Grid, threshold: Threshold | None = None, double: bool = False):
        if not isinstance(steps, int) or steps < 1:
            raise GenlabError(f"sampler.steps={steps}: at least one step is needed, and a whole number of them")
        self.steps, self.grid, self.threshold, self.double = steps, grid, threshold, double

    @abc.abstractmethod
    def walk(
        self, denoiser: Denoiser, x: Tensor, times: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> Iterator[State]:
        """One State for each time but the first, where x is."""

    def trajectory(self, denoiser: Denoiser, x: Tensor, noise: NoiseStream, y: Tensor | None = None) -> Iterator[State]:
        """One State per step from x at t_max, rescaled where the grid begins later; GenlabError if it ends in NaN."""
        path = denoiser.path
        times = self.grid(path, self.steps)
        begin, end = path(times[0], 1), path(torch.tensor(path.t_max, dtype=torch.float64), 1)
        x = (x.double() if self.double else x) * (begin.sigma / end.sigma)
        for state in self.walk(denoiser, x, times, noise, y):
            x = state.x_t
            yield state
        if not x.isfinite().all():
            raise GenlabError(
                f"{type(self).__name__} ended {self.steps} steps in numbers that are not finite: "
                "the network answers NaN, or the sampler needs more steps or a threshold"
            )

    def predict(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, y: Tensor | None) -> Prediction:
        """x̂ at time t within the threshold, and v."""
        return denoiser.predict(x_t, t, y, self.threshold)

    def denoise(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """x̂ at time t within the threshold."""
        return self.predict(denoiser, x_t, t, y).x_hat

    def check(self, denoiser: Denoiser) -> None:
        """Raise GenlabError where this sampler makes no sense for the denoiser."""
        path = denoiser.path
        sampler, name = type(self).__name__, type(path).__name__
        if self.needs_derivative and path.twin is not None:
            raise GenlabError(f"{sampler} needs dα/dt, and the {name} path is discrete: use the path {path.twin}")
        if self.needs_exploding and not path.exploding:
            raise GenlabError(f"{sampler} needs a path with α = 1 (Levels, VE), not {name}")
        if self.divides_by_alpha and path.vanishing:
            raise GenlabError(
                f"{sampler} divides by α, which is 0 where the {name} path begins: use Ancestral, or DDIM with eta=1"
            )
        if isinstance(path, Karras) and isinstance(self.grid, Linspace | Trailing | Shifted) and not self.adaptive:
            raise GenlabError(
                f"{type(self.grid).__name__}: equal steps of time are equal steps of σ on the {name} path, and next to none "
                "where x takes shape: use sampler=edm, or the grid KarrasRho, '++sampler.grid={_target_: "
                f"genlab.gaussian.grids.KarrasRho, sigma_min: 0.002, sigma_max: {path.t_max:g}, rho: 7}}'"
            )
        self.grid(path, self.steps)


class OneStep(Sampler):
    """A sampler whose step from t to s knows nothing of the steps before it."""

    @abc.abstractmethod
    def step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x_s and the x̂ it was made from; t > s are () float64, and the step to s = 0 adds no noise."""

    def walk(
        self, denoiser: Denoiser, x: Tensor, times: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> Iterator[State]:
        for t, s in pairwise(times):
            x, x_hat = self.step(denoiser, x, t, s, noise, y)
            yield State(s, x, x_hat)
