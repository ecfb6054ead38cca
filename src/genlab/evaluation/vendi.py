"""The Vendi score: how many different samples there are, without any reference."""

import torch
import torch.nn.functional as F
from torch import Tensor

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
        whole, n = _gram(features), len(features)
        answer = [self._score(whole, n)]
        for k in range(blocks if blocks > 1 else 0):  # gone through twice, because ten matrices at once are large
            block = features[k::blocks]
            answer.append(self._score(whole - _gram(block), n - len(block)))
        return answer

    def _score(self, gram: Tensor, n: int) -> dict[str, float]:
        spectrum = torch.linalg.eigvalsh(gram / n)  # (D,), of the lower triangle
        return {self.key: torch.special.entr(spectrum.clamp(min=0)).sum().exp().item()}


def _gram(features: Tensor) -> Tensor:
    """The lower triangle of Σᵢ f̂ᵢ f̂ᵢᵀ, f̂ being f/‖f‖: (N, D) -> (D, D)."""
    sums = Blocks(features.shape[1], 1, features.device)
    for rows in features.split(ROWS):
        sums.update(F.normalize(rows.double(), dim=1), 0)
    return sums.gram
