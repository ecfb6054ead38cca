import math
from functools import partial
from pathlib import Path

import hydra
import pytest
import scipy.stats
import torch
from omegaconf import OmegaConf

from genlab.data.planar import Checkerboard, Grid, Pinwheel, Planar, Ring, SCurve, SwissRoll, TwoMoons
from genlab.errors import GenlabError

DENSITIES = {
    "ring": Ring(),
    "grid": Grid(),
    "two_moons": TwoMoons(),
    "checkerboard": Checkerboard(),
    "swiss_roll": SwissRoll(),
    "pinwheel": Pinwheel(),
}
TASKS = {  # at the scale of the published transport benchmark
    "eight_gaussians": Ring(radius=5, std=1),
    "moons": TwoMoons(std=0.1, scale=2, centre=(0, 0.5)),
    "s_curve": SCurve(),
    "moons_to_eight_gaussians": Ring(radius=12, std=1.5),
}
RECIPES = sorted((Path(__file__).parents[2] / "conf/data/planar").glob("*.yaml"))
each = pytest.mark.parametrize("density", DENSITIES.values(), ids=DENSITIES)
each_task = pytest.mark.parametrize("density", TASKS.values(), ids=TASKS)


@pytest.mark.parametrize("density", [*DENSITIES.values(), *TASKS.values()], ids=[*DENSITIES, *TASKS])
def test_negative_log_likelihood_of_its_samples_is_the_entropy(density):
    x = density.sample(20_000, torch.Generator().manual_seed(0)).x
    log_p = density.log_prob(x)
    assert log_p.dtype == torch.float64
    assert abs(-log_p.mean().item() - density.entropy) < 3 * log_p.std().item() / math.sqrt(20_000) + 1e-12


@each_task
def test_samples_of_a_task_follow_the_density(density):
    assert_follows(density, 5 if density.centres is None else 1.7 * density.centres.max().item())


@each
def test_samples_follow_the_density(density):
    assert_follows(density, 2 * math.sqrt(3))


def assert_follows(density, reach):
    """Counts in 16 × 16 cells against the density summed over 24 × 24 points of each, by Pearson's χ²."""
    n, cells, points = 20_000, 16, 24
    x = density.sample(n, torch.Generator().manual_seed(1)).x.double()
    axis = reach * ((torch.arange(cells * points, dtype=torch.float64) + 0.5) / (cells * points) * 2 - 1)
    mass = density.log_prob(torch.cartesian_prod(axis, axis)).exp() * (2 * reach / (cells * points)) ** 2
    assert mass.sum().item() == pytest.approx(1, abs=5e-3)
    expected = n * mass.reshape(cells, points, cells, points).sum((1, 3)).flatten()
    index = ((x / reach + 1) / 2 * cells).floor().long()
    counts = (index[:, 0] * cells + index[:, 1])[((index >= 0) & (index < cells)).all(1)].bincount(minlength=cells**2)
    full = expected > 10
    statistic = ((counts - expected).square() / expected)[full].sum().item()
    assert scipy.stats.chi2.sf(statistic, full.sum().item() - 1) > 1e-3
    assert counts[~full].sum() < 2 * expected[~full].sum() + 20


@each
def test_coordinates_have_about_unit_variance(density):
    x = density.sample(20_000, torch.Generator().manual_seed(0)).x
    assert x.square().mean().sqrt().item() == pytest.approx(1, abs=0.06)
    assert (x.dtype, x.shape) == (torch.float32, (20_000, 2))


@each
def test_labels_name_the_component(density):
    x, y = density.sample(20_000, torch.Generator().manual_seed(0))
    if density.centres is not None:
        assert ((x - density.centres[y]).norm(dim=1) < 6 * density.std).all()
    assert y is None or (y.bincount() > 20_000 / len(y.unique()) * 0.9).all()


@pytest.mark.parametrize(
    ("density", "entropy"),
    [
        (Ring(radius=1, std=0.01), math.log(8 * 2 * math.pi * math.e * 0.01**2)),  # PacGAN's, −4.293
        (Grid(spacing=2, std=0.05), math.log(25 * 2 * math.pi * math.e * 0.05**2)),  # VEEGAN's, 0.065
        (Ring(), math.log(8 * 2 * math.pi * math.e * 2e-4)),  # WGAN-GP's, −3.600
        (Ring(modes=1, radius=0, std=0.3), math.log(2 * math.pi * math.e * 0.3**2)),
        (Checkerboard(extent=4), math.log(32)),
        (Pinwheel(arms=1), math.log(2 * 2 * math.pi * math.e * 0.3 * 0.1)),  # the twist keeps areas
    ],
)
def test_entropies_in_closed_form(density, entropy):
    assert density.entropy == pytest.approx(entropy, abs=1e-9)


