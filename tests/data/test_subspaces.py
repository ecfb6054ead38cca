"""VEEGAN's data sets: the law of the 1,200-dimensional one, and what the recipes of all three build."""

import math
from pathlib import Path

import hydra
import pytest
import scipy.stats
import torch
from omegaconf import OmegaConf

from genlab.data.planar import Grid, Ring
from genlab.data.subspaces import Subspaces
from genlab.folders import conf_dir

OFFSETS = [-1.0, -0.5, 0.0, 0.5, -2.0, -2.5, 10.0, 0.25, -13.0, -5.5]
VEEGAN = Subspaces(OFFSETS)
RECIPES = sorted((conf_dir() / "data/veegan").glob("*.yaml"))


def test_noise_is_standard_normal_in_the_first_700_dimensions_and_absent_in_the_others():
    x, y = VEEGAN.sample(500, torch.Generator().manual_seed(0))
    assert (x.dtype, x.shape) == (torch.float32, (500, 1200))
    offset = torch.tensor(OFFSETS)[y][:, None]
    assert torch.equal(x[:, 700:], offset.expand(-1, 500))
    noise = (x[:, :700] - offset).double()
    assert scipy.stats.kstest(noise.flatten()[::7].numpy(), "norm").pvalue > 1e-3
    assert scipy.stats.kstest(noise.square().sum(1).numpy(), scipy.stats.chi2(700).cdf).pvalue > 1e-3
    assert (noise.var(0) - 1).abs().max() < 0.4  # six deviations of 700 estimates
    between = (noise.T @ noise / 500 - torch.eye(700)).square().mean().item()
    assert between == pytest.approx(1 / 500, rel=0.02)  # of a Wishart matrix: independent dimensions


def test_modes_are_equally_likely():
    y = Subspaces(OFFSETS, dimensions=2, noisy=1).sample(20_000, torch.Generator().manual_seed(0)).y
    assert scipy.stats.chisquare(y.bincount(minlength=10).numpy()).pvalue > 1e-3


def test_centres_are_the_means():
    x, y = VEEGAN.sample(2000, torch.Generator().manual_seed(1))
    for k in range(10):
        assert (x[y == k].mean(0) - VEEGAN.centres[k]).square().mean().item() < 2 * 700 / 1200 / (y == k).sum().item()
    assert (torch.cdist(x.double(), VEEGAN.centres).argmin(1) == y).all()  # no sample is nearer to another mode


def test_log_density_is_that_of_scipy_on_the_subspaces_and_nothing_off_them():
    density = Subspaces([-1.0, 3.0], dimensions=5, noisy=3, std=0.5)
    x, y = density.sample(50, torch.Generator().manual_seed(0))
    for row, k, log_p in zip(x, y, density.log_prob(x), strict=True):
        normal = scipy.stats.multivariate_normal([[-1.0] * 3, [3.0] * 3][k], 0.25)
        assert log_p.item() == pytest.approx(math.log(0.5) + normal.logpdf(row[:3].numpy()), abs=1e-5)
    beside, bent = x.clone(), x.clone()
    beside[:, 3:] += 0.1
    bent[:, 3] += 0.1
    assert density.log_prob(beside).isneginf().all()
    assert density.log_prob(bent).isneginf().all()


def test_entropy_is_the_mean_of_the_negative_log_density():
    log_p = VEEGAN.log_prob(VEEGAN.sample(2000, torch.Generator().manual_seed(0)).x)
    assert -log_p.mean().item() == pytest.approx(VEEGAN.entropy, abs=4 * (350 / 2000) ** 0.5)


PUBLISHED = {"veegan_ring": Ring(radius=1, std=0.01), "veegan_grid": Grid(spacing=2, std=0.05), "veegan_1200d": VEEGAN}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_build_the_published_densities_at_unit_variance(path: Path):
    recipe = OmegaConf.create({"data": OmegaConf.load(path)}).data
    source, codec = hydra.utils.instantiate(recipe.source), hydra.utils.instantiate(recipe.codec)
    ours = PUBLISHED[recipe.name]
    x, y = source.density.sample(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(source.density.log_prob(x[:50]), ours.log_prob(x[:50]))
    assert x.shape[1:] == tuple(recipe.shape)
    assert y.max().item() + 1 == recipe.classes == len(ours.centres)
    assert codec.encode(x).square().mean().sqrt().item() == pytest.approx(1, abs=0.03)
