"""The Fréchet distance between two Gaussians fitted to features."""

import sys

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.moments import PANEL, Gaussian

ENOUGH = 10_000  # samples under which a FID says more about their number than about the model


def frechet_distance(real: Gaussian, fake: Gaussian) -> float:
    """‖μ_r − μ_f‖² + tr(Σ_r + Σ_f − 2 (Σ_r Σ_f)^½), squared feature units (Heusel et al. 2017, 1706.08500, eq. 6)."""
    # Σ_r Σ_f has the spectrum of the symmetric F_rᵀ Σ_f F_r, so no root of a matrix is needed; F is cached.
    shift = (real.mean - fake.mean).square().sum()
    return (shift + real.covariance.trace() + fake.covariance.trace() - 2 * _root(real, fake)).item()


def _root(real: Gaussian, fake: Gaussian) -> Tensor:
    """tr (Σ_r Σ_f)^½."""
    if (
        real.narrow is not None or fake.narrow is not None
    ):  # few samples: ‖F_rᵀ F_f‖_*, without the rounding of a square
        return torch.linalg.svdvals(real.factor.T @ fake.factor).sum()
    order = real.order
    spectrum = torch.linalg.eigvalsh(_product(real.factor[order], fake.covariance[order][:, order]))  # (R,)
    return spectrum.clamp(min=0).sqrt().sum()


def _product(low: Tensor, s: Tensor) -> Tensor:
    """The lower triangle of Lᵀ S L, (R, R), for L (D, R) lower triangular: a third of the work of two products."""
    half, product = low.new_empty(low.shape[1], len(low)), low.new_zeros(low.shape[1], low.shape[1])
    for i in range(0, low.shape[1], PANEL):
        torch.mm(low[i:, i : i + PANEL].T, s[i:], out=half[i : i + PANEL])
    for i in range(0, low.shape[1], PANEL):
        torch.mm(low[i:, i : i + PANEL].T, half[: i + PANEL, i:].T, out=product[i : i + PANEL, : i + PANEL])
    return product


class FrechetDistance:
    """The Fréchet distance `fd_<name>` in the feature space of the extractor `name`, or, of its spatial features, `sfd_<name>`
    (sFID: Nash et al. 2021, 2103.03841); it is biased upwards by O(1/N).

    `key` is a published name for it, fid or sfid: under it, it warns of fewer than 10,000 samples, and raises GenlabError for
    no more samples than features, whose covariance is singular.
    """

    biased = True  # so that its corrected value means something

    def __init__(self, name: str, spatial: bool = False, key: str | None = None):
        self.of = "spatial" if spatial else "moments"
        self.needs = (self.of,)
        self.published, self.key = key is not None, key or (f"sfd_{name}" if spatial else f"fd_{name}")
        self.better = {self.key: "lower"}
        self.warned = False

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        if self.published:
            self._check(fake.n, len(real.gaussian(self.of, self.key).mean))
        return self._distance(real, fake)

    def replicates(self, real: FeatureBank, fake: FeatureBank, blocks: int) -> list[dict[str, float]]:
        """The value, and those without the k-th block, however few samples these have."""
        return [self(real, fake), *(self._distance(real, fake.without(k, blocks)) for k in range(blocks))]

    def _distance(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        return {self.key: frechet_distance(real.gaussian(self.of, self.key), fake.gaussian(self.of, self.key))}

    def _check(self, n: int, width: int) -> None:
        if n <= width:
            raise GenlabError(
                f"{n} samples are not enough for a fid in {width} dimensions: draw {ENOUGH:,} or more, or give the "
                "distance no key of its own (key=null)"
            )
        if n < ENOUGH and not self.warned:
            print(f"genlab: a fid of {n} samples is not comparable with one of 50,000: it is biased", file=sys.stderr)
            self.warned = True


class FrechetInfinity:
    """`fd_infinity_<name>` = the value at 1/N = 0 of the line fitted to the Fréchet distances of the first N samples over
    1/N, by least squares (Chong & Forsyth 2020, 1911.07023, section 4: 15 random subsets of 5,000 samples or more).

    The subsets are the nested ones of the blocks' sums, so nothing is random, and none has fewer than two samples for each
    feature, where the bias is no line. Raises GenlabError where there are not three of them.
    """

    needs = ("moments",)

    def __init__(self, name: str, key: str | None = None):
        self.key = key or f"fd_infinity_{name}"
        self.better = {self.key: "lower"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        sums, reference = fake.have("moments", self.key), real.gaussian("moments", self.key)
        fake.gaussian("moments", self.key)  # is there anything, and is it finite?
        counts = [] if sums.narrow is not None else sums.n.cumsum(0).tolist()  # samples of the first 1, ..., K blocks
        parts = [range(k + 1) for k, n in enumerate(counts) if n >= 2 * len(reference.mean)]
        if len(parts) < 3:
            raise GenlabError(
                f"{self.key} needs three subsets of at least {2 * len(reference.mean)} samples each, two for each feature: "
                f"{fake.n} samples are too few"
            )
        inverse = torch.tensor([[1.0, 1 / counts[part[-1]]] for part in parts], dtype=torch.float64)  # (P, 2)
        distances = [frechet_distance(reference, sums.part(part).gaussian) for part in parts]
        fitted = torch.linalg.lstsq(inverse, torch.tensor(distances, dtype=torch.float64)[:, None])
        return {self.key: fitted.solution[0].item()}