def test_entropy_of_overlapping_modes_is_below_that_of_separate_ones():
    ffjord = Ring(radius=4 / math.sqrt(2), std=0.5 / math.sqrt(2))
    assert ffjord.entropy == pytest.approx(2.8316, abs=1e-4)
    assert ffjord.entropy < math.log(8 * 2 * math.pi * math.e * ffjord.std**2)


def test_ring_has_as_many_places_as_modes():
    for modes in (1, 5, 8):
        centres = Ring(modes=modes).centres
        assert len(centres.round(decimals=9).unique(dim=0)) == modes


@pytest.mark.parametrize("std", [0.03, 0.3])
@pytest.mark.parametrize("curve", [TwoMoons, SwissRoll, SCurve, partial(TwoMoons, scale=9.7, centre=(1.2, -1.2))])
def test_quadrature_along_curves_has_converged(curve, std):
    density = curve(std)
    x = density.sample(50, torch.Generator().manual_seed(0)).x.double()
    t = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    arms = density.arms(t)
    square = sum(((x[:, None] - arm) ** 2).sum(2).mul(-1 / (2 * std**2)).exp().mean(1) for arm in arms) / len(arms)
    torch.testing.assert_close(density.log_prob(x), (square / (2 * math.pi * std**2)).log(), rtol=0, atol=1e-5)


def test_moons_and_roll_are_those_of_scikit_learn():
    from sklearn.datasets import make_moons, make_s_curve, make_swiss_roll

    moons = torch.from_numpy(make_moons(200, noise=None, shuffle=False)[0])
    ours = TwoMoons().arms(torch.linspace(0, 1, 100, dtype=torch.float64))
    torch.testing.assert_close(ours.flatten(0, 1), (moons - torch.tensor([0.5, 0.25])) * math.sqrt(2))
    # OT-CFM's own scaling of the same moons: times 2, minus (1, 0)
    ours = TASKS["moons"].arms(torch.linspace(0, 1, 100, dtype=torch.float64))
    torch.testing.assert_close(ours.flatten(0, 1), 2 * moons - torch.tensor([1, 0]))
    points, angle = make_s_curve(100, noise=0.0, random_state=0)
    ours = SCurve().arms(torch.from_numpy(abs(angle) / (1.5 * math.pi)))
    half = torch.from_numpy(angle < 0).long()
    torch.testing.assert_close(ours[half, torch.arange(100)], torch.from_numpy(1.5 * points[:, [0, 2]]))
    points, angle = make_swiss_roll(100, noise=0.0, random_state=0)
    ours = SwissRoll().arms(torch.from_numpy((angle / (1.5 * math.pi) - 1) / 2))
    torch.testing.assert_close(ours[0], torch.from_numpy(points[:, [0, 2]] / 7))


def test_splits_depend_on_the_seed_alone():
    train, test = (Planar("ring", Ring(), 100, 50).split(name) for name in ("train", "test"))
    assert (len(train.x), len(test.x)) == (100, 50)
    assert torch.equal(train.x, Planar("ring", Ring(), 100, 7).split("train").x)
    assert not torch.equal(train.x, Planar("ring", Ring(), 100, 100).split("test").x)
    assert not torch.equal(train.x, Planar("ring", Ring(), 100, 50, seed=1).split("train").x)
    with pytest.raises(GenlabError, match="ring"):
        Planar("ring", Ring()).split("validation")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_build_the_default_densities(path):
    recipe = OmegaConf.create({"data": OmegaConf.load(path)}).data
    source = hydra.utils.instantiate(recipe.source)
    assert source.name == path.stem == recipe.name
    assert path.read_text().startswith("# ")
    train = source.split("train")
    assert train.x.shape[1:] == tuple(recipe.shape)
    assert recipe.classes == (None if train.y is None else train.y.max().item() + 1)
    ours, theirs = (density.log_prob(train.x[:100]) for density in ((DENSITIES | TASKS)[path.stem], source.density))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_every_density_has_a_recipe():
    assert {path.stem for path in RECIPES} == set(DENSITIES | TASKS)
