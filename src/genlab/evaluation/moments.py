"""The first two moments of a set of features."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from genlab.distributed import world

ROWS = 1024  # gathered before they enter the sums: a product of few rows costs as much as one of many
PANEL = 256  # columns of a product of which only the lower triangle is wanted


class Gaussian:
    """A mean μ (D,) and a covariance Σ (D, D) in float64, unbiased over `n` samples (None: nobody knows of how many).

    `narrow`, if given, is a factor (D, R) of Σ with fewer columns than rows.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, n: int | None, narrow: Tensor | None = None):
        self.mean, self.covariance, self.n, self.narrow = mean, covariance, n, narrow

    @classmethod
    def of(cls, features: Tensor) -> "Gaussian":
        """The moments of features (N, D), D ≥ N > 1, whose centred rows over √(N − 1) are the factor."""
        x = features.double()
        narrow = (x - x.mean(0)).T / (len(x) - 1) ** 0.5  # (D, N)
        return cls(x.mean(0), narrow @ narrow.T, len(x), narrow)

    @property
    def gaussian(self) -> "Gaussian":
        return self

    def to(self, device: torch.device) -> "Gaussian":
        """The same on a device, with the factor if it is known."""
        if self.mean.device == device:
            return self
        moved = Gaussian(self.mean.to(device), self.covariance.to(device), self.n)
        moved.narrow = None if self.narrow is None else self.narrow.to(device)
        if "factor" in self.__dict__:
            moved.factor = self.factor.to(device)
        return moved

    def without(self, block: int, rest: Tensor | None) -> "Gaussian | None":
        """The moments of the features of all blocks but one; None where these are not at hand."""
        return None if rest is None else Gaussian.of(rest)

    @property
    def order(self) -> Tensor:
        """The features by falling variance, (D,): products that fall in size keep the digits of their small eigenvalues."""
        return self.covariance.diagonal().argsort(descending=True, stable=True)

    @cached_property
    def factor(self) -> Tensor:
        """F (D, R) with F Fᵀ = Σ, R of the directions with variance; but for a narrow one, F[order] is lower triangular."""
        if self.narrow is not None:
            return self.narrow
        values, vectors = torch.linalg.eigh(self.covariance)
        # Directions without variance contribute nothing to a root, but their rounding noise would: √1e-16 = 1e-8.
        kept = values > len(values) * torch.finfo(torch.float64).eps * values[-1]
        root = vectors[:, kept] * values[kept].sqrt()
        return torch.linalg.qr(root[self.order].T, mode="r").R.T[self.order.argsort()]


class Blocks:
    """Sums n, Σᵢ fᵢ and Σᵢ fᵢ fᵢᵀ in float64 of the samples of each block k = i mod K, which add up over batches and ranks.

    8 K D² bytes: 335 MB for ten blocks of 2048 features.
    """

    narrow = None  # nobody knows the features any more

    def __init__(self, width: int, blocks: int = 1, device: torch.device | None = None):
        double = {"dtype": torch.float64, "device": device}
        self.n = torch.zeros(blocks, **double)
        self.total = torch.zeros(blocks, width, **double)
        self.second = [torch.zeros(width, width, **double) for _ in range(blocks)]  # their lower triangles
        self._rows: list[Tensor] = []
        self._index: list[Tensor] = []

    @classmethod
    def of(cls, features: Tensor, blocks: int = 1) -> "Blocks":
        """The sums over all rows of (N, D)."""
        sums = cls(features.shape[1], blocks, features.device)
        for first in range(0, len(features), ROWS):
            sums.update(features[first : first + ROWS], first)
        return sums

    def update(self, features: Tensor, first: int) -> None:
        """Take the samples first, first + 1, ... of (B, D) any dtype."""
        self._rows.append(features)
        self._index.append(torch.arange(first, first + len(features), device=features.device))
        if sum(map(len, self._rows)) >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Let what was gathered enter the sums."""
        if not self._rows:
            return
        rows, index = torch.cat(self._rows).to(self.n.device), torch.cat(self._index).to(self.n.device)
        self._rows, self._index = [], []
        for k in range(len(self.n)):
            block = rows[index % len(self.n) == k].double()
            self.n[k] += len(block)
            self.total[k] += block.sum(0)
            for i in range(0, block.shape[1], PANEL):  # half the work of the whole symmetric product
                self.second[k][i : i + PANEL, : i + PANEL].addmm_(block[:, i : i + PANEL].T, block[:, : i + PANEL])

    def reduce(self) -> None:
        """Add up over all ranks, in place; without ranks, nothing happens."""
        self.flush()
        if world() > 1:
            for sums in (self.n, self.total, *self.second):
                torch.distributed.all_reduce(sums)

    def to(self, device: torch.device) -> "Blocks":
        """The same on a device."""
        self.flush()
        self.n, self.total, *self.second = (sums.to(device) for sums in (self.n, self.total, *self.second))
        return self

    def part(self, kept: Sequence[int]) -> "Blocks":
        """Some of the blocks, sharing their sums."""
        self.flush()
        part = Blocks.__new__(Blocks)
        part.n, part.total, part.second = self.n[kept], self.total[kept], [self.second[k] for k in kept]
        part._rows, part._index = [], []
        return part

    def without(self, block: int, rest: Tensor | None = None) -> "Blocks":
        """All blocks but one; needs no features."""
        return self.part([k for k in range(len(self.n)) if k != block])

    @property
    def gram(self) -> Tensor:
        """The lower triangle of Σᵢ fᵢ fᵢᵀ over all blocks: (D, D)."""
        self.flush()
        second = torch.zeros_like(self.second[0])
        for part in self.second:
            second += part
        return second

    @cached_property
    def gaussian(self) -> Gaussian:
        """μ = Σᵢ fᵢ / n and Σ = (Σᵢ fᵢ fᵢᵀ − n μ μᵀ) / (n − 1); of all samples, so nothing can be added afterwards."""
        self.flush()
        n, total, second = self.n.sum(), self.total.sum(0), self.gram
        mean = total / n
        second.addr_(total, mean, alpha=-1).div_(n - 1)  # in place: these are large
        return Gaussian(mean, second.tril_() + second.tril(-1).T, int(n))


def fit(features: Tensor) -> Gaussian:
    """The moments of features (N, D) by whichever of the two ways is the exact and the cheap one."""
    return Gaussian.of(features) if len(features) <= features.shape[1] else Blocks.of(features).gaussian
