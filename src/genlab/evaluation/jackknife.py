"""How far a metric would move with other samples of the same model."""

import math
from typing import NamedTuple

import torch

from genlab.evaluation.features import FeatureBank, Metric

BLOCKS = 10


def kept(blocks: int) -> list[list[int]]:
    """Which blocks are there: all of them, and then, of several, all but the first, all but the second, ..."""
    return [[k for k in range(blocks) if k != out] for out in range(-1, blocks if blocks > 1 else 0)]


class Estimate(NamedTuple):
    """A value on all samples, its standard error, and the value with its bias of order 1/N taken off."""

    value: float
    stderr: float
    corrected: float


def jackknife(metric: Metric, real: FeatureBank, fake: FeatureBank, blocks: int = BLOCKS) -> dict[str, Estimate]:
    """Each value θ with its standard error √((K−1)/K Σₖ (θₖ − θ̄)²) and K θ − (K−1) θ̄, θₖ being the value without the
    fakes of index ≡ k mod K (Efron & Stein 1981); no sample is drawn twice, which in a bootstrap biases distances upwards.

    A metric whose replicates have work in common has a method `replicates(real, fake, K) -> [θ, θ₁, …, θ_K]`. nan for a
    metric whose own `blocks`, the K, is 1 because it is too dear to be evaluated more than once.
    """
    blocks, fake = getattr(metric, "blocks", blocks), fake.only(metric.needs)
    if blocks == 1:
        return {name: Estimate(value, math.nan, math.nan) for name, value in metric(real, fake).items()}
    if hasattr(metric, "replicates"):
        whole, *left_out = metric.replicates(real, fake, blocks)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        whole, *left_out = metric(real, fake), *(metric(real, fake.without(k, blocks)) for k in range(blocks))
    answer = {}
    for name, value in whole.items():
        others = torch.tensor([values[name] for values in left_out], dtype=torch.float64)  # (K,)
        error = math.sqrt(blocks - 1) * others.std(correction=0).item()
        answer[name] = Estimate(value, error, blocks * value - (blocks - 1) * others.mean().item())
    return answer
