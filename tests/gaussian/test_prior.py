"""Where sampling begins: rows of data instead of Gaussian noise."""

import pytest
import torch

from genlab.codec import Vectors
from genlab.config import preflight
from genlab.data.planar import Planar, TwoMoons
from genlab.errors import GenlabError
from genlab.gaussian.prior import Empirical, Normal
from genlab.instantiation import build
from genlab.noise import NoiseStream

TASK = ["experiment=planar/cfm", "data=planar/moons_to_eight_gaussians"]


@pytest.fixture
def moons() -> Empirical:
    return Empirical(Planar("moons", TwoMoons(), n_train=50, n_test=30), Vectors(scale=2.0))


def test_samples_begin_at_the_test_rows_in_order_whatever_the_batch_and_the_seed(moons: Empirical) -> None:
    rows = Planar("moons", TwoMoons(), n_train=50, n_test=30).split("test").x / 2
    assert torch.equal(moons.sample(NoiseStream(0), (30, 2)), rows)
    assert torch.equal(moons.sample(NoiseStream(7, start=10), (5, 2)), rows[10:15])
    with pytest.raises(GenlabError, match="30 test rows"):
        moons.sample(NoiseStream(0, start=29), (2, 2))


def test_training_draws_train_rows_by_torchs_numbers(moons: Empirical) -> None:
    rows = Planar("moons", TwoMoons(), n_train=50, n_test=30).split("train").x / 2
    torch.manual_seed(0)
    eps = moons.like(torch.zeros(5000, 2))
    nearest = torch.cdist(eps, rows).min(1)
    assert nearest.values.max() < 1e-3
    counts = nearest.indices.bincount(minlength=50)
    assert ((counts - 100).square() / 100).sum() < 90  # χ² with 49 degrees of freedom, p = 3e-4
    torch.manual_seed(0)
    assert torch.equal(moons.like(torch.zeros(5000, 2)), eps)


def test_rows_of_another_shape_are_refused(moons: Empirical) -> None:
    with pytest.raises(GenlabError, match="rows"):
        moons.like(torch.zeros(4, 3))


def test_normal_is_the_streams_own_noise() -> None:
    assert torch.equal(Normal().sample(NoiseStream(3), (4, 2)), NoiseStream(3).normal((4, 2)))


def test_a_task_between_data_sets_begins_at_its_source() -> None:
    module = build(preflight("train", TASK).model)
    way = module.transport(NoiseStream(0), 100)
    source = build(preflight("train", TASK).data.prior.source)
    torch.testing.assert_close(way.z, source.split("test").x[:100])
    assert source.split("train").x.std().item() == pytest.approx(7, abs=0.1)
    assert source.split("train").x.mean().item() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    "other",
    [
        ["sampler=ancestral"],
        ["likelihood=exact"],
        ["model=ddpm", "network=noisy_mlp", "sampler=ddim"],
    ],
)
def test_data_as_noise_needs_a_straight_deterministic_path_and_no_likelihood(other: list[str]) -> None:
    with pytest.raises(GenlabError, match="not N\\(0, 1\\)"):
        build(preflight("train", [*TASK, *other]).model)


def test_what_another_model_learns_from_is_no_test_row(moons: Empirical) -> None:
    """Row i is a function of (seed, i), of any number of rows, and a train row."""
    drawn = moons.draw(NoiseStream(0), (200, 2))
    assert torch.equal(torch.cat([moons.draw(NoiseStream(0, at), (100, 2)) for at in (0, 100)]), drawn)
    assert (drawn[:, None] == moons.train).all(2).any(1).all()
    assert not (drawn[:, None] == moons.test).all(2).any()
    assert len(drawn.unique(dim=0)) > 40, "of 50, any by chance"
    assert torch.equal(Normal().draw(NoiseStream(3), (5, 2)), Normal().sample(NoiseStream(3), (5, 2)))
