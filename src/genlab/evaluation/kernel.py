"""The kernel distance: an unbiased two-sample statistic."""

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.jackknife import kept

ROWS = 1024  # and columns of the kernel matrix held at a time


def kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    """Σᵢⱼ k(xᵢ, yⱼ) in float64, with k(x, y) = (x·y/D + 1)³: (N, D), (M, D) -> ()."""
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for rows in x.split(ROWS):
        a = rows.double()  # converted by parts, because features in float32 may fill half the memory
        for others in y.split(ROWS):
            total += torch.addmm(total.new_ones(()), a, others.double().T, alpha=1 / x.shape[1]).pow_(3).sum()
    return total


def own_sum(x: Tensor) -> Tensor:
    """Σ_{i≠j} k(xᵢ, xⱼ), each pair computed once: (N, D) -> ()."""
    parts = x.split(ROWS)
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for i, rows in enumerate(parts):
        diagonal = rows.double().square().mean(1).add_(1).pow_(3).sum()
        total += kernel_sum(rows, rows) - diagonal + 2 * kernel_sum(rows, x[(i + 1) * ROWS :])
    return total


def distance(within_real: Tensor, within_fake: Tensor, across: Tensor, n: int, m: int) -> float:
    """The U-statistic MMD² = Σ_{i≠j} k(xᵢ, xⱼ)/(N(N − 1)) + Σ_{i≠j} k(yᵢ, yⱼ)/(M(M − 1)) − 2 Σᵢⱼ k(xᵢ, yⱼ)/(N M)."""
    return (within_real / (n * (n - 1)) + within_fake / (m * (m - 1)) - 2 * across / (n * m)).item()


class KernelDistance:
    """`kd_<name>` = MMD² with the cubic kernel as the full U-statistic, mean 0 for equal distributions and so at times
    negative (Bińkowski et al. 2018, 1801.01401, section 4; all pairs, not a mean over random subsets)."""

    needs = ("features",)

    def __init__(self, name: str):
        self.key = f"kd_{name}"
        self.better = {self.key: "lower"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        return self.replicates(real, fake, 1)[0]

    def replicates(self, real: FeatureBank, fake: FeatureBank, blocks: int) -> list[dict[str, float]]:
        """The value, and those without the fakes of index ≡ k mod blocks, all from one sum over the pairs."""
        x, y = (bank.finite("features", self.key) for bank in (real, fake))  # (N, D), (M, D)
        parts = [y[k::blocks] for k in range(blocks)]
        m = torch.tensor([len(part) for part in parts])  # (K,)
        across = torch.stack([kernel_sum(x, part) for part in parts])  # (K,)
        within = across.new_zeros(len(parts), len(parts))
        for i, part in enumerate(parts):
            within[i, i] = own_sum(part)
            for j, other in enumerate(parts[:i]):
                within[i, j] = within[j, i] = kernel_sum(part, other)
        own = own_sum(x)
        return [
            {self.key: distance(own, within[i][:, i].sum(), across[i].sum(), len(x), int(m[i].sum()))}
            for i in kept(blocks)
        ]


class KernelSubsets:
    """`kd_subsets_<name>`: the same statistic as a mean over `subsets` pairs of `size` samples drawn without replacement by
    `seed` from both sets, and `.._spread`, the standard deviation over them (the KID of Bińkowski et al. 2018, 1801.01401,
    section 4, and of most papers: 100 of 1000).

    Unbiased as kd_<name> is, and of larger variance; it has no jackknife error, which would measure the choice of subsets.
    `key` is another name. Raises GenlabError for fewer than `size` samples.
    """

    needs = ("features",)
    blocks = 1

    def __init__(self, name: str, subsets: int = 100, size: int = 1000, seed: int = 0, key: str | None = None):
        self.subsets, self.size, self.seed = subsets, size, seed
        self.key = key or f"kd_subsets_{name}"
        self.better = {self.key: "lower", f"{self.key}_spread": None}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        x, y = (bank.finite("features", self.key, self.size) for bank in (real, fake))  # (N, D), (M, D)
        if self.size < 2:
            raise GenlabError(f"{self.key}: subsets of {self.size} have no pairs; use size=1000")
        generator, values = torch.Generator().manual_seed(self.seed), []
        for _ in range(self.subsets):
            a, b = (z[torch.randperm(len(z), generator=generator)[: self.size].to(z.device)] for z in (x, y))
            values.append(distance(own_sum(a), own_sum(b), kernel_sum(a, b), self.size, self.size))
        drawn = torch.tensor(values, dtype=torch.float64)  # (S,)
        return {self.key: drawn.mean().item(), f"{self.key}_spread": drawn.std(correction=0).item()}
