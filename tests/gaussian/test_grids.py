"""Times against the published timestep lists."""

import numpy as np
import pytest
import torch

from genlab.errors import GenlabError
from genlab.gaussian.grids import KarrasRho, Leading, Linspace, LogSNR, Quadratic, Shifted, Trailing
from genlab.gaussian.path import VE, VP, Cosine, Karras, Linear, SubVP
from genlab.gaussian.tables import Levels, Table, linear_betas

TABLE = Table(linear_betas(1000, 1e-4, 0.02))
LEVELS = Levels(0.01, 1.0, 10)


def test_trailing_10_of_1000():
    assert Trailing()(TABLE, 10).tolist() == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0]


def test_linspace_10_of_1000():
    """0-based 999, 888, ..., 0 and then data."""
    times = Linspace(1.0)(TABLE, 10).tolist()
    assert [t - 1 for t in times[:-1]] == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    assert times[-1] == 0


def test_leading_10_and_25_of_1000():
    """0-based 900, 800, ..., 0, and improved DDPM's "ddim25": 960, 920, ..., 0; where S does not divide T still S of them."""
    assert [t - 1 for t in Leading()(TABLE, 10).tolist()] == [*range(900, -1, -100), -1]
    assert [t - 1 for t in Leading()(TABLE, 25).tolist()] == [*range(960, -1, -40), -1]
    assert [t - 1 for t in Leading()(TABLE, 7).tolist()] == [*range(6 * 142, -1, -142), -1]


@pytest.mark.parametrize("steps", [2, 7, 10, 20, 25, 30, 50, 100, 150, 250, 333, 500, 1000])
def test_leading_takes_the_usual_numbers_of_steps(steps):
    assert len(Leading()(TABLE, steps)) == steps + 1


def test_quadratic_10_of_1000():
    times = Quadratic(0.8)(TABLE, 10).tolist()
    assert [t - 1 for t in times] == [800, 632, 483, 355, 246, 158, 88, 39, 9, 0, -1]


def test_quadratic_times_that_are_there_twice_are_taken_once():
    """Of the published code's 50 and 100: 0, 0, 1, 2, 5, ... and 0, 0, 0, 0, 1, 2, 2, ..., here from 1 on."""
    for steps, distinct in ((50, 49), (100, 96)):
        times = Quadratic(0.8)(TABLE, steps)
        theirs = {1 + int(v) for v in np.linspace(0, (0.8 * 1000) ** 0.5, steps) ** 2}
        assert set(times.tolist()) == {0, *theirs}
        assert len(times) == distinct + 1


def test_250_of_1000_of_improved_ddpm():
    times = [t - 1 for t in reversed(Linspace(1.0)(TABLE, 250).tolist()[:-1])]
    assert (times[:4], times[-2:]) == ([0, 4, 8, 12], [995, 999])
    assert times == [round(i * 999 / 249) for i in range(250)]
    assert [t - 1 for t in Linspace(1.0)(TABLE, 3).tolist()] == [999, 500, 0, -1]  # 499.5, and halves round to even


EDM = """80, 57.58598, 40.78557, 28.37458, 19.35245, 12.91008, 8.400935, 5.315195, 3.256822, 1.92334, 1.088171, .5853481,
.2964423, .1395165, .05994731, .02293452, .00752802, .002, 0"""


