"""Decreasing times at which a sampler evaluates the denoiser; every grid ends at 0, which is data."""

from typing import Protocol

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.path import GaussianPath


class Grid(Protocol):
    """(steps + 1,) float64 times on the CPU from t_max down to 0: `steps` intervals."""

    def __call__(self, path: GaussianPath, steps: int) -> Tensor: ...


class Linspace:
    """`steps` equally spaced times from t_max to t_end, then 0; score-SDE's grid (Song et al. 2021, arXiv:2011.13456).

    On a discrete path the times are rounded, and t_end = 1 visits its smallest noise ("linspace" spacing).
    """

    def __init__(self, t_end: float):
        self.t_end = t_end

    def __call__(self, path: GaussianPath, steps: int) -> Tensor:
        low, high = (0.0, path.t_max) if path.twin is None else (1.0, path.t_max + 1)
        if not low <= self.t_end < high or self.t_end == 0:
            raise GenlabError(
                f"sampler.grid.t_end={self.t_end:g} makes no sense on the {type(path).__name__} path: "
                + ("use a small time such as 1e-3" if path.twin is None else "use 1, its smallest noise")
            )
        times = torch.linspace(path.t_max, self.t_end, steps, dtype=torch.float64)
        return _distinct(torch.cat([times, torch.zeros(1, dtype=torch.float64)]), path, steps)


class Trailing:
    """t_max (1 - i/steps), i = 0, ..., steps: equal intervals, rounded on a discrete path ("trailing" spacing).

    Lin et al. 2024, arXiv:2305.08891, table 2.
    """

    def __call__(self, path: GaussianPath, steps: int) -> Tensor:
        return _distinct(torch.linspace(path.t_max, 0.0, steps + 1, dtype=torch.float64), path, steps)


def _distinct(times: Tensor, path: GaussianPath, steps: int) -> Tensor:
    if path.twin is None:
        return times
    times = times.round()
    if len(times.unique()) <= steps:
        raise GenlabError(
            f"sampler.steps={steps} is more than the {path.t_max:.0f} steps of the {type(path).__name__} path"
        )
    return times
