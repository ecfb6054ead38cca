"""Features of a set of samples: what metrics are functions of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.evaluation.moments import Blocks, Gaussian
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream


class Activations(NamedTuple):
    """What an extractor sees in a batch."""

    features: Tensor  # (B, D) float32
    logits: Tensor | None = None  # (B, K) float32, where it classifies
    spatial: Tensor | None = None  # (B, S) float32, activations that keep their place in the image


class Features(Protocol):
    """A frozen extractor of data in their own format."""

    name: str
    fingerprint: str  # sha256 of its weights
    layer: str  # whose activations are the features
    resize: str  # how an image becomes its input: filter, antialiasing, size

    def to(self, device: torch.device) -> Self: ...

    def __call__(self, x: Tensor) -> Activations: ...


@dataclass(frozen=True)
class FeatureBank:
    """One sample set seen by one extractor: what the metrics `need` of it; row i of every tensor belongs to sample i."""

    n: int
    moments: Gaussian | Blocks | None = None  # of the features
    spatial: Gaussian | Blocks | None = None  # of the spatial features
    features: Tensor | None = None  # (N, D) float32
    logits: Tensor | None = None  # (N, K) float32
    nearest: Tensor | None = None  # (N, 3) distances to the training data, as memorization.Training has them
    x: Tensor | None = None  # (N, ...) the samples themselves
    y: Tensor | None = None  # (N, ...) what they were asked to be

    def have(self, name: str, metric: str) -> Any:
        """A field of the bank; raises GenlabError, in the name of a metric, where the bank is without."""
        value = getattr(self, name)
        if value is None:
            raise GenlabError(f"{metric} needs {name} of the samples, which these do not have")
        return value

    def finite(self, name: str, metric: str, least: int = 2) -> Tensor:
        """A tensor of at least `least` samples without nan or inf; raises GenlabError, as `have` does, where it is none."""
        value = self.have(name, metric)
        if len(value) < least:
            raise GenlabError(f"{metric} needs at least {least} samples, and there are {len(value)}")
        if not all(math.isfinite(end) for end in value.aminmax()):  # nan is both; no copy is made of large features
            raise GenlabError(f"{metric}: {name} of the samples hold nan or inf, which no score can be made of")
        return value

    def gaussian(self, name: str, metric: str) -> Gaussian:
        """The Gaussian fitted to the features ("moments") or the spatial ones; raises GenlabError as `finite` does."""
        gaussian = self.have(name, metric).gaussian
        if gaussian.n is not None and gaussian.n < 2:
            raise GenlabError(f"{metric} needs at least 2 samples, and there are {gaussian.n}")
        if not math.isfinite((gaussian.mean.sum() + gaussian.covariance.sum()).item()):
            raise GenlabError(f"{metric}: {name} of the samples hold nan or inf, which no score can be made of")
        return gaussian

    def to(self, device: torch.device) -> "FeatureBank":
        """The bank on a device, but for the samples and their labels."""
        moved = {f.name: v for f in fields(self)[1:-2] if (v := getattr(self, f.name)) is not None}
        return replace(self, **{name: value.to(device) for name, value in moved.items()})

    def only(self, needs: Sequence[str]) -> "FeatureBank":
        """The bank with nothing but what is needed, and the features if moments that are needed were made from them."""
        made = {"features"} if "moments" in needs and self.moments and self.moments.narrow is not None else set()
        dropped = {f.name for f in fields(self)[1:]} - made.union(needs)
        return replace(self, **dict.fromkeys(dropped))

    def rows(self, index: Tensor) -> "FeatureBank":
        """The bank of a subset of its samples, without moments."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)[3:]}
        kept = {name: None if value is None else value[index] for name, value in tensors.items()}
        return FeatureBank(len(index), **kept)

    def without(self, block: int, blocks: int) -> "FeatureBank":
        """The bank without the samples of index ≡ block mod blocks."""
        index = (torch.arange(self.n) % blocks != block).nonzero().squeeze(1)
        kept = self.rows(index)
        return replace(
            kept,
            moments=self.moments and self.moments.without(block, kept.features),
            spatial=self.spatial and self.spatial.without(block, None),
        )


class Metric(Protocol):
    """A pure function of two banks; its keys name what it returns and `better` says which way is up."""

    @property
    def better(self) -> Mapping[str, str | None]:
        """name -> "lower" | "higher" | "closer to <value>", or None where nothing is better."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of the banks that it reads: "moments", "features", ..."""
        ...

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]: ...


class ModuleMetric(Protocol):
    """A function of the model itself, of data, and of the noise of its samples."""

    better: dict[str, str]

    def __call__(self, module: GenerativeModule, real: Tensor, noise: NoiseStream) -> dict[str, tuple[float, float]]:
        """Each value with its standard error."""
        ...
