"""Philox against its published vectors; normal and uniform numbers that belong to their rows."""

import itertools
import math

import pytest
import scipy.stats
import torch

from genlab.noise import NoiseStream, key, philox

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "cipher", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers_of_random123(counter, cipher, words):
    assert tuple(w.item() for w in philox([torch.tensor([c]) for c in counter], cipher)) == words


@pytest.mark.parametrize(("draw", "cdf"), [("normal", "norm"), ("uniform", "uniform")])
def test_distribution(draw, cdf):
    """Kolmogorov and Smirnov within rows, along rows and over draws; a fixed seed, so the p-values are fixed too."""
    stream = NoiseStream(0)
    x = torch.stack([getattr(stream, draw)((200, 10, 10)).flatten(1) for _ in range(5)])  # (draw, row, number)
    for sample in (x[0].flatten(), x[:, 3].flatten(), x[0, :, 7], x[..., 0].flatten(), x[..., 99].flatten()):
        assert scipy.stats.kstest(sample.numpy(), cdf).pvalue > 1e-3


def test_moments_of_normal():
    x = NoiseStream(1).normal((1000, 1000)).double()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - moment) < 4 * math.sqrt(variance / 1e6)


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_draws_rows_and_seeds_are_uncorrelated(draw):
    def rows(seed, draws=2):
        stream = NoiseStream(seed)
        return [row for _ in range(draws) for row in getattr(stream, draw)((3, 10_000))]

    x = torch.stack(list(itertools.chain(rows(0), rows(1), rows(-1), rows(2**32), rows(2**63 - 1))))
    off_diagonal = x.corrcoef() - torch.eye(len(x))
    assert off_diagonal.abs().max() < 5 / math.sqrt(10_000)


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_pairs_of_box_and_muller_are_independent(draw):
    """Also in size: cos and sin of one angle share a radius."""
    x = getattr(NoiseStream(0), draw)((10_000, 8))
    for features in (x, (x - x.mean()) ** 2):
        assert (features.T.corrcoef() - torch.eye(8)).abs().max() < 5 / math.sqrt(10_000)


@pytest.mark.parametrize("draw", ["normal", "uniform"])
@pytest.mark.parametrize("start", [0, 5, 2**32 - 2, 2**40])
def test_a_row_depends_on_its_index_alone(draw, start):
    whole, first, rest = NoiseStream(7, start), NoiseStream(7, start), NoiseStream(7, start + 3)
    for shape in ((5, 3), (5, 1, 2, 7)):
        parts = [getattr(first, draw)((3, *shape[1:])), getattr(rest, draw)((2, *shape[1:]))]
        assert torch.equal(getattr(whole, draw)(shape), torch.cat(parts))


def test_rows_far_apart_differ():
    """All 64 bits of the index count."""
    rows = torch.cat([NoiseStream(0, start).normal((1, 8)) for start in (0, 1, 2**32, 2**32 + 1, 2**33)])
    assert len(rows.unique(dim=0)) == 5


def test_every_seed_is_its_own_stream():
    """Negative ones, and those that share their lower 32 bits."""
    seeds = (0, 1, -1, -(2**62), 2**31, 2**32, 2**32 + 1, 2**63 - 1)
    draws, again = (torch.cat([NoiseStream(seed).normal((1, 8)) for seed in seeds]) for _ in range(2))
    assert torch.equal(draws, again)
    assert len(draws.unique(dim=0)) == len(seeds)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 5), (2, 3, 3), (0, 4), (2, 1, 8, 8)], ids=str)
@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_shapes(draw, shape):
    x = getattr(NoiseStream(0), draw)(shape)
    assert (x.shape, x.dtype) == (shape, torch.float32)
    assert len(x.unique()) == x.numel()


def test_extreme_words_stay_inside_the_open_interval(monkeypatch):
    for word in (0, ONES):
        monkeypatch.setattr(NoiseStream, "_words", lambda self, shape, word=word: torch.full((1, 4, 1), word))
        u, z = NoiseStream(0).uniform((1, 4)), NoiseStream(0).normal((1, 4))
        assert ((u > 0) & (u < 1)).all()
        assert z.isfinite().all()
        assert z.abs().max() < 7  # √(-2 ln 2^-32) = 6.66


def test_key_is_the_same_everywhere():
    """The numbers that training and loaders are seeded by must not move between versions or processes."""
    assert key(0, "epoch", 0) == 1887065545650066536
    assert 0 <= key("x") < 2**63
    assert len({key(0, 1), key(1, 0), key(0, 1, 0), key("0", 1), key(0, "1")}) == 5
