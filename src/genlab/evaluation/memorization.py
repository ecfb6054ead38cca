"""A screen for copies of the training set."""

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.manifold import distances


def nearest(features: Tensor, train_features: Tensor) -> Tensor:
    """The distance minⱼ ‖fᵢ − tⱼ‖ of each sample to the training set: (N, D), (M, D) -> (N,)."""
    return torch.cat([block.amin(1) for block in distances(features, train_features)])


class Memorization:
    """`nn_ratio` = median d(fake, train) / median d(held-out, train): 1 for fresh draws from the data, below 1 for
    copies; these are the distances of the data-copying test (Meehan et al. 2020, 2004.05675), and 1 proves nothing."""

    def __init__(self):
        self.better = {"nn_ratio": "closer to 1"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        if real.nearest is None or fake.nearest is None:
            raise GenlabError("nn_ratio needs each sample's distance to the training set, and these banks lack it")
        return {"nn_ratio": (fake.nearest.double().quantile(0.5) / real.nearest.double().quantile(0.5)).item()}
