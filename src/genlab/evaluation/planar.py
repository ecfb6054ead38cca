"""Metrics of points in the plane, where every sample can be held against the true density."""

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from genlab.data.planar import Density
from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank


class Points:
    """The extractor of points in the plane: they are their own features."""

    name = "points"
    fingerprint = ""

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return x, None


class Modes:
    """Mode coverage of a Gaussian mixture (VEEGAN, 1705.07761; PacGAN, 1712.04086): `high_quality`, the percentage of
    samples within 3 std of the nearest centre; `modes`, how many centres have such a sample; `reverse_kl`, KL(their
    shares of these samples ‖ uniform) in nats, NaN where there are none."""

    def __init__(self, density: Density):
        if density.centres is None or density.std is None:
            raise GenlabError(f"mode coverage needs a mixture of Gaussians, and {type(density).__name__} is not one")
        self.centres, self.std = density.centres, density.std  # (K, 2)
        # The true density has 1 − e^{−9/2} of its mass there; more than that is shrunken variance, not quality.
        perfect = 100 * (1 - math.exp(-4.5))
        self.better = {"modes": "higher", "high_quality": f"closer to {perfect:.3f}", "reverse_kl": "lower"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        distance, mode = torch.cdist(fake.features.double(), self.centres).min(1)  # (N,), (N,)
        good = distance <= 3 * self.std
        count = mode[good].bincount(minlength=len(self.centres))  # (K,)
        share = count / count.sum()
        return {
            "modes": (count > 0).sum().item(),
            "high_quality": 100 * good.double().mean().item(),
            "reverse_kl": torch.xlogy(share, share * len(share)).sum().item(),
        }


class Wasserstein:
    """`w2` = √(min_π 1/n Σᵢ ‖xᵢ − y_π(i)‖²), exact between the first n = min(N, M, most) rows of both sets, which are
    taken to be in random order ([SF]²M, Tong et al. 2024, 2307.03672, has n = 10 000); above 0 even for two sets of one
    density, and of cost O(n³): a second for 2500 points, half a minute for 10 000."""

    def __init__(self, most: int = 2_500):
        self.most = most
        self.better = {"w2": "lower"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        n = min(len(real.features), len(fake.features), self.most)
        cost = torch.cdist(real.features[:n].double(), fake.features[:n].double()).square()  # (n, n)
        if not cost.isfinite().all():
            return {"w2": math.nan}  # of a model that diverged, as every other metric says
        return {"w2": math.sqrt(cost[linear_sum_assignment(cost.numpy())].mean().item())}
