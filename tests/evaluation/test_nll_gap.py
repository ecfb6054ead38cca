"""The likelihood of points beside the entropy of their density: the gap is KL(p ‖ q), whatever units a model works in."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from genlab.codec import Vectors
from genlab.data.planar import Planar, Ring
from genlab.evaluation.model import _likelihood
from genlab.module import GenerativeModule


class Normal(GenerativeModule):
    """N(0, std²) in model space."""

    likelihood, averaged = "exact", ()

    def __init__(self, std, codec):
        super().__init__(codec, (2,), optimizer=None, averaging=None)
        self.std = std

    def loss(self, x, y):
        raise NotImplementedError

    def sample(self, noise, n, y=None):
        raise NotImplementedError

    def log_prob(self, x, y=None):
        return torch.distributions.Normal(0, self.std).log_prob(x).sum(1)


@dataclass(frozen=True)
class Made:
    """What a protocol records, as far as a likelihood changes it."""

    reference_split: str = "train"
    data_sha256: str = ""
    n_real: int = 0
    n_fake: int = 0
    seeds: int = 3
    reference: str = ""
    extractor: str = "inception"
    extractor_sha256: str = "0"
    layer: str = ""
    resize: str = ""

    def line(self, name, row, references=None, **more):
        return {"metric": name, **row, "references": references, "protocol": self}


def evaluator_of(source, batch):
    identity = {"data_sha256": source.sha256("test")}
    references = SimpleNamespace(source=source, identity=lambda split: identity if split == "test" else {})
    return SimpleNamespace(references=references, batch=batch, seed=0)


@pytest.mark.parametrize(("std", "scale"), [(1.0, 1.0), (0.25, 2.0), (1.5, 2.0)])
def test_the_gap_of_one_gaussian_to_another_is_their_divergence(std, scale):
    data = Ring(modes=1, radius=0, std=0.5)
    source = Planar("normal", data, n_train=1, n_test=40_000)
    evaluator = evaluator_of(source, 10_000)
    module = Normal(std, Vectors(scale))
    nll, gap = _likelihood(evaluator, module, Made(), data.entropy)
    ratio = data.std / (std * scale)
    assert gap["value"] == pytest.approx(ratio**2 - 1 - 2 * math.log(ratio), abs=5 * gap["stderr"] + 0.01)
    assert nll["value"] - nll["references"]["entropy"]["value"] == pytest.approx(gap["value"], abs=1e-9)
    assert (nll["metric"], gap["metric"], gap["better"]) == ("nll", "nll_gap", "lower")
    made = nll["protocol"]  # of the test points, whatever samples are held against
    assert (made.reference_split, made.data_sha256, made.n_real) == ("test", source.sha256("test"), 40_000)
    assert (made.n_fake, made.extractor, made.seeds) == (0, "none", 1)


def test_without_a_known_entropy_there_is_no_gap():
    source = Planar("normal", Ring(), n_train=1, n_test=100)
    evaluator = evaluator_of(source, 100)
    rows = _likelihood(evaluator, Normal(1.0, Vectors()), Made(), None)
    assert [row["metric"] for row in rows] == ["nll"]
