"""Times against the published timestep lists."""

import pytest
import torch

from genlab.errors import GenlabError
from genlab.gaussian.grids import Linspace, Trailing
from genlab.gaussian.path import VE, VP, Levels, Table, linear_betas

TABLE = Table(linear_betas(1000, 1e-4, 0.02))
LEVELS = Levels(0.01, 1.0, 10)


def test_trailing_10_of_1000():
    assert Trailing()(TABLE, 10).tolist() == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0]


def test_linspace_10_of_1000():
    """0-based 999, 888, ..., 0 and then data."""
    times = Linspace(1.0)(TABLE, 10).tolist()
    assert [t - 1 for t in times[:-1]] == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    assert times[-1] == 0


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
