"""How far a metric would move with other samples of the same model."""

import math

import torch

from genlab.evaluation.features import FeatureBank, Metric


def jackknife(metric: Metric, real: FeatureBank, fake: FeatureBank, blocks: int = 10) -> dict[str, tuple[float, float]]:
    """Each value on all fakes with its standard error √((K−1)/K Σₖ (θₖ − θ̄)²), θₖ being the value without the fakes of
    index ≡ k mod K (Efron & Stein 1981); no sample is drawn twice, which in a bootstrap biases distances upwards.

    nan for a metric whose own `blocks`, the K, is 1 because it is too dear to be evaluated more than once.
    """
    blocks = getattr(metric, "blocks", blocks)
    if blocks == 1:
        return {name: (value, math.nan) for name, value in metric(real, fake).items()}
    block = torch.arange(len(fake.features)) % blocks
    left_out = [metric(real, fake.rows((block != k).nonzero().squeeze(1))) for k in range(blocks)]
    answer = {}
    for name, value in metric(real, fake).items():
        others = torch.tensor([values[name] for values in left_out], dtype=torch.float64)  # (K,)
        answer[name] = value, math.sqrt(blocks - 1) * others.std(correction=0).item()
    return answer
