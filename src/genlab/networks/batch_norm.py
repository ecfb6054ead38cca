"""Batch norm over the batches of all ranks together."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from genlab.distributed import total, world


class Total(torch.autograd.Function):
    """The sum over all ranks; its gradient is that sum of gradients, and so on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return total(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Total.apply(gradient)  # pyright: ignore[reportReturnType]


def average(x: Tensor) -> Tensor:
    """The mean of x over all ranks, differentiable as often as one likes."""
    y: Tensor = Total.apply(x)  # pyright: ignore[reportAssignmentType]
    return y / world()


class SyncBatchNorm(_BatchNorm):
    """w (x - μ)/√(σ² + eps) + b, μ and σ² of the channel's numbers on all ranks, whose batches are of one size.

    Unlike torch's own it is differentiable twice, as penalties on slopes need it, and runs on CPUs.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world() == 1:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))  # (B, C, ...)
        others = [d for d in range(x.ndim) if d != 1]
        mean = average(x.mean(others, keepdim=True))
        x = x - mean
        var = average(x.square().mean(others, keepdim=True))
        self._remember(mean.detach().flatten(), var.detach().flatten(), world() * x.numel() // x.shape[1])
        x = x * (var + self.eps).rsqrt()
        if self.affine:
            x = x * self.weight.reshape(mean.shape) + self.bias.reshape(mean.shape)
        return x.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, n: int) -> None:
        """Move the running mean, and the running variance by the unbiased one of n numbers, as torch does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * n / max(n - 1, 1), self.momentum)


class SyncBatchNorm1d(SyncBatchNorm, nn.BatchNorm1d):
    """Of (B, C)."""


class SyncBatchNorm2d(SyncBatchNorm, nn.BatchNorm2d):
    """Of (B, C, H, W)."""


SYNCHRONIZED = {nn.BatchNorm1d: SyncBatchNorm1d, nn.BatchNorm2d: SyncBatchNorm2d}


def synchronize(module: nn.Module) -> None:
    """Make every batch norm below a module one of all ranks, its weights and statistics being what they were."""
    for part in module.modules():
        if type(part) in SYNCHRONIZED:
            part.__class__ = SYNCHRONIZED[type(part)]
