"""The Fréchet distance between two Gaussians fitted to features."""

import torch

from genlab.evaluation.features import FeatureBank
from genlab.evaluation.moments import Moments


def frechet_distance(real: Moments, fake: Moments) -> float:
    """‖μ_r − μ_f‖² + tr(Σ_r + Σ_f − 2 (Σ_r Σ_f)^½), squared feature units (Heusel et al. 2017, 1706.08500, eq. 6)."""
    values, vectors = torch.linalg.eigh(real.covariance)
    # Directions without variance contribute nothing to the root, but their rounding noise would: √1e-16 = 1e-8.
    kept = values > len(values) * torch.finfo(torch.float64).eps * values[-1]
    factor = vectors[:, kept] * values[kept].sqrt()  # (D, R), factor factorᵀ = Σ_r
    # Σ_r Σ_f has the spectrum of the symmetric factorᵀ Σ_f factor, so no root of a matrix is needed.
    spectrum = torch.linalg.eigvalsh(factor.T @ fake.covariance @ factor)  # (R,)
    root = spectrum.clamp(min=0).sqrt().sum()
    shift = (real.mean - fake.mean).square().sum()
    return (shift + real.covariance.trace() + fake.covariance.trace() - 2 * root).item()


class FrechetDistance:
    """The Fréchet distance `fd_<name>` in the feature space of the extractor `name`; it is biased upwards by O(1/N)."""

    def __init__(self, name: str):
        self.key = f"fd_{name}"
        self.better = {self.key: "lower"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        return {self.key: frechet_distance(Moments.of(real.features), Moments.of(fake.features))}
