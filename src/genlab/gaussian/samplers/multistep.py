"""Solvers that remember x̂ of earlier times: exact in σ, a polynomial of x̂ in λ = ln(α/σ), so right on every path.

x_s = (σ_s/σ_t) x_t + α_s ∫ e^{λ - λ_s} x̂ dλ over λ_t … λ_s (Lu et al. 2022, arXiv:2211.01095, eq. 8). The step to
s = 0, where λ = ∞, is x̂; a time with α = 0, where λ = -∞, has no place in the polynomial and is not remembered.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser
from genlab.gaussian.grids import Grid
from genlab.gaussian.path import Point
from genlab.gaussian.samplers.sampler import Sampler, State
from genlab.gaussian.thresholds import Threshold
from genlab.noise import NoiseStream


class Node(NamedTuple):
    """λ = ln(α/σ) of a time, and x̂ there."""

    lam: Tensor
    x_hat: Tensor


def _lam(p: Point) -> Tensor:
    return p.alpha.log() - p.sigma.log()


def _remember(node: Node, nodes: Sequence[Node], order: int) -> list[Node]:
    """The newest `order` nodes, newest first."""
    return [] if node.lam.isinf() else [node, *nodes][:order]


def _order(order: int, i: int, times: Tensor, lower_order_final: bool) -> int:
    """Of the step from times[i]: 1 where it ends at data, and falling towards that if asked."""
    left = len(times) - 1 - i
    return 1 if times[i + 1] == 0 else min(order, left) if lower_order_final else order


class DPMSolverPP(Sampler):
    """DPM-Solver++(`order`M), or with `stochastic` its SDE-2M: one evaluation a step.

    x_s = (σ_s/σ_t) x_t + α_s (1 - e^{-h}) x̄, x̄ the mean of x̂'s polynomial over the step: Lu et al. 2022,
    arXiv:2211.01095, algorithm 2, and section 5 for the SDE. Order 2 takes the published midpoint weight h/2; order 3,
    which the paper leaves to its code, takes the exact moments: the code halves that of the second difference, and so
    is of second order (docs/samplers.md). Raises GenlabError on an order it has not.
    """

    def __init__(
        self,
        steps: int,
        grid: Grid,
        order: int,
        stochastic: bool = False,
        lower_order_final: bool = True,
        threshold: Threshold | None = None,
        double: bool = False,
    ):
        super().__init__(steps, grid, threshold, double)
        most = 2 if stochastic else 3
        if not 1 <= order <= most:
            raise GenlabError(f"sampler.order={order}: from 1 to {most}" + (" with stochastic=true" * stochastic))
        self.order, self.stochastic, self.lower_order_final = order, stochastic, lower_order_final
        self.deterministic = not stochastic

    def walk(
        self, denoiser: Denoiser, x: Tensor, times: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> Iterator[State]:
        nodes: list[Node] = []
        for i, (t, s) in enumerate(pairwise(times)):
            p, q = denoiser.path(t, x.ndim), denoiser.path(s, x.ndim)
            x_hat = self.denoise(denoiser, x, t, y)
            nodes = _remember(Node(_lam(p), x_hat), nodes, self.order)
            order = _order(self.order, i, times, self.lower_order_final)
            mean = x_hat if order == 1 or len(nodes) < 2 else _mean(nodes[:order], _lam(q) - _lam(p))
            decay = q.sigma * p.alpha / (p.sigma * q.alpha)  # e^{-h}
            if self.stochastic:
                x = q.sigma / p.sigma * decay * x + q.alpha * (1 - decay**2) * mean
                if s > 0:
                    x = x + q.sigma * (1 - decay**2).sqrt() * noise.normal(x.shape)
            else:
                x = q.sigma / p.sigma * x + q.alpha * (1 - decay) * mean
            yield State(s, x, x_hat)


def _mean(nodes: Sequence[Node], h: Tensor) -> Tensor:
    """Of the polynomial through two or three nodes, newest first, over u = λ - λ_t in (0, h) with density ∝ e^{u}."""
    (lam0, m0), (lam1, m1), *more = nodes
    slope = (m0 - m1) / (lam0 - lam1)
    if not more:
        return m0 + h / 2 * slope
    lam2, m2 = more[0]
    bend = (slope - (m1 - m2) / (lam1 - lam2)) / (lam0 - lam2)
    first = h / -torch.expm1(-h) - 1  # the mean of u
    second = h**2 / -torch.expm1(-h) - 2 * first  # the mean of u²
    return m0 + first * (slope + (lam0 - lam1) * bend) + second * bend


class UniPC(Sampler):
    """UniPC-`order`: UniP to s, then UniC with the x̂ that is evaluated there anyway: one evaluation a step.

    x_s = (σ_s/σ_t) x_t + α_s (1 - e^{-h}) x̂ - α_s B Σ_k ρ_k (x̂_k - x̂)/r_k, r_k = (λ_k - λ_t)/h, over earlier times
    and, for UniC, s itself; B = e^{-h} - 1, or -h with `bh1`; ρ = 1/2 where there is one k, and else
    Σ_k ρ_k r_k^{j-1} = j! φ_{j+1}(-h) (-h)/B. Zhao et al. 2023, arXiv:2302.04867, algorithms 5-8. Without `corrector` it is
    UniP. Raises GenlabError on an order it has not.
    """

    deterministic = True

    def __init__(
        self,
        steps: int,
        grid: Grid,
        order: int,
        bh1: bool = False,
        corrector: bool = True,
        lower_order_final: bool = True,
        threshold: Threshold | None = None,
        double: bool = False,
    ):
        super().__init__(steps, grid, threshold, double)
        if not 1 <= order <= 3:
            raise GenlabError(f"sampler.order={order}: from 1 to 3")
        self.order, self.bh1, self.corrector, self.lower_order_final = order, bh1, corrector, lower_order_final

    def walk(
        self, denoiser: Denoiser, x: Tensor, times: Tensor, noise: NoiseStream, y: Tensor | None
    ) -> Iterator[State]:
        nodes: list[Node] = []
        used: list[Node] = []  # by the step before
        start, o = x, denoiser.path(times[0], x.ndim)  # of the step before
        for i, (t, s) in enumerate(pairwise(times)):
            p, q = denoiser.path(t, x.ndim), denoiser.path(s, x.ndim)
            x_hat = self.denoise(denoiser, x, t, y)
            here = Node(_lam(p), x_hat)
            if self.corrector and used:
                x = self._update(start, o, p, used[0].x_hat, [*used, here])
            nodes = _remember(here, nodes, self.order)
            used, start, o = nodes[: _order(self.order, i, times, self.lower_order_final)], x, p
            x = self._update(x, p, q, x_hat, used)
            yield State(s, x, x_hat)

    def _update(self, x: Tensor, p: Point, q: Point, x_hat: Tensor, nodes: Sequence[Node]) -> Tensor:
        """x at q from x at p, where x̂ and the first node are, and the other nodes."""
        linear = q.sigma / p.sigma * x + (q.alpha - q.sigma * p.alpha / p.sigma) * x_hat
        if len(nodes) < 2:
            return linear
        h = _lam(q) - _lam(p)
        b = -h if self.bh1 else torch.expm1(-h)
        r = torch.stack([(node.lam - nodes[0].lam) / h for node in nodes[1:]])
        sizes = _sizes(r, -h, b)
        bend = sum(rho * (node.x_hat - x_hat) for rho, node in zip(sizes / r, nodes[1:], strict=True))
        return linear - q.alpha * b * bend


def _sizes(r: Tensor, h: Tensor, b: Tensor) -> Tensor:
    """ρ of the nodes at λ_t + r |h|: the moments of e^{(1 - r) h} over r in (0, 1) are met."""
    if len(r) == 1:
        return torch.full_like(r, 0.5)
    moments = []
    phi = torch.expm1(h) / h  # φ_1
    for j in range(1, len(r) + 1):
        phi = (phi - 1 / math.factorial(j)) / h  # φ_{j+1}
        moments.append(phi * h * math.factorial(j) / b)
    powers = torch.stack([r**j for j in range(len(r))])
    return torch.linalg.solve(powers, torch.stack(moments))
