import math

import pytest
import torch

from genlab.data.planar import Checkerboard, Grid, Ring
from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.jackknife import jackknife
from genlab.evaluation.planar import Modes, Points, Wasserstein


def modes(density, x):
    return Modes(density)(FeatureBank(x), FeatureBank(x))


@pytest.mark.parametrize("density", [Ring(), Grid()])
def test_a_perfect_sampler_has_98_889_percent_high_quality(density):
    n = 100_000
    got = modes(density, density.sample(n, torch.Generator().manual_seed(0)).x)
    perfect = 1 - math.exp(-4.5)
    assert got["high_quality"] == pytest.approx(100 * perfect, abs=300 * math.sqrt(perfect * (1 - perfect) / n))
    assert got["modes"] == len(density.centres)
    assert got["reverse_kl"] < 1e-3
    assert Modes(density).better["high_quality"] == "closer to 98.889"


def test_hand_made_samples():
    ring = Ring(modes=8, radius=1, std=0.01)
    centre = ring.centres.float()
    near, far = centre + torch.tensor([0, 0.0299]), centre + torch.tensor([0, 0.0301])
    assert modes(ring, near)["high_quality"] == 100
    assert modes(ring, near)["reverse_kl"] == pytest.approx(0, abs=1e-12)
    assert modes(ring, far)["modes"] == 0
    assert math.isnan(modes(ring, far)["reverse_kl"])
    collapsed = modes(ring, torch.cat([near[:1].repeat(6, 1), far[1:3]]))
    assert collapsed == pytest.approx({"modes": 1, "high_quality": 75, "reverse_kl": math.log(8)})
    two = modes(ring, torch.cat([near[:1].repeat(3, 1), near[1:2]]))
    assert two["reverse_kl"] == pytest.approx(0.75 * math.log(0.75 * 8) + 0.25 * math.log(0.25 * 8))


def test_modes_need_a_mixture():
    with pytest.raises(GenlabError, match="Checkerboard"):
        Modes(Checkerboard())


def test_w2_of_a_translation_is_its_length():
    torch.manual_seed(0)
    x = torch.randn(300, 2)
    shifted = (x + torch.tensor([3.0, 4.0]))[torch.randperm(300)]
    assert Wasserstein()(FeatureBank(x), FeatureBank(shifted))["w2"] == pytest.approx(5, rel=1e-6)


def test_w2_on_a_line_is_that_of_the_sorted_points_and_the_larger_set_is_cut():
    torch.manual_seed(0)
    line, other = torch.randn(2, 100)
    bank, others = (FeatureBank(torch.stack([z, torch.zeros(100)], 1)) for z in (line, other))
    expected = (line.sort().values - other.sort().values).double().square().mean().sqrt().item()
    assert Wasserstein()(bank, others)["w2"] == pytest.approx(expected, rel=1e-6)
    longer = FeatureBank(torch.cat([others.features, torch.full((50, 2), 1e3)]))
    assert Wasserstein()(bank, longer) == Wasserstein()(bank, others)
    assert Wasserstein(most=20)(bank, longer) == Wasserstein()(bank.rows(torch.arange(20)), longer)


def test_error_of_w2_is_its_spread_over_sample_sets_even_where_rows_are_left_unused():
    generator = torch.Generator().manual_seed(0)
    real = FeatureBank(torch.randn(500, 2, generator=generator))
    fakes = [FeatureBank(torch.randn(400, 2, generator=generator) + 1) for _ in range(30)]
    got = [jackknife(Wasserstein(most=200), real, fake)["w2"] for fake in fakes]
    spread = torch.tensor([value for value, _ in got]).std().item()
    assert sum(error for _, error in got) / len(got) == pytest.approx(spread, rel=0.5)


def test_a_diverged_model_scores_nan():
    x = torch.randn(10, 2)
    assert math.isnan(Wasserstein()(FeatureBank(x), FeatureBank(x * math.inf))["w2"])


def test_points_are_their_own_features():
    torch.manual_seed(0)
    x = torch.randn(4, 2)
    features, logits = Points()(x)
    assert features is x
    assert logits is None
