"""The discrepancy against closed forms between two Gaussians."""

import math

import pytest
import torch

from genlab.errors import GenlabError
from genlab.variational.discrepancy import Gaussian, InverseMultiquadratic, discrepancy


def closed_form(shift: float, dim: int, h: float) -> float:
    """MMD² of N(0, I) and N(shift · e_1, I) under exp(-‖a - b‖²/(2h)), as a - b ~ N(·, 2 I)."""
    scale = (h / (h + 2)) ** (dim / 2)
    return 2 * scale * (1 - math.exp(-(shift**2) / (2 * (h + 2))))


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_between_gaussians(shift: float) -> None:
    dim, n, width = 3, 800, 0.5
    torch.manual_seed(0)
    found = []
    for _ in range(8):
        a, b = torch.randn(2, n, dim)
        b[:, 0] += shift
        found.append(discrepancy(Gaussian(width), a, b).item())
    mean = sum(found) / 8
    assert mean == pytest.approx(closed_form(shift, dim, width * dim), abs=0.004)


def test_without_bias_it_may_be_negative() -> None:
    """Two draws of one distribution in tiny samples: 0 on average, which the biased estimator is not by about 2/n."""
    torch.manual_seed(0)
    found = torch.stack([discrepancy(Gaussian(0.5), *torch.randn(2, 5, 2)) for _ in range(2000)])
    assert abs(found.mean().item()) < 5 * found.std().item() / 2000**0.5
    assert found.min() < 0


def test_the_inverse_multiquadratic_by_hand() -> None:
    squared = torch.tensor([0.0, 3.0])
    expected = [2.0, 0.4 * 2 * 4 / (0.4 * 2 * 4 + 3) * 1 + 2 * 4 / (2 * 4 + 3)]
    assert InverseMultiquadratic([0.4, 1.0])(squared, 4).tolist() == pytest.approx(expected)


def test_its_gradient_is_finite_where_rows_coincide() -> None:
    a = torch.zeros(4, 2, requires_grad=True)
    discrepancy(InverseMultiquadratic([1.0]), a, torch.ones(4, 2)).backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian(-0.1),
        lambda: Gaussian(math.nan),
        *(lambda s=s: InverseMultiquadratic(s) for s in ([], [1.0, 0.0])),
    ],
)
def test_kernels_of_no_width_are_refused(make) -> None:
    with pytest.raises(GenlabError, match=r"variational\.objective\.kernel\.(width|scales)="):
        make()


def test_one_row_is_refused() -> None:
    with pytest.raises(GenlabError, match="2 images"):
        discrepancy(Gaussian(1.0), torch.zeros(1, 2), torch.zeros(1, 2))
