"""The first two moments of a set of features."""

from typing import NamedTuple

import torch
from torch import Tensor

ROWS = 4096  # converted to float64 at a time


class Moments(NamedTuple):
    """Sums n, Σᵢ fᵢ and Σᵢ fᵢ fᵢᵀ in float64, which add up over batches, blocks and ranks."""

    n: int
    total: Tensor  # (D,) float64
    second: Tensor  # (D, D) float64

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """The sums over the rows of `features`, (N, D) of any dtype."""
        width = features.shape[1]
        total = features.new_zeros(width, dtype=torch.float64)
        second = features.new_zeros(width, width, dtype=torch.float64)
        for rows in features.split(ROWS):
            rows = rows.double()
            total += rows.sum(0)
            second.addmm_(rows.T, rows)
        return cls(len(features), total, second)

    def merge(self, other: "Moments") -> "Moments":
        """The sums over both sets."""
        return Moments(self.n + other.n, self.total + other.total, self.second + other.second)

    @property
    def mean(self) -> Tensor:
        """μ = Σᵢ fᵢ / n, (D,)."""
        return self.total / self.n

    @property
    def covariance(self) -> Tensor:
        """Σ = (Σᵢ fᵢ fᵢᵀ − n μ μᵀ) / (n − 1), (D, D), the unbiased estimate."""
        return (self.second - torch.outer(self.total, self.mean)) / (self.n - 1)
