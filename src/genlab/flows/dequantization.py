"""How data on a lattice become numbers that have a density."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.flows.bijection import Chain, summed
from genlab.flows.coupling import CheckerboardCoupling
from genlab.flows.elementwise import Affine
from genlab.networks.coupling import ContextNet


class Variational(nn.Module):
    """v = x + δ (S(g(ε; x)) - 1/2), δ a cell of the lattice, ε ~ N(0, I): q(v | x) of a flow g of checkerboard couplings, so
    that log P(x) >= E_q [log p(v) - log q(v | x)].

    Ho et al. 2019, Flow++, arXiv:1902.00275, eq. 11 and 12; its couplings are of mixtures of logistics, these affine. At
    first q is nearly uniform dequantization. Raises GenlabError for data that are no images of grey levels.
    """

    def __init__(self, shape: Sequence[int], levels: int | None, layers: int, width: int):
        super().__init__()
        if levels is None or len(shape) != 3:
            raise GenlabError("variational dequantization is for images of grey levels: write ~dequantization")
        if layers < 2:
            raise GenlabError(f"dequantization.layers={layers}: the two colours of a checkerboard need 2 or more")
        self.cell = 2 / (levels - 1)
        self.context = nn.Sequential(
            nn.Conv2d(shape[0], width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
        )

        def net(inputs: int, outputs: int) -> nn.Module:
            return ContextNet(inputs, width, outputs)

        self.flow = Chain([CheckerboardCoupling(shape, net, Affine, flipped=i % 2 == 1) for i in range(layers)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """v in the cell of x, and (B,) log q(v | x)."""
        eps = torch.randn_like(x)
        s, log_det = self.flow(eps, self.context(x))
        s = s * SPREAD
        log_normal = summed(-0.5 * eps.square() - 0.5 * math.log(2 * math.pi))
        log_slope = summed(-F.softplus(s) - F.softplus(-s) + math.log(SPREAD * self.cell))  # of v over s
        return x + self.cell * (s.sigmoid() - 0.5), log_normal - log_det - log_slope


SPREAD = 1.7  # S(1.7 ε) is nearly uniform
