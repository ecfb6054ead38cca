"""From bounded data to all numbers."""

import math

import torch.nn.functional as F
from torch import Tensor

from genlab.errors import GenlabError
from genlab.flows.bijection import Bijection, summed


class Logit(Bijection):
    """z = logit(α + (1 - 2α) u), u in [0, 1] the place of x between the outer edges of the data's outermost cells.

    Dinh et al. 2017, arXiv:1605.08803, section 4.1, in the form of their published code, whose α = 0.05 leaves as much room
    above as below; the paper's α + (1 - α) u has a pole at u = 1. Of grey levels x is in [-1, 1], with cells 2/(levels - 1).
    """

    def __init__(self, alpha: float, levels: int | None):
        super().__init__()
        if not 0 < alpha < 0.5:
            raise GenlabError(f"network.before.alpha={alpha}: between 0 and 0.5 (0.05 in the paper) is needed")
        if levels is None:
            raise GenlabError("the logit is for images of so many grey levels: set network.before=null for other data")
        self.alpha, self.reach = alpha, 1 + 1 / (levels - 1)

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        slope = (1 - 2 * self.alpha) / (2 * self.reach)
        z = (0.5 + slope * x).logit()
        return z, summed(F.softplus(z) + F.softplus(-z) + math.log(slope))

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        return (z.sigmoid() - 0.5) * (2 * self.reach / (1 - 2 * self.alpha))
