"""The kernel distance: an unbiased two-sample statistic."""

import torch
from torch import Tensor

from genlab.evaluation.features import FeatureBank

ROWS = 512  # of the kernel matrix held at a time


def kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    """Σᵢⱼ k(xᵢ, yⱼ) with k(x, y) = (x·y/D + 1)³: (N, D), (M, D) float64 -> ()."""
    one = x.new_ones(())
    blocks = [torch.addmm(one, rows, y.T, alpha=1 / x.shape[1]).pow(3).sum() for rows in x.split(ROWS)]
    return torch.stack(blocks).sum()


def pair_mean(x: Tensor) -> Tensor:
    """Σ_{i≠j} k(xᵢ, xⱼ) / (N (N − 1)): (N, D) float64 -> ()."""
    diagonal = (x.square().mean(1) + 1).pow(3).sum()
    return (kernel_sum(x, x) - diagonal) / (len(x) * (len(x) - 1))


class KernelDistance:
    """`kd_<name>` = MMD² with the cubic kernel as the full U-statistic, mean 0 for equal distributions and so at times
    negative (Bińkowski et al. 2018, 1801.01401, section 4; all pairs, not a mean over random subsets)."""

    def __init__(self, name: str):
        self.key = f"kd_{name}"
        self.better = {self.key: "lower"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        x, y = real.features.double(), fake.features.double()  # (N, D), (M, D)
        cross = kernel_sum(x, y) / (len(x) * len(y))
        return {self.key: (pair_mean(x) + pair_mean(y) - 2 * cross).item()}
