"""The inception score: confident about every sample, undecided about their class on the whole."""

import math

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank


class InceptionScore:
    """`is_<name>` = exp(E_x KL(p(y|x) ‖ E_x p(y|x))) ∈ [1, K], over all samples at once (Salimans et al. 2016,
    1606.03498, section 4)."""

    def __init__(self, name: str):
        self.key = f"is_{name}"
        self.better = {self.key: "higher"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        if fake.logits is None:
            raise GenlabError(f"{self.key} needs an extractor that classifies, and this one gives no logits")
        conditional = fake.logits.double().log_softmax(1)  # (N, K)
        marginal = conditional.logsumexp(0) - math.log(len(conditional))  # (K,)
        divergence = (conditional.exp() * (conditional - marginal)).sum(1)  # (N,) nats
        return {self.key: divergence.mean().exp().item()}