def test_edm_18():
    times = KarrasRho(0.002, 80.0, 7.0)(Karras(80.0), 18)
    torch.testing.assert_close(times, torch.tensor([float(t) for t in EDM.split(",")]).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("path", [VP(), SubVP(), Cosine(), VE(0.001, 100.0), Linear()], ids=lambda p: type(p).__name__)
def test_karras_levels_are_those_of_edm_on_every_path(path):
    p = path(KarrasRho(0.002, 80.0, 7.0)(path, 18)[:-1], 1)
    expected = torch.tensor([float(t) for t in EDM.split(",")[:-1]]).double()
    torch.testing.assert_close(p.sigma / p.alpha, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "path", [VP(), SubVP(), Cosine(), VE(0.01, 50.0), Karras(80.0)], ids=lambda p: type(p).__name__
)
def test_logsnr_is_equally_spaced_in_lambda(path):
    times = LogSNR(1e-3)(path, 10)
    p = path(times[:-1], 1)
    steps = (p.alpha / p.sigma).log().diff()
    torch.testing.assert_close(steps, steps.mean().expand(9), rtol=1e-6, atol=0)
    assert (times[0], times[-2].item(), times[-1]) == (path.t_max, pytest.approx(1e-3, rel=1e-6), 0)


def test_logsnr_is_linspace_on_ve():
    path = VE(0.01, 50.0)
    torch.testing.assert_close(LogSNR(1e-3)(path, 10), Linspace(1e-3)(path, 10), rtol=1e-9, atol=1e-12)


def test_shift_multiplies_the_noise_level_of_straight_lines():
    """SD3's 1, 3·0.75/(1 + 2·0.75) = 0.9, 0.75, 0.5, 0: σ/α is three times as large."""
    times = Shifted(3.0, Trailing())(Linear(), 4)
    torch.testing.assert_close(times, torch.tensor([1, 0.9, 0.75, 0.5, 0], dtype=torch.float64), rtol=1e-12, atol=0)
    plain = Trailing()(Linear(), 4)[1:]
    torch.testing.assert_close(times[1:] / (1 - times[1:]), 3 * plain / (1 - plain), rtol=1e-12, atol=0)


NONSENSE = [
    (Leading(), VP(), 10, "use the grid Trailing"),
    (Leading(), TABLE, 501, "begin at step 501 of 1000.* divides 1000, or the grid Trailing"),
    (Leading(), TABLE, 1, "begin at step 1 of 1000"),
    (Leading(), TABLE, 1001, "more than the 1000 steps"),
    (Quadratic(0.8), VP(), 10, "use the grid Trailing"),
    (KarrasRho(0.002, 80.0, 7.0), VE(0.001, 50.0), 10, "sigma_max=80 is above"),
    (KarrasRho(0.002, 50.0, 7.0), VE(0.01, 50.0), 10, "leaves the VE path"),
    (KarrasRho(0.002, 80.0, 7.0), TABLE, 200, "fewer steps"),
    (LogSNR(1e-3), Linear(), 10, "Shifted or Trailing"),
    (Shifted(3.0, Trailing()), TABLE, 10, "discrete"),
]


@pytest.mark.parametrize(("grid", "path", "steps", "remedy"), NONSENSE)
def test_a_grid_that_does_not_fit_names_its_remedy(grid, path, steps, remedy):
    with pytest.raises(GenlabError, match=remedy):
        grid(path, steps)


@pytest.mark.parametrize("grid", [Trailing(), Linspace(1.0)], ids=["trailing", "linspace"])
def test_as_many_steps_as_the_path_visits_each(grid):
    assert grid(LEVELS, 10).tolist() == list(range(10, -1, -1))


def test_score_sde_has_equal_steps():
    """N = 1000 and ε = 1e-3 make every interval 1/N, the last one to 0 included."""
    times = Linspace(1e-3)(VP(), 1000)
    torch.testing.assert_close(times.diff(), torch.full((1000,), -1e-3, dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize("grid", [Trailing(), Linspace(1.0)], ids=["trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 7, 333, 999])
def test_times_fall_from_the_end_to_data(grid, steps):
    times = grid(TABLE, steps)
    assert (times.dtype, len(times), times[0], times[-1]) == (torch.float64, steps + 1, 1000, 0)
    assert (times.diff() < 0).all()
    assert torch.equal(times, times.round())


@pytest.mark.parametrize("grid", [Trailing(), Linspace(1.0)], ids=["trailing", "linspace"])
def test_more_steps_than_the_path_has(grid):
    with pytest.raises(GenlabError, match="steps=11 is more than the 10 steps of the Levels path"):
        grid(LEVELS, 11)


@pytest.mark.parametrize(
    ("path", "t_end"), [(VP(), 0.0), (VP(), 1.0), (VE(0.01, 50.0), 1.0), (TABLE, 1e-3)], ids=["0", "VP", "VE", "Table"]
)
def test_an_end_made_for_another_kind_of_path(path, t_end):
    """t_end = 1 is the smallest noise of a table, but the largest of a continuous path; 1e-3 the reverse."""
    with pytest.raises(GenlabError, match="t_end"):
        Linspace(t_end)(path, 10)
