"""Fidelity and diversity apart: are fakes where reals are, and reals where fakes are?"""

from collections.abc import Iterator

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank

ROWS = 512  # of the distance matrix held at a time


def distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """The matrix ‖xᵢ − yⱼ‖ in blocks of rows: (N, D), (M, D) -> (≤ ROWS, M) each."""
    for rows in x.split(ROWS):
        # ‖x‖² + ‖y‖² − 2 x·y in float32 puts a point up to 0.02 away from itself.
        yield torch.cdist(rows, y, compute_mode="donot_use_mm_for_euclid_dist")


def radii(x: Tensor, k: int) -> Tensor:
    """The distance r_k of each point to its k-th nearest neighbour, itself not counted: (N, D) -> (N,)."""
    return torch.cat([block.kthvalue(k + 1, dim=1).values for block in distances(x, x)])


class Manifold:
    """Improved precision and recall (Kynkäänniemi et al. 2019, 1904.06991, eqs. 1–2), density and coverage (Naeem et
    al. 2020, 2002.09797): which points a lie in closed balls ‖a − b‖ ≤ r_k(b) around the points b of the other set."""

    def __init__(self, k: int = 5):
        self.k = k
        self.better = {"precision": "higher", "recall": "higher", "density": "higher", "coverage": "higher"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        x, y = real.features, fake.features  # (N, D), (M, D)
        if min(len(x), len(y)) <= self.k:
            raise GenlabError(f"k={self.k} neighbours need more samples than {len(x)} real and {len(y)} fake ones")
        real_radii, fake_radii = radii(x, self.k), radii(y, self.k)  # (N,), (M,)
        precise = memberships = 0
        covered, recalled = torch.zeros(2, len(x), dtype=torch.bool, device=x.device)
        for block, reach in zip(distances(y, x), fake_radii.split(ROWS), strict=True):
            in_real = block <= real_radii  # (≤ ROWS, N)
            precise += in_real.any(1).sum().item()
            memberships += in_real.sum().item()
            covered |= in_real.any(0)
            recalled |= (block <= reach[:, None]).any(0)
        return {
            "precision": precise / len(y),
            "recall": recalled.double().mean().item(),
            "density": memberships / (self.k * len(y)),
            "coverage": covered.double().mean().item(),
        }
