"""Decreasing times at which a sampler evaluates the denoiser; every grid ends at 0, which is data."""

from typing import Protocol

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.path import GaussianPath


class Grid(Protocol):
    """(steps + 1,) float64 times on the CPU from t_max, or not far below it, down to 0: `steps` intervals.

    Every grid raises GenlabError where its times do not fall strictly, or leave the path.
    """

    def __call__(self, path: GaussianPath, steps: int) -> Tensor: ...


class Linspace:
    """`steps` equally spaced times from t_max to t_end, then 0; score-SDE's grid (Song et al. 2021, arXiv:2011.13456).

    On a discrete path t_end = 1 visits its smallest noise, and t - 1 is rounded: the "linspace" spacing, and what
    improved DDPM calls "N" (Nichol & Dhariwal 2021, arXiv:2102.09672, its published code).
    """

    def __init__(self, t_end: float):
        self.t_end = t_end

    def __call__(self, path: GaussianPath, steps: int) -> Tensor:
        _check_end(self.t_end, path)
        times = torch.linspace(path.t_max, self.t_end, steps, dtype=torch.float64)
        return _to_data(times if path.twin is None else (times - 1).round() + 1, path, steps)


class Trailing:
    """t_max (1 - i/steps), i = 0, ..., steps: equal intervals, rounded on a discrete path ("trailing" spacing).

    Lin et al. 2024, arXiv:2305.08891, table 2.
    """

    def __call__(self, path: GaussianPath, steps: int) -> Tensor:
        times = torch.linspace(path.t_max, 0.0, steps + 1, dtype=torch.float64)[:-1]
        return _to_data(times if path.twin is None else times.round(), path, steps)


class Leading:
    """t = 1 + i ⌊T/steps⌋, i = steps - 1, ..., 0, of a discrete path: it never visits T ("leading" spacing).

    Song et al. 2021, DDIM, arXiv:2010.02502, appendix D.2 ("linear"); improved DDPM's "ddimN". Raises GenlabError on
    a continuous path, and where what ⌊⌋ leaves out makes it begin more than a tenth below T (1 - 1/steps).
    """

    def __call__(self, path: GaussianPath, steps: int) -> Tensor:
        _check_discrete("Leading", path)
        stride = int(path.t_max) // steps
        times = _to_data(1 + stride * torch.arange(steps - 1, -1, -1, dtype=torch.float64), path, steps)
        if steps == 1 or times[0] < 0.9 * path.t_max * (1 - 1 / steps):
            raise GenlabError(
                f"sampler.steps={steps}: Leading would begin at step {times[0]:.0f} of {path.t_max:.0f}, where x is no noise "
                f"yet: take a number above 1 that divides {path.t_max:.0f}, or the grid Trailing, which takes any"
            )
        return times


class Quadratic:
    """t = 1 + ⌊τ²⌋, τ equally spaced from √(fraction T) to 0, on a discrete path.

    Song et al. 2021, DDIM, arXiv:2010.02502, appendix D.2, with the fraction of its code for CIFAR-10, 0.8. Times that are
    there twice, 1 of 50 and 4 of 100, are taken once: a step of DDIM from a time to itself moves nothing. Raises
    GenlabError on a continuous path.
    """

    def __init__(self, fraction: float):
        self.fraction = fraction

    def __call__(self, path: GaussianPath, steps: int) -> Tensor:
        _check_discrete("Quadratic", path)
        root = (self.fraction * path.t_max) ** 0.5
        times = 1 + torch.linspace(root, 0.0, steps, dtype=torch.float64).square().floor()
        return _to_data(times.unique_consecutive(), path, steps)


