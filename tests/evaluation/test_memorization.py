import math

import pytest
import torch

from genlab.errors import GenlabError
from genlab.evaluation import manifold, memorization
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.frechet import FrechetDistance
from genlab.evaluation.jackknife import jackknife
from genlab.evaluation.memorization import Memorization, MemorizationInformed, Training
from genlab.evaluation.moments import Blocks


def bank(x: torch.Tensor, train: torch.Tensor) -> FeatureBank:
    return FeatureBank(len(x), Blocks.of(x, 10), nearest=Training(train)(x))


@pytest.mark.parametrize("rows", [8, 2048])
def test_nearest_is_exact_in_all_three_senses(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(manifold, "ROWS", rows)
    monkeypatch.setattr(memorization, "ROWS", rows)
    train = torch.randn(50, 4) + 3
    features = torch.cat([train[:5], torch.randn(20, 4) + 3, 1.5 * train[7:9], -train[9:10]])
    matrix = (features[:, None].double() - train.double()).norm(dim=2)
    own = (train[:, None].double() - train.double()).norm(dim=2).fill_diagonal_(math.inf).amin(1)
    cosine = torch.nn.functional.cosine_similarity(features[:, None].double(), train[None].double(), dim=2)
    expected = torch.stack([matrix.amin(1), 1 - cosine.abs().amax(1), own[matrix.argmin(1)]], 1)
    known = Training(train)
    got = known(features)
    assert got[:5, 0].tolist() == [0] * 5, "copies are at no distance at all"
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(torch.cat([known(features[:9]), known(features[9:])]), got, rtol=1e-6, atol=1e-12)


def test_ratio_is_one_for_fresh_draws_and_small_for_copies() -> None:
    generator = torch.Generator().manual_seed(0)
    train, held_out, fresh = torch.randn(3, 1000, 3, generator=generator)
    copies = train + 1e-3 * torch.randn(1000, 3, generator=generator)

    def scores(fake: torch.Tensor) -> dict[str, float]:
        return Memorization()(bank(held_out, train), bank(fake, train))

    assert scores(fresh)["nn_ratio"] == pytest.approx(1, abs=0.1)
    assert scores(copies)["nn_ratio"] < 0.02
    assert scores(held_out)["nn_ratio"] == 1
    assert scores(fresh)["auth_pct"] == pytest.approx(50, abs=10)
    assert scores(copies)["auth_pct"] < 1
    assert scores(fresh + 100)["auth_pct"] == 100


def test_memorization_informed_distance_of_hand_made_banks() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(300, 4), torch.randn(200, 4) + 1
    real = FeatureBank(300, Blocks.of(x))
    fd = FrechetDistance("net")(real, FeatureBank(200, Blocks.of(y)))["fd_net"]
    for c, expected in ((0.05, fd / 0.05), (0.0999, fd / 0.0999), (0.1001, fd), (0.5, fd)):
        near = torch.tensor([[1.0, c, 1.0]]).repeat(200, 1)
        got = MemorizationInformed("net")(real, FeatureBank(200, Blocks.of(y), nearest=near))
        assert got == {"mifd_net": pytest.approx(expected, rel=1e-6)}


@pytest.mark.parametrize("noise", [0.1, 3.0])
def test_memorization_informed_distance_agrees_with_torchmetrics(noise: float) -> None:
    from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance as Theirs

    class Features(torch.nn.Module):
        num_features = 12

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).double()

    torch.manual_seed(0)
    real = torch.rand(200, 3, 2, 2)
    fake = (real[:150] + noise * torch.randn(150, 3, 2, 2)).float()
    theirs = Theirs(feature=Features())
    theirs.update(
        fake, real=True
    )  # its minima are over the second set for each of the first, the paper's for each fake
    theirs.update(real, real=False)
    x, y = real.flatten(1), fake.flatten(1)
    got = MemorizationInformed("net", key="mifid")(bank(x, x), bank(y, x))
    assert got["mifid"] == pytest.approx(theirs.compute().item(), rel=1e-5)
    assert jackknife(MemorizationInformed("net"), bank(x, x), bank(y, x))["mifd_net"].stderr > 0


def test_banks_without_distances_are_refused() -> None:
    bank = FeatureBank(3)
    for metric in (Memorization(), MemorizationInformed("net")):
        with pytest.raises(GenlabError, match="needs nearest"):
            metric(bank, bank)
