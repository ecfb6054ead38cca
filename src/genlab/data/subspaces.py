"""A mixture on subspaces of many dimensions, with its density by their measure and its entropy; no download."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from genlab.data.planar import Density
from genlab.data.source import Batch


class Subspaces(Density):
    """Equal Gaussians on parallel subspaces: x = o_y 1 + std (ε, 0) with ε ~ N(0, I) in the first `noisy` dimensions; by the
    measure of these subspaces, p(x) = 1/K N(x_{1…noisy}; o_y 1, std² I), and 0 elsewhere.

    VEEGAN's ten 700-dimensional modes in 1,200 dimensions (1705.07761), with the offsets of PacGAN's code (1712.04086).
    """

    centres: Tensor
    std: float

    def __init__(self, offsets: Sequence[float], dimensions: int = 1200, noisy: int = 700, std: float = 1.0):
        self.offsets, self.noisy, self.std = torch.tensor(offsets, dtype=torch.float32), noisy, std
        self.centres = self.offsets.double()[:, None].expand(-1, dimensions)

    def sample(self, n: int, generator: Generator) -> Batch:
        y = torch.randint(len(self.offsets), (n,), generator=generator)
        x = self.centres[y].float()
        x[:, : self.noisy] += self.std * torch.randn(n, self.noisy, generator=generator)
        return Batch(x, y)

    def log_prob(self, x: Tensor) -> Tensor:
        same = x[:, -1, None] == self.offsets  # (N, K)
        offset = x[:, -1:].double()
        there = same.any(1) & (x[:, self.noisy :] == x[:, -1:]).all(1)
        square = ((x[:, : self.noisy].double() - offset) / self.std).square().sum(1)
        constant = math.log(len(self.offsets)) + self.noisy / 2 * math.log(2 * math.pi * self.std**2)
        return torch.where(there, -square / 2 - constant, -math.inf)

    @property
    def entropy(self) -> float:
        return math.log(len(self.offsets)) + self.noisy / 2 * math.log(2 * math.pi * math.e * self.std**2)
