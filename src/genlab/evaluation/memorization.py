"""A screen for copies of the training set."""

from functools import cached_property

import torch
from torch import Tensor

from genlab.evaluation.features import FeatureBank
from genlab.evaluation.frechet import frechet_distance
from genlab.evaluation.manifold import ROWS, Points, neighbours, squared_distances


class Training:
    """The training set as an extractor sees it, (M, D), and how far each of its samples is from the next one."""

    def __init__(self, features: Tensor):
        self.features = features
        self.centre = features[:ROWS].double().mean(0)  # about there: products round less around it

    @cached_property
    def own(self) -> Tensor:
        """minₖ ‖tⱼ − tₖ‖, k ≠ j, of each training sample: (M,)."""
        near = neighbours(Points(self.features, self.centre), 1)[:, 0, 0]
        return near.clamp(min=0).sqrt()

    def __call__(self, features: Tensor) -> Tensor:
        """Of each sample (N, D) to the training samples tⱼ: minⱼ ‖f − tⱼ‖, minⱼ (1 − |cos(f, tⱼ)|), and, of the tⱼ that is the
        nearest in the first sense, the distance to the nearest other training sample: (N, 3) float32."""
        return torch.cat([self._rows(rows.to(self.features.device)) for rows in features.split(ROWS)])

    def _rows(self, features: Tensor) -> Tensor:
        rows = features.double()
        best, cosine = rows.new_full((2, len(rows)), torch.inf)
        index = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        for first in range(0, len(self.features), ROWS):
            part = self.features[first : first + ROWS].double()
            lengths = torch.outer(rows.norm(dim=1), part.norm(dim=1))
            cosine = torch.minimum(cosine, (1 - (rows @ part.T).abs() / lengths.clamp(min=1e-300)).amin(1))
            near, at = squared_distances(rows - self.centre, part - self.centre).min(1)
            index = torch.where(near < best, first + at, index)
            best = torch.minimum(near, best)
        exact = (rows - self.features[index].double()).norm(dim=1)  # 0 for a copy, which the product is not
        return torch.stack([exact, cosine.clamp(min=0), self.own[index]], 1).float()


class Memorization:
    """`nn_ratio` = median d(fake, train) / median d(held-out, train): 1 for fresh draws from the data, below 1 for
    copies; these are the distances of the data-copying test (Meehan et al. 2020, 2004.05675), and 1 proves nothing.

    `auth_pct`, the percentage of fakes that are farther from their nearest training sample than it is from its own nearest
    other one (Alaa et al. 2022, 2102.08921, section 3.3), of which copies have none. Fresh draws have
    no one number: of a Gaussian about 40 % in 2 dimensions and 90 % in 1,024; hold it against another sample of the data.
    """

    needs = ("nearest",)

    def __init__(self):
        self.better = {"nn_ratio": "closer to 1", "auth_pct": "higher"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        theirs, ours = (bank.finite("nearest", "nn_ratio", 1).double() for bank in (real, fake))  # (N, 3), (M, 3)
        return {
            "nn_ratio": (ours[:, 0].quantile(0.5) / theirs[:, 0].quantile(0.5)).item(),
            "auth_pct": 100 * (ours[:, 0] > ours[:, 2]).double().mean().item(),
        }


class MemorizationInformed:
    """`mifd_<name>` = FD / (c + 10⁻¹⁴) where c < threshold, FD elsewhere, c being the mean over the fakes of their cosine
    distance min 1 − |cos(f, t)| to the training set (MiFID: Bai et al. 2021, 2106.03062, section 3; 0.1 in their
    competition, of Inception features). `key` is another name."""

    needs = ("moments", "nearest")

    def __init__(self, name: str, threshold: float = 0.1, key: str | None = None):
        self.threshold, self.key = threshold, key or f"mifd_{name}"
        self.better = {self.key: "lower"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        c = fake.finite("nearest", self.key, 1)[:, 1].double().mean().item()
        fd = frechet_distance(real.gaussian("moments", self.key), fake.gaussian("moments", self.key))
        return {self.key: fd / (c + 1e-14) if c < self.threshold else fd}
