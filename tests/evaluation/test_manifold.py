import pytest
import torch

from genlab.errors import GenlabError
from genlab.evaluation import manifold
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.manifold import Manifold, distances, radii


def score(real, fake, k):
    column = [FeatureBank(torch.tensor(points).float().reshape(-1, 1)) for points in (real, fake)]
    return Manifold(k)(*column)


def test_hand_made_sets_on_a_line():
    # Reals reach 1 to both sides (k=1) but the last, which reaches 7; fakes reach 1, 1, 90.
    got = score(real=[0, 1, 2, 3, 10], fake=[0.5, 1.5, 100], k=1)
    assert got == pytest.approx(
        {
            "precision": 2 / 3,
            "recall": 1.0,  # 100 reaches 98.5, down to 1.5: 2, 3 and 10; the others reach 0 and 1
            "density": (2 + 2) / (1 * 3),  # 0.5 lies in the balls of 0 and 1; 1.5 in those of 1 and 2
            "coverage": 3 / 5,
        }
    )


def test_balls_are_closed():
    got = score(real=[0, 1], fake=[2, 4], k=1)  # 2 is exactly 1 from 1, and 0 exactly 2 from 2
    assert got == pytest.approx({"precision": 0.5, "recall": 1.0, "density": 0.5, "coverage": 0.5})


def test_identical_sets_are_perfect_and_distant_ones_disjoint(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(manifold, "ROWS", 7)
    x = torch.randn(60, 4)
    same = Manifold()(FeatureBank(x), FeatureBank(x))
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    apart = Manifold()(FeatureBank(x), FeatureBank(x + 1000))
    assert set(apart.values()) == {0.0}


def test_density_and_coverage_of_equal_distributions_have_their_expectations():
    real, fake = torch.randn(2, 1500, 3, generator=torch.Generator().manual_seed(0))
    got = Manifold(k=5)(FeatureBank(real), FeatureBank(fake))
    assert got["density"] == pytest.approx(1, abs=0.05)
    assert got["coverage"] == pytest.approx(1 - 2**-5, abs=0.02)  # Naeem et al.: 1 − 1/2ᵏ for n -> ∞


def test_distances_and_radii_are_exact_where_the_matmul_formula_is_not():
    torch.manual_seed(0)
    x = 1000 + torch.randn(100, 16) / 100
    exact = torch.cat(list(distances(x, x)))
    assert exact.diagonal().abs().max() == 0
    reference = (x[:, None].double() - x.double()).norm(dim=2)
    torch.testing.assert_close(exact.double(), reference, rtol=1e-6, atol=0)
    torch.testing.assert_close(radii(x, 3).double(), reference.sort(1).values[:, 3], rtol=1e-6, atol=0)


def test_too_few_samples_are_refused():
    with pytest.raises(GenlabError, match="k=5"):
        score([0, 1], [0, 1], k=5)
