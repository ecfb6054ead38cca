import pytest
import torch

from genlab.errors import GenlabError
from genlab.evaluation.accuracy_score import AccuracyScore
from genlab.evaluation.features import FeatureBank


def bank(n: int, seed: int, distance: float = 2.0) -> FeatureBank:
    """Two classes of N(±distance/2, 1) along the first of three features."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = torch.randn(n, 3, generator=generator)
    x[:, 0] += distance * (y - 0.5)
    return FeatureBank(n, features=x, y=y)


def test_samples_of_the_data_give_the_accuracy_of_the_best_classifier() -> None:
    expected = 100 * torch.special.ndtr(torch.tensor(1.0)).item()  # Bayes: Φ(distance/2)
    got = AccuracyScore("net")(bank(20_000, 0), bank(5000, 1))["cas_net"]
    assert got == pytest.approx(expected, abs=1)


def test_wrong_labels_and_labels_without_meaning_are_found_out() -> None:
    real, fake = bank(2000, 0, 6), bank(2000, 1, 6)
    swapped = FeatureBank(2000, features=fake.features, y=1 - fake.y)
    orders = [torch.randperm(2000, generator=torch.Generator().manual_seed(seed)) for seed in range(20)]
    random = [FeatureBank(2000, features=fake.features[order], y=fake.y) for order in orders]
    assert AccuracyScore("net")(real, fake)["cas_net"] > 99
    assert AccuracyScore("net")(real, swapped)["cas_net"] < 1
    scores = [AccuracyScore("net")(real, labels)["cas_net"] for labels in random]
    assert abs(sum(scores) / 20 - 50) < 15, "a boundary of no meaning is on either side"
    assert AccuracyScore("net")(real, fake) == AccuracyScore("net")(real, fake)


def test_a_dead_feature_does_no_harm_and_one_class_is_refused() -> None:
    real, fake = bank(200, 0, 6), bank(200, 1, 6)
    dead = [FeatureBank(200, features=torch.cat([b.features, torch.ones(200, 1)], 1), y=b.y) for b in (real, fake)]
    assert AccuracyScore("net")(*dead)["cas_net"] == AccuracyScore("net")(real, fake)["cas_net"]
    with pytest.raises(GenlabError, match="all of class 0"):
        AccuracyScore("net")(real, FeatureBank(200, features=fake.features, y=torch.zeros(200, dtype=torch.int64)))
    with pytest.raises(GenlabError, match="cas_net needs y"):
        AccuracyScore("net")(real, FeatureBank(200, features=fake.features))
