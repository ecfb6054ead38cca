import pytest
import torch

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.inception_score import InceptionScore


def score(logits):
    bank = FeatureBank(torch.zeros(len(logits), 2), logits)
    return InceptionScore("net")(bank, bank)["is_net"]


def test_uniform_logits_score_one_and_confident_balanced_ones_the_number_of_classes():
    assert score(torch.zeros(50, 10)) == pytest.approx(1, abs=1e-12)
    assert score(1e4 * torch.eye(10).repeat(5, 1)) == pytest.approx(10, rel=1e-12)
    assert score(1e4 * torch.eye(10)[:1].repeat(50, 1)) == pytest.approx(1, abs=1e-12)


def test_is_the_exponential_of_the_mutual_information():
    torch.manual_seed(0)
    logits = torch.randn(400, 6) * 3
    p = logits.double().softmax(1)
    entropy = torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(1).mean()
    assert score(logits) == pytest.approx(entropy.exp().item(), rel=1e-12)
    assert score(logits[torch.randperm(400)]) == pytest.approx(score(logits), rel=1e-12)


def test_an_extractor_without_logits_is_refused():
    bank = FeatureBank(torch.zeros(3, 2))
    with pytest.raises(GenlabError, match="logits"):
        InceptionScore("net")(bank, bank)
