"""Autoregressive layers: every dimension is moved by all before it."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zuko.nn import MaskedMLP

from genlab.errors import GenlabError
from genlab.flows.bijection import Bijection, Chain, Flattened
from genlab.flows.elementwise import Elementwise
from genlab.flows.linear import ActNorm, Gaussian, Reverse
from genlab.precision import wide


class Autoregressive(Bijection):
    """z_i = f(x_i; h_i(x_1, ..., x_{i-1}, y)), h a masked network: one pass to z, and as many as dimensions back.

    Papamakarios et al. 2017, arXiv:1705.07057, eq. 3 to 5, of vectors (B, D); the network is MADE (Germain et al. 2015,
    arXiv:1502.03509), zuko's.
    """

    def __init__(self, dim: int, elementwise: Callable[[], Elementwise], width: int, depth: int, classes: int):
        super().__init__()
        if dim < 2:
            raise GenlabError(
                f"an autoregressive flow of {dim} dimension has nothing to condition on: give it 2 or more"
            )
        self.dim, self.elementwise, self.classes = dim, elementwise(), classes
        order = torch.arange(dim)
        allowed = torch.cat([order[:, None] > order, torch.ones(dim, classes, dtype=torch.bool)], dim=1)
        outputs = allowed.repeat_interleave(self.elementwise.outputs, 0)
        self.network = MaskedMLP(outputs, [width] * depth, nn.SiLU)  # pyright: ignore

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = self.elementwise.transform(x, self._theta(x, y))
        return z, log_det.sum(1)

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        x = torch.zeros_like(z)
        for _ in range(self.dim):  # each pass makes one more dimension right
            x = self.elementwise.inverse(z, self._theta(x, y))
        return x

    def _theta(self, x: Tensor, y: Tensor | None) -> Tensor:
        context = [] if y is None else [F.one_hot(y, self.classes).to(x.dtype)]
        return wide(self.network(torch.cat([x, *context], dim=1)).unflatten(1, (self.dim, -1)))


def autoregressive(
    shape: Sequence[int], elementwise: Callable[[], Elementwise], layers: int, width: int, depth: int, classes: int
) -> Bijection:
    """Each dimension normalized, then `layers` autoregressive layers with the dimensions reversed in between."""
    dim = math.prod(shape)
    chain: list[Bijection] = [ActNorm(dim)]
    for _ in range(layers):
        chain += [Autoregressive(dim, elementwise, width, depth, classes), Reverse()]
    return Flattened(Chain([*chain, Gaussian([dim], classes)]))
