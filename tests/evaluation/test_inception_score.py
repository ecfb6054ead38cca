import math

import pytest
import torch
from torch import nn

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.inception_score import InceptionScore
from genlab.evaluation.jackknife import jackknife


def bank(logits: torch.Tensor) -> FeatureBank:
    return FeatureBank(len(logits), logits=logits)


def score(logits: torch.Tensor) -> float:
    return InceptionScore("net")(bank(logits), bank(logits))["is_net"]


def test_uniform_logits_score_one_and_confident_balanced_ones_the_number_of_classes() -> None:
    assert score(torch.zeros(50, 10)) == pytest.approx(1, abs=1e-12)
    assert score(1e4 * torch.eye(10).repeat(5, 1)) == pytest.approx(10, rel=1e-12)
    assert score(1e4 * torch.eye(10)[:1].repeat(50, 1)) == pytest.approx(1, abs=1e-12)


def test_is_the_exponential_of_the_mutual_information() -> None:
    torch.manual_seed(0)
    logits = torch.randn(400, 6) * 3
    p = logits.double().softmax(1)
    entropy = torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(1).mean()
    assert score(logits) == pytest.approx(entropy.exp().item(), rel=1e-12)
    assert score(logits[torch.randperm(400)]) == pytest.approx(score(logits), rel=1e-12)


@pytest.mark.parametrize("splits", [1, 10])
def test_agrees_with_torchmetrics_whose_parts_are_those_of_the_same_seed(splits: int) -> None:
    from torchmetrics.image.inception import InceptionScore as Theirs

    torch.manual_seed(0)
    logits = torch.randn(1000, 6).double() * 3
    theirs = Theirs(feature=nn.Identity(), splits=splits)
    theirs.update(logits)
    torch.manual_seed(7)
    mean, std = theirs.compute()
    metric = InceptionScore("net", splits, seed=7)
    got = metric(bank(logits), bank(logits))
    assert got["is_net"] == pytest.approx(mean.item(), rel=1e-10)
    assert set(got) == set(metric.better)
    if splits > 1:  # theirs divides by S − 1
        assert got["is_net_spread"] == pytest.approx(std.item() * math.sqrt(1 - 1 / splits), rel=1e-9)


def test_samples_sorted_by_class_score_as_shuffled_ones_do() -> None:
    logits = 1e4 * torch.eye(10).repeat_interleave(100, 0)  # each part of the sorted ones would score 1
    assert InceptionScore("net", splits=10)(bank(logits), bank(logits))["is_net"] > 9


def test_only_the_score_over_all_samples_has_an_error() -> None:
    torch.manual_seed(0)
    logits = torch.randn(200, 6)
    assert jackknife(InceptionScore("net"), bank(logits), bank(logits))["is_net"].stderr > 0
    parts = jackknife(InceptionScore("net", 10, key="is"), bank(logits), bank(logits))
    assert all(math.isnan(estimate.stderr) for estimate in parts.values())


def test_bad_input_is_refused() -> None:
    logits = torch.zeros(15, 4)
    with pytest.raises(GenlabError, match="is_net needs logits"):
        InceptionScore("net")(FeatureBank(3), FeatureBank(3))
    with pytest.raises(GenlabError, match="at least 20 samples"):
        InceptionScore("net", 10)(bank(logits), bank(logits))
    with pytest.raises(GenlabError, match="nan"):
        score(logits * math.nan)
