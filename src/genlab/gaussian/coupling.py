"""Which ε meets which x in a training batch."""

import warnings
from typing import Any, Protocol

import torch
from torch import Tensor

from genlab.errors import GenlabError


class Coupling(Protocol):
    """The joint law of (x, ε, y) in a batch, from x, ε drawn independently and the labels of x."""

    def __call__(self, x: Tensor, eps: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]: ...


class Independent:
    """Each x meets the ε that was drawn beside it."""

    def __call__(self, x: Tensor, eps: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        return x, eps, y


class ExactOT:
    """Each x_i meets the ε_π(i) of the permutation that minimizes Σᵢ ‖x_i - ε_π(i)‖², so every ε is met once.

    Tong et al. 2024, arXiv:2302.00482, algorithm 3; Pooladian et al. 2023, arXiv:2304.14772, section 4.
    """

    def __call__(self, x: Tensor, eps: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        import ot  # a second to import, and no other coupling needs it

        one = torch.ones(len(x), dtype=torch.float64)  # whole masses, whose sums are exact: the plan is a permutation
        plan: Any = ot.emd(one, one, squared_distances(x, eps), numItermax=10_000_000)  # (B, B)
        return x, eps[plan.argmax(1).to(eps.device)], y


class EntropicOT:
    """Each x_i meets an ε drawn from row i of the plan P that minimizes ⟨P, C⟩ + reg Σ P log P, C_ij = ‖x_i - ε_j‖².

    `reg` is in units of C: 2σ² makes the pairs of a Schrödinger bridge with diffusion σ (Tong et al. 2024,
    arXiv:2307.03672, proposition 3.4). Raises GenlabError where reg is too small for Sinkhorn's iterations.
    """

    def __init__(self, reg: float, iterations: int = 1000):
        if reg <= 0:
            raise GenlabError(f"coupling.reg={reg:g} must be above 0; coupling=exact_ot is its limit at 0")
        self.reg, self.iterations = reg, iterations

    def __call__(self, x: Tensor, eps: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        plan = self.plan(squared_distances(x, eps))
        return x, eps[torch.multinomial(plan, 1)[:, 0].to(eps.device)], y

    def plan(self, cost: Tensor) -> Tensor:
        """(B, B) whose rows sum to 1."""
        import ot

        one = torch.ones(len(cost), dtype=torch.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is an error here
            plan: Any = ot.sinkhorn(one, one, cost, self.reg, numItermax=self.iterations, stopThr=1e-6)
        if not ((plan.sum(1) - 1).abs().amax() < 1e-2 and (plan.sum(0) - 1).abs().amax() < 1e-2):  # nan is neither
            raise GenlabError(
                f"coupling.reg={self.reg:g} is too small beside a mean squared distance of {cost.mean():.3g}: "
                "raise it, or take coupling=exact_ot"
            )
        return plan


def squared_distances(x: Tensor, eps: Tensor) -> Tensor:
    """(B, B) ‖x_i - ε_j‖² in float64 on the CPU, where the plans are made."""
    return torch.cdist(x.flatten(1).double(), eps.flatten(1).double()).square().cpu()
