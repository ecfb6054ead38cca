import math

import pytest
import torch

from genlab.evaluation.features import FeatureBank
from genlab.evaluation.frechet import FrechetDistance
from genlab.evaluation.jackknife import jackknife
from genlab.evaluation.kernel import KernelDistance
from genlab.evaluation.moments import Blocks, Gaussian


class Mean:
    better = {"mean": "higher"}  # noqa: RUF012
    needs = ("features",)

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        return {"mean": fake.features.double().mean().item()}


class Variance:
    better = {"variance": "higher"}  # noqa: RUF012
    needs = ("features",)

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        return {"variance": fake.features.double().var(correction=0).item()}


def bank(x: torch.Tensor) -> FeatureBank:
    return FeatureBank(len(x), Blocks.of(x, 10), features=x)


def test_error_of_a_mean_is_the_textbook_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 1)
    value, error, corrected = jackknife(Mean(), bank(x), bank(x), blocks=len(x))["mean"]
    assert (value, corrected) == pytest.approx((x.double().mean().item(),) * 2)
    assert error == pytest.approx(x.double().std().item() / len(x) ** 0.5, rel=1e-9)
    blocks = torch.stack([x.double()[k::10].mean() for k in range(10)])
    assert jackknife(Mean(), bank(x), bank(x))["mean"].stderr == pytest.approx(blocks.std().item() / 10**0.5, rel=1e-9)


def test_correction_of_a_variance_over_n_is_the_one_over_n_minus_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 1)
    got = jackknife(Variance(), bank(x), bank(x), blocks=50)["variance"]
    assert got.corrected == pytest.approx(x.double().var().item(), rel=1e-9)


def test_error_of_a_metric_that_is_not_a_number_is_none_either() -> None:
    x = bank(torch.tensor([[1.0]] * 19 + [[math.nan]]))
    assert all(map(math.isnan, jackknife(Mean(), x, x)["mean"]))


def test_a_metric_gets_what_it_needs_and_nothing_else() -> None:
    class Looks(Mean):
        def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
            assert fake.features is not None
            assert fake.x is fake.moments is None
            return super().__call__(real, fake)

    x = torch.randn(20, 1)
    jackknife(Looks(), bank(x), FeatureBank(20, Blocks.of(x, 10), features=x, x=x))


def test_frechet_distance_over_repeats_its_bias_its_correction_and_the_coverage_of_its_error() -> None:
    """The reference is N(0, 1) itself and the samples are N(0.2, 1.2²), so that the distance is known."""
    d, n, repeats, generator = 16, 400, 300, torch.Generator().manual_seed(0)
    real = FeatureBank(0, Gaussian(torch.zeros(d).double(), torch.eye(d).double(), None))
    truth = d * (0.2**2 + 0.2**2)
    fakes = (bank(1.2 * torch.randn(n, d, generator=generator) + 0.2) for _ in range(repeats))
    got = [jackknife(FrechetDistance("net"), real, fake)["fd_net"] for fake in fakes]
    value, error, corrected = torch.tensor(got, dtype=torch.float64).T
    spread = value.std()
    assert value.mean() - truth > 5 * spread / repeats**0.5, "the bias is there to be seen"
    assert abs(corrected.mean() - truth) < 0.1 * (value.mean() - truth) + 3 * spread / repeats**0.5
    assert error.mean() == pytest.approx(spread.item(), rel=0.15)
    covered = ((corrected - truth).abs() < 2.262 * error).double().mean()  # the 95 % quantile of t with 9 degrees
    assert covered == pytest.approx(0.95, abs=0.04)


def test_replicates_from_one_pass_are_those_of_the_metric_itself() -> None:
    class Slow(Mean):
        def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
            return KernelDistance("net")(real, fake)

    torch.manual_seed(0)
    x, y = bank(torch.randn(70, 3)), bank(torch.randn(63, 3) + 1)
    ours, slow = jackknife(KernelDistance("net"), x, y)["kd_net"], jackknife(Slow(), x, y)["kd_net"]
    assert ours == pytest.approx(slow, rel=1e-10)
