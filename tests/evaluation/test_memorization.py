import pytest
import torch

from genlab.errors import GenlabError
from genlab.evaluation import manifold
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.memorization import Memorization, nearest


def test_nearest_is_exact(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(manifold, "ROWS", 8)
    train = torch.randn(50, 4) + 100
    features = torch.cat([train[:5], torch.randn(20, 4) + 100])
    expected = (features[:, None].double() - train.double()).norm(dim=2).amin(1)
    got = nearest(features, train)
    assert got[:5].tolist() == [0] * 5
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=0)


def test_ratio_is_one_for_fresh_draws_and_small_for_copies():
    generator = torch.Generator().manual_seed(0)
    train, held_out, fresh = torch.randn(3, 1000, 3, generator=generator)
    copies = train + 1e-3 * torch.randn(1000, 3, generator=generator)

    def ratio(fake):
        banks = [FeatureBank(x, None, nearest(x, train)) for x in (held_out, fake)]
        return Memorization()(*banks)["nn_ratio"]

    assert ratio(fresh) == pytest.approx(1, abs=0.1)
    assert ratio(copies) < 0.02
    assert ratio(held_out) == 1


def test_banks_without_distances_are_refused():
    bank = FeatureBank(torch.zeros(3, 2))
    with pytest.raises(GenlabError, match="nn_ratio"):
        Memorization()(bank, bank)
