"""The inception score: confident about every sample, undecided about their class on the whole."""

import math

import torch
from torch import Tensor

from genlab.evaluation.features import FeatureBank
from genlab.evaluation.jackknife import BLOCKS


def inception_score(logits: Tensor) -> Tensor:
    """exp(E_x KL(p(y|x) ‖ E_x p(y|x))) ∈ [1, K] of logits (N, K)."""
    conditional = logits.double().log_softmax(1)  # (N, K)
    marginal = conditional.logsumexp(0) - math.log(len(conditional))  # (K,)
    divergence = (conditional.exp() * (conditional - marginal)).sum(1)  # (N,) nats
    return divergence.mean().exp()


class InceptionScore:
    """`is_<name>`: the inception score over all samples at once (Salimans et al. 2016, 1606.03498, section 4), or, as the
    papers have it with splits=10, its mean over equal parts of the samples, and `.._spread`, the standard deviation over
    these.

    Samples are brought into the order of `seed` first, for parts of samples that are sorted by class score little. Parts are
    biased downwards by O(K S/N); their mean has no jackknife error, which would measure the choice of the parts. `key` is
    another name. Raises GenlabError without logits, and for fewer than two samples for each part.
    """

    needs = ("logits",)

    def __init__(self, name: str, splits: int = 1, seed: int = 0, key: str | None = None):
        self.splits, self.seed = splits, seed
        self.blocks = BLOCKS if splits == 1 else 1
        self.key = key or f"is_{name}"
        self.better = {self.key: "higher"} | ({f"{self.key}_spread": None} if splits > 1 else {})

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        logits = fake.finite("logits", self.key, 2 * self.splits)  # (N, K)
        if self.splits == 1:
            return {self.key: inception_score(logits).item()}
        order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(self.seed)).to(logits.device)
        scores = torch.stack([inception_score(part) for part in logits[order].tensor_split(self.splits)])  # (S,)
        return {self.key: scores.mean().item(), f"{self.key}_spread": scores.std(correction=0).item()}
