"""Features of a set of samples: what metrics are functions of."""

from typing import NamedTuple, Protocol

from torch import Tensor

from genlab.module import GenerativeModule
from genlab.noise import NoiseStream


class FeatureBank(NamedTuple):
    """One sample set seen by one extractor; row i of every field belongs to sample i."""

    features: Tensor  # (N, D) float32
    logits: Tensor | None = None  # (N, K) float32, where the extractor classifies
    nearest: Tensor | None = None  # (N,) distance in feature space to the nearest training sample

    def rows(self, index: Tensor) -> "FeatureBank":
        """The bank of a subset of its samples."""
        logits = None if self.logits is None else self.logits[index]
        return FeatureBank(self.features[index], logits, None if self.nearest is None else self.nearest[index])


class Features(Protocol):
    """A frozen extractor: data in its own format -> features and, for classifiers, logits."""

    name: str
    fingerprint: str  # sha256 of its weights

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]: ...  # (B, D), (B, K)


class Metric(Protocol):
    """A pure function of two banks; its keys name what it returns and `better` says which way is up."""

    better: dict[str, str]  # name -> "lower" | "higher" | "closer to <value>"

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]: ...


class TransportMetric(Protocol):
    """A number about the way from noise to samples: a function of the model itself, of data, and of the samples' noise."""

    better: dict[str, str]

    def __call__(self, module: GenerativeModule, real: Tensor, noise: NoiseStream) -> dict[str, tuple[float, float]]:
        """Each value with its standard error."""
        ...
