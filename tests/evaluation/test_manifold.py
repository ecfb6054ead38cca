import pytest
import torch

from genlab.errors import GenlabError
from genlab.evaluation import manifold
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.jackknife import jackknife
from genlab.evaluation.manifold import Manifold, Points, neighbours, squared_distances


def bank(x: torch.Tensor) -> FeatureBank:
    return FeatureBank(len(x), features=x)


def score(real: list[float], fake: list[float], k: int) -> dict[str, float]:
    column = [bank(torch.tensor(points).float().reshape(-1, 1)) for points in (real, fake)]
    return Manifold(k, k)(*column)


def by_hand(x: torch.Tensor, y: torch.Tensor, k: int, density_k: int) -> dict[str, float]:
    """The definitions, from the full matrices of differences."""

    def matrix(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a[:, None].double() - b.double()).norm(dim=2)

    def radius(a: torch.Tensor, k: int) -> torch.Tensor:
        return matrix(a, a).sort(1).values[:, k]

    across = matrix(y, x)
    dense = across <= radius(x, density_k) + 1e-9
    return {
        "precision": (across <= radius(x, k) + 1e-9).any(1).double().mean().item(),
        "recall": (across <= radius(y, k)[:, None] + 1e-9).any(0).double().mean().item(),
        "density": dense.double().sum(1).mean().item() / density_k,
        "coverage": dense.any(0).double().mean().item(),
    }


def test_hand_made_sets_on_a_line() -> None:
    # Reals reach 1 to both sides (k=1) but the last, which reaches 7; fakes reach 1, 1, 98.5.
    got = score(real=[0, 1, 2, 3, 10], fake=[0.5, 1.5, 100], k=1)
    assert got == pytest.approx(
        {
            "precision": 2 / 3,
            "recall": 1.0,  # 100 reaches 98.5, down to 1.5: 2, 3 and 10; the others reach 0 and 1
            "density": (2 + 2) / (1 * 3),  # 0.5 lies in the balls of 0 and 1; 1.5 in those of 1 and 2
            "coverage": 3 / 5,
        }
    )


def test_balls_are_closed() -> None:
    got = score(real=[0, 1], fake=[2, 4], k=1)  # 2 is exactly 1 from 1, and 0 exactly 2 from 2
    assert got == pytest.approx({"precision": 0.5, "recall": 1.0, "density": 0.5, "coverage": 0.5})


@pytest.mark.parametrize("rows", [7, 2048])
def test_equals_the_definitions_with_the_k_of_each_paper(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifold, "ROWS", rows)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(61, 3, generator=generator), 1.3 * torch.randn(53, 3, generator=generator) + 0.5
    y[:5] = x[:5]
    whole, *left = Manifold().replicates(bank(x), bank(y), 10)
    assert whole == pytest.approx(by_hand(x, y, 3, 5), abs=1e-12)
    assert Manifold()(bank(x), bank(y)) == pytest.approx(whole, abs=1e-12)
    for k, values in enumerate(left):
        assert values == pytest.approx(by_hand(x, y[torch.arange(53) % 10 != k], 3, 5), abs=1e-12)
    assert Manifold(5, 3)(bank(x), bank(y)) == pytest.approx(by_hand(x, y, 5, 3), abs=1e-12)


def test_reals_are_looked_at_once_and_other_reals_again() -> None:
    torch.manual_seed(0)
    x, other, y = torch.randn(3, 60, 4)
    metric, reals = Manifold(), bank(x)
    first = metric(reals, bank(y))
    assert metric(bank(other), bank(y)) == Manifold()(bank(other), bank(y)) != first
    assert metric(reals, bank(y)) == first


def test_identical_sets_are_perfect_and_distant_ones_disjoint(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(manifold, "ROWS", 7)
    x = torch.randn(60, 4)
    same = Manifold()(bank(x), bank(x))
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    apart = Manifold()(bank(x), bank(x + 1000))
    assert set(apart.values()) == {0.0}


def test_copies_lie_on_the_edges_of_balls_that_end_in_them() -> None:
    """All is far from the origin and in 512 dimensions, where products round; each fake is a real's nearest neighbour."""
    torch.manual_seed(0)
    x = torch.randn(300, 512) + 50
    got = Manifold(1, 1)(bank(x), bank(x[torch.randperm(300)]))
    assert got["precision"] == got["recall"] == got["coverage"] == 1
    assert got["density"] == 2, "each ball holds its centre and the neighbour on its edge"


def test_density_and_coverage_of_equal_distributions_have_their_expectations() -> None:
    real, fake = torch.randn(2, 1500, 3, generator=torch.Generator().manual_seed(0))
    got = jackknife(Manifold(), bank(real), bank(fake))
    assert got["density"].value == pytest.approx(1, abs=0.05)
    assert got["coverage"].value == pytest.approx(1 - 2**-5, abs=0.02)  # Naeem et al.: 1 − 1/2ᵏ for n -> ∞
    assert all(0 < estimate.stderr < 0.05 for estimate in got.values())


def test_distances_are_exact_where_the_matmul_formula_in_float32_is_not() -> None:
    torch.manual_seed(0)
    x = 1000 + torch.randn(100, 16) / 100
    reference = (x[:, None].double() - x.double()).norm(dim=2)
    points = Points(x, x.mean(0, dtype=torch.float64))
    rows = points[torch.arange(100)]
    torch.testing.assert_close(squared_distances(rows, rows).clamp(min=0).sqrt(), reference, rtol=1e-9, atol=1e-8)
    near = neighbours(points, 3)[:, 0].sqrt()
    torch.testing.assert_close(near, reference.sort(1).values[:, 1:4], rtol=1e-9, atol=0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(GenlabError, match="k=5"):
        score([0, 1], [0, 1], k=5)
    x = torch.randn(40, 2)
    with pytest.raises(GenlabError, match="3 fake ones"):
        jackknife(Manifold(), bank(x), bank(x[:4]))
    with pytest.raises(GenlabError, match="nan or inf"):
        Manifold()(bank(x), bank(x / 0))
