import math

import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel

from genlab.errors import GenlabError
from genlab.evaluation import kernel
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.jackknife import jackknife
from genlab.evaluation.kernel import KernelDistance, KernelSubsets


def bank(x: torch.Tensor) -> FeatureBank:
    return FeatureBank(len(x), features=x)


def distance(x: torch.Tensor, y: torch.Tensor) -> float:
    return KernelDistance("net")(bank(x), bank(y))["kd_net"]


def by_scikit_learn(x: torch.Tensor, y: torch.Tensor) -> float:
    """The U-statistic with sklearn's polynomial kernel, whose γ is 1/D and coef0 1 unless told."""
    kxx, kyy, kxy = (polynomial_kernel(a.double(), b.double(), degree=3) for a, b in ((x, x), (y, y), (x, y)))
    own = sum((k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (kxx, kyy))
    return float(own - 2 * kxy.mean())


@pytest.mark.parametrize("rows", [5, 2048])
def test_equals_that_of_scikit_learns_kernel(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(kernel, "ROWS", rows)
    x, y = torch.randn(23, 7), torch.randn(17, 7) + 1
    assert distance(x, y) == pytest.approx(by_scikit_learn(x, y), rel=1e-12)


def test_agrees_with_torchmetrics() -> None:
    torch.manual_seed(0)
    from torchmetrics.image.kid import poly_mmd

    x, y = torch.randn(50, 8).double(), torch.rand(50, 8).double()
    assert distance(x, y) == pytest.approx(poly_mmd(x, y).item(), rel=1e-10)


def test_is_unbiased() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([distance(*torch.randn(2, 20, 4, generator=generator)) for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / 20
    assert (values < 0).any()


def test_replicates_are_the_distances_without_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(kernel, "ROWS", 4)
    x, y = torch.randn(30, 3), torch.randn(33, 3) + 0.5
    whole, *left = KernelDistance("net").replicates(bank(x), bank(y), 10)
    assert whole["kd_net"] == pytest.approx(by_scikit_learn(x, y), rel=1e-12)
    expected = [by_scikit_learn(x, y[torch.arange(33) % 10 != k]) for k in range(10)]
    assert [values["kd_net"] for values in left] == pytest.approx(expected, rel=1e-11)


def test_subsets_of_everything_are_the_full_statistic_and_have_no_spread() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(40, 5), torch.randn(40, 5) + 0.3
    got = KernelSubsets("net", subsets=3, size=40)(bank(x), bank(y))
    assert got["kd_subsets_net"] == pytest.approx(by_scikit_learn(x, y), rel=1e-11)
    assert got["kd_subsets_net_spread"] == pytest.approx(0, abs=1e-12)


def test_subsets_are_the_seeds_and_their_mean_is_that_of_scikit_learn_over_them() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(60, 5), torch.randn(50, 5) + 0.3
    metric = KernelSubsets("net", subsets=20, size=25, seed=3, key="kid")
    got, generator = metric(bank(x), bank(y)), torch.Generator().manual_seed(3)
    expected = torch.tensor(
        [by_scikit_learn(*(z[torch.randperm(len(z), generator=generator)[:25]] for z in (x, y))) for _ in range(20)]
    )
    assert got["kid"] == pytest.approx(expected.mean().item(), rel=1e-6)
    assert got["kid_spread"] == pytest.approx(expected.std(correction=0).item(), rel=1e-5)
    assert metric(bank(x), bank(y)) == got, "the same at every call"
    assert KernelSubsets("net", 20, 25, 4, "kid")(bank(x), bank(y)) != got
    assert math.isnan(jackknife(metric, bank(x), bank(y))["kid"].stderr)
    assert set(got) == set(metric.better)


def test_bad_input_is_refused() -> None:
    x = torch.randn(20, 3)
    with pytest.raises(GenlabError, match="at least 1000 samples, and there are 20"):
        KernelSubsets("net")(bank(x), bank(x))
    with pytest.raises(GenlabError, match="nan or inf"):
        KernelDistance("net")(bank(x), bank(x / 0))
    with pytest.raises(GenlabError, match="at least 2"):
        KernelDistance("net")(bank(x), bank(x[:1]))
    with pytest.raises(GenlabError, match="needs features"):
        KernelDistance("net")(bank(x), FeatureBank(20))
