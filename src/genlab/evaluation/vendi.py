"""The Vendi score: how many different samples there are, without any reference."""

import torch
import torch.nn.functional as F

from genlab.evaluation.features import FeatureBank
from genlab.evaluation.moments import ROWS, Blocks


class Vendi:
    """`vendi_<name>` = exp(−Σᵢ λᵢ log λᵢ) ∈ [1, N], λ being the eigenvalues of K/N with Kᵢⱼ = cos(fᵢ, fⱼ) (Friedman & Dieng
    2023, 2210.02410, definition 3.1), which are those of the D × D matrix Σᵢ f̂ᵢ f̂ᵢᵀ/N."""

    needs = ("features",)

    def __init__(self, name: str):
        self.key = f"vendi_{name}"
        self.better = {self.key: "higher"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        return self.replicates(real, fake, 1)[0]

    def replicates(self, real: FeatureBank, fake: FeatureBank, blocks: int) -> list[dict[str, float]]:
        """The value, and, for several blocks, those without the fakes of index ≡ k mod blocks."""
        features = fake.finite("features", self.key, 1)  # (N, D)
        sums = Blocks(features.shape[1], blocks, features.device)
        for first in range(0, len(features), ROWS):
            sums.update(F.normalize(features[first : first + ROWS].double(), dim=1), first)
        left = [sums.without(k) for k in range(blocks)] if blocks > 1 else []
        return [{self.key: self._score(part)} for part in (sums, *left)]

    def _score(self, sums: Blocks) -> float:
        spectrum = torch.linalg.eigvalsh(sums.gram / sums.n.sum())  # (D,), of the lower triangle
        return torch.special.entr(spectrum.clamp(min=0)).sum().exp().item()
