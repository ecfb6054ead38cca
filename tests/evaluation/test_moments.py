import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from genlab.evaluation.features import FeatureBank
from genlab.evaluation.frechet import frechet_distance
from genlab.evaluation.jackknife import kept
from genlab.evaluation.moments import Blocks, Gaussian, fit


def features(n: int, d: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) @ torch.randn(d, d, generator=generator) + 5


def summed(x: torch.Tensor, batch: int, blocks: int = 10) -> Blocks:
    sums = Blocks(x.shape[1], blocks)
    for first in range(0, len(x), batch):
        sums.update(x[first : first + batch], first)
    return sums


def test_moments_are_those_of_numpy_whatever_the_batch() -> None:
    x = features(10_000, 300)  # more than one panel of columns
    for batch in (1000, 777, 4096):
        got = summed(x, batch).gaussian
        assert got.n == 10_000
        torch.testing.assert_close(got.mean, x.double().mean(0), rtol=1e-13, atol=1e-12)
        torch.testing.assert_close(got.covariance, x.double().T.cov(), rtol=1e-11, atol=1e-10)
        assert torch.equal(got.covariance, got.covariance.T)


def test_order_of_batches_does_not_matter() -> None:
    x = features(3000, 6)
    sums = Blocks(6, 10)
    for first in (2000, 0, 1000):
        sums.update(x[first : first + 1000], first)
    torch.testing.assert_close(sums.gaussian.covariance, summed(x, 64).gaussian.covariance, rtol=1e-12, atol=1e-12)


def test_sums_without_a_block_are_those_of_the_other_samples() -> None:
    x = features(1003, 6)
    sums = summed(x, 100)
    for k in (0, 9):
        rest = x[torch.arange(1003) % 10 != k]
        got = sums.without(k).gaussian
        assert got.n == len(rest)
        torch.testing.assert_close(got.covariance, rest.double().T.cov(), rtol=1e-11, atol=1e-11)
    both = x[(torch.arange(1003) % 10 != 3) & (torch.arange(1003) % 10 != 9)]
    torch.testing.assert_close(sums.without(9).without(3).gaussian.mean, both.double().mean(0))
    assert kept(3) == [[0, 1, 2], [1, 2], [0, 2], [0, 1]]
    assert kept(1) == [[0]]


def test_half_precision_features_are_summed_in_float64() -> None:
    x = features(5000, 3).half()
    torch.testing.assert_close(Blocks.of(x).gaussian.mean, x.double().mean(0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n", [30, 64, 500])
def test_both_ways_to_the_moments_agree_and_their_factors_are_roots(n: int) -> None:
    x = features(n, 64)
    direct, streamed = fit(x), Blocks.of(x).gaussian
    torch.testing.assert_close(direct.covariance, streamed.covariance, rtol=1e-9, atol=1e-9)
    for g in (direct, streamed):
        torch.testing.assert_close(g.factor @ g.factor.T, g.covariance, rtol=1e-9, atol=1e-9)
    assert streamed.factor.shape[1] == min(n - 1, 64), "directions without variance are left out"


def test_moments_of_few_samples_without_a_block_are_made_from_their_features() -> None:
    x = features(40, 64)
    bank = FeatureBank(40, Gaussian.of(x), features=x, logits=x)
    assert bank.only(("moments",)).logits is None
    left = bank.only(("moments",)).without(3, 10)
    assert left.n == 36
    torch.testing.assert_close(left.moments.covariance, x[torch.arange(40) % 10 != 3].double().T.cov())
    many = FeatureBank(40, Blocks.of(x, 10), features=x)
    assert many.only(("moments",)).features is None, "sums need no features, and a copy of them is large"


def rank_of(rank: int, world: int, folder: str) -> None:
    """One rank of `world`: its share of the batches, reduced."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet{world}", rank=rank, world_size=world)
    x = torch.load(f"{folder}/x.pt")
    sums = Blocks(x.shape[1], 10)
    for first in range(64 * rank, len(x), 64 * world):
        sums.update(x[first : first + 64], first)
    sums.reduce()
    torch.save((sums.n, sums.total, sums.second), f"{folder}/sums{world}-{rank}.pt")
    dist.destroy_process_group()


def test_one_two_and_three_ranks_give_the_same_distance(tmp_path: Path) -> None:
    x, real = features(1000, 24), fit(features(900, 24, seed=1))
    torch.save(x, tmp_path / "x.pt")
    expected = summed(x, 64)
    for world in (2, 3):
        context = multiprocessing.get_context("fork")  # four imports of torch take longer than all the rest
        ranks = [context.Process(target=rank_of, args=(rank, world, str(tmp_path))) for rank in range(world)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(60)
        assert [rank.exitcode for rank in ranks] == [0] * world
        for rank in range(world):
            sums = Blocks(24, 10)
            sums.n, sums.total, sums.second = torch.load(tmp_path / f"sums{world}-{rank}.pt")
            for ours, theirs in ((sums, expected), (sums.without(4), expected.without(4))):
                value = frechet_distance(real, theirs.gaussian)
                assert frechet_distance(real, ours.gaussian) == pytest.approx(value, rel=1e-9)
