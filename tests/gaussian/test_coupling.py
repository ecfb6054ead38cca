"""Minibatch optimal transport against plans found by hand and by trying every permutation."""

import itertools

import pytest
import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.coupling import EntropicOT, ExactOT, Independent, squared_distances


def draw(n: int, dim: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator) + 3, torch.randn(n, dim, generator=generator)


def cost(x: Tensor, eps: Tensor) -> float:
    return (x - eps).double().square().sum().item()


def test_two_points_by_hand() -> None:
    x, eps = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    # crossed 1 + 1, as they lie 9 + 1
    assert torch.equal(ExactOT()(x, eps, None)[1], eps[[1, 0]])
    assert torch.equal(ExactOT()(x, eps[[1, 0]], None)[1], eps[[1, 0]])


def test_three_points_by_hand_where_the_nearest_first_is_not_the_best() -> None:
    x, eps = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[1.1], [4.0], [-5.0]])
    # on a line the best plan is monotone: -5, 1.1, 4
    assert torch.equal(ExactOT()(x, eps, None)[1], torch.tensor([[-5.0], [1.1], [4.0]]))


@pytest.mark.parametrize("seed", range(5))
def test_exact_plan_is_the_best_of_all_permutations(seed: int) -> None:
    x, eps = draw(6, seed=seed)
    best = min(cost(x, eps[list(order)]) for order in itertools.permutations(range(6)))
    assert cost(x, ExactOT()(x, eps, None)[1]) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("shape", [(64, 2), (32, 3, 8, 8), (1, 2)])
def test_every_eps_is_met_once_at_no_more_than_the_independent_cost(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    x, eps = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    y = torch.arange(shape[0])
    same, coupled, labels = ExactOT()(x, eps, y)
    assert same is x
    assert labels is y
    assert coupled.dtype == eps.dtype
    assert torch.equal(coupled.flatten(1).sort(dim=0).values, eps.flatten(1).sort(dim=0).values)
    assert cost(x, coupled) <= cost(x, eps)


def test_ties_and_equal_points_still_make_a_permutation() -> None:
    x, eps = torch.zeros(16, 2), torch.arange(16.0)[:, None].expand(16, 2)
    assert torch.equal(ExactOT()(x, eps, None)[1].sort(dim=0).values, eps)
    assert torch.equal(ExactOT()(x, torch.ones(16, 2), None)[1], torch.ones(16, 2))
    assert torch.equal(EntropicOT(1.0)(x, torch.ones(16, 2), None)[1], torch.ones(16, 2))


def test_independent_changes_nothing() -> None:
    x, eps = draw(4)
    assert Independent()(x, eps, None) == (x, eps, None)


def test_entropic_plan_of_two_points_in_closed_form() -> None:
    """By symmetry P = softmax(-C/reg) where both rows and both columns of C have the same sum."""
    table = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    plan = EntropicOT(0.5).plan(table)
    stay = 1 / (1 + torch.tensor(-2.0, dtype=torch.float64).exp())
    torch.testing.assert_close(plan, torch.stack([torch.stack([stay, 1 - stay]), torch.stack([1 - stay, stay])]))


def test_entropic_plan_goes_from_exact_to_independent() -> None:
    x = torch.arange(8.0)[:, None]
    eps = x[torch.randperm(8, generator=torch.Generator().manual_seed(0))] + 0.1 * draw(8, dim=1)[1]
    table = squared_distances(x, eps)
    exact = ExactOT()(x, eps, None)[1]
    near = EntropicOT(0.1, iterations=10_000)
    torch.testing.assert_close(near.plan(table) @ eps.double(), exact.double(), rtol=0, atol=1e-3)
    torch.manual_seed(0)
    assert torch.equal(near(x, eps, None)[1], exact)
    torch.testing.assert_close(
        EntropicOT(1e6).plan(table), torch.full((8, 8), 1 / 8, dtype=torch.float64), rtol=1e-4, atol=0
    )


def test_entropic_pairs_follow_the_rows_of_the_plan() -> None:
    x, eps = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    torch.manual_seed(0)
    coupling = EntropicOT(0.5)
    met = torch.stack([coupling(x, eps, None)[1][:, 0] for _ in range(2000)]).mean(0)
    crossed = 1 - 1 / (1 + torch.tensor(-2.0).exp())
    torch.testing.assert_close(met, torch.stack([crossed, 1 - crossed]), rtol=0, atol=0.03)


@pytest.mark.parametrize("reg", [1e-6, 1e-3])
def test_too_little_entropy_is_refused(reg: float) -> None:
    x, eps = draw(64)
    with pytest.raises(GenlabError, match="too small"):
        EntropicOT(reg)(x, eps, None)


def test_no_entropy_is_refused() -> None:
    with pytest.raises(GenlabError, match="exact_ot"):
        EntropicOT(0.0)