class KarrasRho:
    """(σ_max^(1/ρ) + i/(steps - 1) (σ_min^(1/ρ) - σ_max^(1/ρ)))^ρ in the noise level σ/α, then 0.

    Karras et al. 2022, arXiv:2206.00364, eq. 5; on a discrete path the nearest step.
    """

    def __init__(self, sigma_min: float, sigma_max: float, rho: float):
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho

    def __call__(self, path: GaussianPath, steps: int) -> Tensor:
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        ratios = torch.linspace(high, low, steps, dtype=torch.float64) ** self.rho
        largest = _ratio(path, path.t_max)
        if self.sigma_max > largest * (1 + 1e-9):
            raise GenlabError(
                f"sampler.grid.sigma_max={self.sigma_max:g} is above σ/α = {largest:g}, "
                f"where the {type(path).__name__} path ends: take at most that"
            )
        return _to_data(path.time(ratios), path, steps)


class LogSNR:
    """λ = ln(α/σ) equally spaced from t_max to t_end, then 0; on a discrete path the nearest step.

    Lu et al. 2022, DPM-Solver, arXiv:2206.00927, section 3.3. Raises GenlabError where λ begins at -∞.
    """

    def __init__(self, t_end: float):
        self.t_end = t_end

    def __call__(self, path: GaussianPath, steps: int) -> Tensor:
        if path.vanishing:
            raise GenlabError(
                f"LogSNR: the {type(path).__name__} path begins at λ = -∞: use the grid Shifted or Trailing"
            )
        _check_end(self.t_end, path)
        high, low = _ratio(path, path.t_max), _ratio(path, self.t_end)
        times = path.time(torch.logspace(0, 1, steps, base=low / high, dtype=torch.float64) * high)
        times[0] = path.t_max
        return _to_data(times, path, steps)


class Shifted:
    """t' = k t/(1 + (k - 1) t) of another grid's times, t in units of t_max: on the Linear path σ/α is k times as large.

    Esser et al. 2024, Stable Diffusion 3, arXiv:2403.03206, eq. 23. Raises GenlabError on a discrete path.
    """

    def __init__(self, shift: float, grid: Grid):
        if shift <= 0:
            raise GenlabError(f"sampler.grid.shift={shift:g}: a factor above 0, and 1 shifts nothing")
        self.shift, self.grid = shift, grid

    def __call__(self, path: GaussianPath, steps: int) -> Tensor:
        if path.twin is not None:
            raise GenlabError(f"Shifted: the {type(path).__name__} path is discrete: use the path {path.twin}")
        t = self.grid(path, steps) / path.t_max
        return path.t_max * self.shift * t / (1 + (self.shift - 1) * t)


def _ratio(path: GaussianPath, t: float) -> float:
    p = path(torch.tensor(t, dtype=torch.float64), 1)
    return (p.sigma / p.alpha).item()


def _check_end(t_end: float, path: GaussianPath) -> None:
    low, high = (0.0, path.t_max) if path.twin is None else (1.0, path.t_max + 1)
    if not low <= t_end < high or t_end == 0:
        raise GenlabError(
            f"sampler.grid.t_end={t_end:g} makes no sense on the {type(path).__name__} path: "
            + ("use a small time such as 1e-3" if path.twin is None else "use 1, its smallest noise")
        )


def _check_discrete(grid: str, path: GaussianPath) -> None:
    if path.twin is None:
        raise GenlabError(f"{grid}: the {type(path).__name__} path has no steps to choose from: use the grid Trailing")


def _to_data(times: Tensor, path: GaussianPath, steps: int) -> Tensor:
    """The times and then 0, if they fall."""
    times = torch.cat([times, torch.zeros(1, dtype=torch.float64)])
    name = type(path).__name__
    if path.twin is not None and steps > path.t_max:
        raise GenlabError(f"sampler.steps={steps} is more than the {path.t_max:.0f} steps of the {name} path")
    if times[0] > path.t_max * (1 + 1e-9) or (times < 0).any():
        raise GenlabError(f"sampler.grid leaves the {name} path, whose times end at {path.t_max:g}: narrow its range")
    if not (times.diff() < 0).all():
        raise GenlabError(
            f"sampler.steps={steps}: two times of this grid fall on one step of the {name} path: "
            "take fewer steps, or the grid Trailing"
        )
    return times
