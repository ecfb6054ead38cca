"""The law of training times, and the weight of each."""

import pytest
import scipy.stats
import torch

from genlab.gaussian.parametrization import ScaledScore, Score
from genlab.gaussian.times import Steps, Uniform
from genlab.gaussian.weights import SigmaSquared, Unit

CPU = torch.device("cpu")


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1e-5, 1.0), (0.2, 0.7)])
def test_uniform(low, high):
    torch.manual_seed(0)
    t = Uniform(low, high)(20_000, CPU)
    assert t.dtype == torch.float32
    assert low <= t.min()
    assert t.max() <= high
    assert scipy.stats.kstest(t.numpy(), "uniform", (low, high - low)).pvalue > 1e-3


def test_steps_are_equally_likely_and_start_at_1():
    torch.manual_seed(0)
    t = Steps(10)(20_000, CPU)
    assert t.dtype == torch.float32
    assert t.unique().tolist() == list(range(1, 11))
    assert scipy.stats.chisquare(t.long().bincount()[1:].numpy()).pvalue > 1e-3


def test_sigma_squared_makes_a_score_loss_that_of_its_scaled_score(path):
    """½σ² ‖s + ε/σ‖² = ½ ‖σs + ε‖²: NCSN's loss does not depend on the noise level."""
    p = path(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64) * path.t_max, 2)
    x, eps, score = torch.randn(3, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weighted = SigmaSquared()(p) * (score - Score().target(x, eps, p)) ** 2
    torch.testing.assert_close(weighted, (p.sigma * score - ScaledScore().target(x, eps, p)) ** 2 / 2)
    assert Unit()(p) == 1
