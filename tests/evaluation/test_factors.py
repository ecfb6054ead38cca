"""Agreement of samples with what they were asked to be, where the answer is known by construction."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.data.captions import tokens
from genlab.data.scenes import draw, render
from genlab.errors import GenlabError
from genlab.evaluation.factors import FactorAgreement
from genlab.noise import NoiseStream

STREAM = NoiseStream(5)
SCENES = draw(STREAM, 200, unseen=False)
X = render(SCENES, 32, STREAM)
NOISE = torch.randint(0, 256, (200, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def scored(x: Tensor, y: Tensor | None, most: int = 2000) -> dict[str, float]:
    bank: Any = SimpleNamespace(x=x, y=y)
    return FactorAgreement(most)(bank, bank)


@pytest.mark.parametrize(
    "y", [SCENES.column("shape"), SCENES.factors, tokens(SCENES)], ids=["label", "factors", "tokens"]
)
def test_the_data_agree_with_themselves(y: Tensor) -> None:
    assert scored(X, y) == {"agreement": 1.0, "unreadable": 0.0, "unseen_rate": 0.0}


@pytest.mark.parametrize(
    "y", [SCENES.column("shape"), SCENES.factors, tokens(SCENES)], ids=["label", "factors", "tokens"]
)
def test_agreement_is_the_share_that_was_asked_for(y: Tensor) -> None:
    """Of three quarters the right image, of one quarter that of the next scene, which seldom agrees by chance."""
    mixed = torch.cat([X[:150], X[150:].roll(1, 0)])
    chance = (y[150:] == y[150:].roll(1, 0)).reshape(50, -1).all(1).sum().item()
    assert scored(mixed, y)["agreement"] == (150 + chance) / 200


@pytest.mark.parametrize("column", range(6))
def test_every_discrete_factor_that_is_asked_for_counts(column: int) -> None:
    y = SCENES.factors.clone()
    y[:20, column] += 1
    assert scored(X, y)["agreement"] == 0.9
    y[:, 6:] = 0  # and no continuous one
    assert scored(X, y)["agreement"] == 0.9


def test_what_cannot_be_read_does_not_agree() -> None:
    answer = scored(torch.cat([X[:50], NOISE[:150]]), SCENES.column("shape"))
    assert answer == {"agreement": 0.25, "unreadable": 0.75, "unseen_rate": 0.0}


def test_the_unseen_rate_is_that_of_the_readable_samples() -> None:
    stream = NoiseStream(6)
    unseen = render(draw(stream, 30, unseen=True), 32, stream)
    assert scored(torch.cat([unseen, X[:60], NOISE[:10]]), None)["unseen_rate"] == pytest.approx(1 / 3)


def test_without_labels_there_is_no_agreement() -> None:
    assert scored(X, None).keys() == {"unreadable", "unseen_rate"}
    assert math.isnan(scored(NOISE[:8], None)["unseen_rate"])


def test_only_so_many_samples_are_read() -> None:
    assert scored(torch.cat([X[:50], NOISE]), None, most=50)["unreadable"] == 0


def test_a_bank_without_samples_is_refused() -> None:
    bank: Any = SimpleNamespace(x=None, y=None)
    with pytest.raises(GenlabError, match="needs the samples themselves"):
        FactorAgreement()(bank, bank)
