import pytest
import torch

from genlab.evaluation import kernel
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.kernel import KernelDistance


def distance(x, y):
    return KernelDistance("net")(FeatureBank(x), FeatureBank(y))["kd_net"]


def test_equals_the_double_loop(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(kernel, "ROWS", 5)
    x, y = torch.randn(12, 3), torch.randn(9, 3) + 1

    def mean(a, b, distinct):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (distinct and i == j)]
        return sum((a[i].double() @ b[j].double() / 3 + 1).item() ** 3 for i, j in pairs) / len(pairs)

    assert distance(x, y) == pytest.approx(mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False), rel=1e-12)


def test_agrees_with_torchmetrics():
    torch.manual_seed(0)
    from torchmetrics.image.kid import poly_mmd

    x, y = torch.randn(50, 8).double(), torch.rand(50, 8).double()
    assert distance(x, y) == pytest.approx(poly_mmd(x, y).item(), rel=1e-10)


def test_is_unbiased():
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([distance(*torch.randn(2, 20, 4, generator=generator)) for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / 20
    assert (values < 0).any()
