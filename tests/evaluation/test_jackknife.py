import math

import pytest
import torch

from genlab.evaluation.features import FeatureBank
from genlab.evaluation.frechet import FrechetDistance
from genlab.evaluation.jackknife import jackknife


class Mean:
    better = {"mean": "higher"}  # noqa: RUF012

    def __call__(self, real, fake):
        return {"mean": fake.features.double().mean().item()}


def test_error_of_a_mean_is_the_textbook_one():
    torch.manual_seed(0)
    x = torch.randn(200, 1)
    bank = FeatureBank(x)
    value, error = jackknife(Mean(), bank, bank, blocks=len(x))["mean"]
    assert value == pytest.approx(x.double().mean().item())
    assert error == pytest.approx(x.double().std().item() / len(x) ** 0.5, rel=1e-9)
    blocks = torch.stack([x.double()[k::10].mean() for k in range(10)])
    assert jackknife(Mean(), bank, bank)["mean"][1] == pytest.approx(blocks.std().item() / 10**0.5, rel=1e-9)


def test_error_of_a_metric_that_is_not_a_number_is_none_either():
    bank = FeatureBank(torch.tensor([[1.0]] * 19 + [[math.nan]]))
    assert all(map(math.isnan, jackknife(Mean(), bank, bank)["mean"]))


def test_error_of_a_frechet_distance_is_its_spread_over_sample_sets():
    generator = torch.Generator().manual_seed(0)
    real = FeatureBank(torch.randn(2000, 4, generator=generator))
    fakes = [FeatureBank(1.3 * torch.randn(500, 4, generator=generator) + 0.3) for _ in range(40)]
    got = [jackknife(FrechetDistance("net"), real, fake)["fd_net"] for fake in fakes]
    spread = torch.tensor([value for value, _ in got]).std().item()
    assert sum(error for _, error in got) / len(got) == pytest.approx(spread, rel=0.4)
