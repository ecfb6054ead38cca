"""Terms that a critic pays for being steep, as values."""

import abc

import torch
from torch import Tensor, nn


class Penalty(abc.ABC):
    """A scalar added to the critic's loss."""

    @abc.abstractmethod
    def __call__(self, critic: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor: ...


class NoPenalty(Penalty):
    """Zero."""

    def __call__(self, critic: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        return real.new_zeros(())


class GradientPenalty(Penalty):
    """weight · E (‖∇D(u x + (1 - u) G)‖ - 1)², u ~ U(0, 1) for each sample.

    Gulrajani et al. 2017, arXiv:1704.00028, eq. 3.
    """

    def __init__(self, weight: float):
        self.weight = weight

    def __call__(self, critic: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        u = torch.rand((len(real),) + (1,) * (real.ndim - 1), device=real.device)
        x = (u * real + (1 - u) * fake).detach().requires_grad_()
        with torch.enable_grad():  # also in validation
            (gradient,) = torch.autograd.grad(critic(x, y).sum(), x, create_graph=True)
        return self.weight * (gradient.flatten(1).norm(dim=1) - 1).square().mean()
