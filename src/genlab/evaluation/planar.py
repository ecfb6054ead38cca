"""Metrics of points in the plane, where every sample can be held against the true density."""

import math
from typing import Any

import torch
from torch import Tensor

from genlab.data.planar import Density
from genlab.errors import GenlabError
from genlab.evaluation.features import Activations, FeatureBank
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream


class Points:
    """The extractor of points in the plane: they are their own features."""

    name = "points"
    fingerprint = ""
    layer = "none"
    resize = "none"

    def to(self, device: torch.device) -> "Points":
        return self

    def __call__(self, x: Tensor) -> Activations:
        return Activations(x)


class Modes:
    """Mode coverage of a Gaussian mixture (VEEGAN, 1705.07761; PacGAN, 1712.04086): `high_quality`, the percentage of
    samples within `reach` std of the nearest centre; `modes`, how many centres have such a sample; `reverse_kl`, KL(their
    shares of these samples ‖ uniform) in nats, NaN where there are none. `suffix` tells two of different reach apart."""

    needs = ("features",)

    def __init__(self, density: Density, reach: float = 3.0, suffix: str = ""):
        if density.centres is None or density.std is None:
            raise GenlabError(f"mode coverage needs a mixture of Gaussians, and {type(density).__name__} is not one")
        if not reach > 0:
            raise GenlabError(f"modes.reach={reach}: a number of standard deviations above 0 is needed")
        self.centres, self.radius = density.centres, reach * density.std  # (K, D)
        # The true density has P(χ² ≤ reach²) of its mass there; more than that is shrunken variance, not quality.
        within = torch.special.gammainc(torch.tensor(density.noisy / 2.0).double(), torch.tensor(reach**2 / 2).double())
        better = {"modes": "higher", "high_quality": f"closer to {100 * within.item():.3f}", "reverse_kl": "lower"}
        self.names = {name: name + suffix for name in better}
        self.better = {self.names[name]: which for name, which in better.items()}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        x = fake.have("features", "modes")  # (N, D)
        distance, mode = torch.cdist(x.double(), self.centres.to(x.device)).min(1)  # (N,), (N,)
        good = distance <= self.radius
        count = mode[good].bincount(minlength=len(self.centres))  # (K,)
        share = count / count.sum()
        found = {
            "modes": (count > 0).sum().item(),
            "high_quality": 100 * good.double().mean().item(),
            "reverse_kl": torch.xlogy(share, share * len(share)).sum().item(),
        }
        return {self.names[name]: value for name, value in found.items()}


class Wasserstein:
    """`w2` = √(min_π 1/n Σᵢ ‖xᵢ − y_π(i)‖²), exact between the first n = min(N, M, most) rows of both sets, which are
    taken to be in random order ([SF]²M, Tong et al. 2024, 2307.03672, has n = 10 000); above 0 even for two sets of one
    density, and of cost O(n³): half a second for 2500 points, 20 s and 4 GB for 10 000, where blocks = 1 leaves out the
    jackknife's error, which takes ten times as long."""

    needs = ("features",)

    def __init__(self, most: int = 2_500, blocks: int = 10):
        self.most, self.blocks = most, blocks
        self.better = {"w2": "lower"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        x, y = real.have("features", "w2"), fake.have("features", "w2")  # (N, 2), (M, 2)
        n = min(len(x), len(y), self.most)
        return {"w2": math.sqrt(w2_squared(x[:n], y[:n]))}


def w2_squared(x: Tensor, y: Tensor) -> float:
    """min_π 1/n Σᵢ ‖xᵢ − y_π(i)‖² of two sets (n, D), by POT's network simplex; nan where one is not finite."""
    import ot  # a second to import

    cost = torch.cdist(x.cpu().double(), y.cpu().double()).square().numpy()  # (n, n)
    if not math.isfinite(cost.sum()):
        return math.nan  # of a model that diverged, as every other metric says
    w2: Any = ot.emd2([], [], cost, numItermax=1_000_000_000)
    return float(w2)


class PathEnergy:
    """How a deterministic sampler carries n = min(N, most) starts z to samples x: with its energy E ∫ ‖dx/dt‖² dt, from
    `module.transport`, `npe` = |energy − W₂²|/W₂², W₂ being between z and the test set ([SF]²M, Tong et al. 2024,
    2307.03672, section 5), and `straightness` = energy − E ‖x − z‖², 0 where every path is a straight line at constant
    speed (Liu et al. 2022, 2209.03003, eq. 6). Raises GenlabError for a model that draws noise on its way."""

    def __init__(self, most: int = 10_000):
        self.most = most
        self.better = {"npe": "lower", "straightness": "lower"}

    @torch.no_grad()
    def __call__(self, module: GenerativeModule, real: Tensor, noise: NoiseStream) -> dict[str, tuple[float, float]]:
        """Each value and its standard error over the samples; real is data, and noise that of the samples."""
        n = min(len(real), self.most)
        z, x, energy = module.transport(noise, n)
        optimal = w2_squared(module.codec.encode(real[:n]).flatten(1), z.flatten(1))
        bend = energy - (x - z).flatten(1).double().square().sum(1)
        return {
            "npe": (abs(energy.mean().item() - optimal) / optimal, (energy.std() / n**0.5).item() / optimal),
            "straightness": (bend.mean().item(), (bend.std() / n**0.5).item()),
        }
