import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from genlab.evaluation.features import FeatureBank
from genlab.evaluation.frechet import FrechetDistance, frechet_distance
from genlab.evaluation.moments import Moments


def gaussian(mean, covariance, n=1000):
    """Moments that are exactly these."""
    second = (n - 1) * covariance + n * torch.outer(mean, mean)
    return Moments(n, n * mean, second)


def test_closed_form_of_isotropic_gaussians():
    a, b = torch.zeros(5).double(), torch.full((5,), 2.0).double()
    distance = frechet_distance(gaussian(a, torch.eye(5).double()), gaussian(b, 9 * torch.eye(5).double()))
    assert distance == pytest.approx(5 * 4 + 5 * (3 - 1) ** 2, rel=1e-12)


def test_closed_form_of_commuting_covariances():
    torch.manual_seed(0)
    p, q = torch.rand(7).double() + 0.1, torch.rand(7).double() + 0.1
    basis = torch.linalg.qr(torch.randn(7, 7).double()).Q
    zero = torch.zeros(7).double()
    distance = frechet_distance(gaussian(zero, basis @ p.diag() @ basis.T), gaussian(zero, basis @ q.diag() @ basis.T))
    assert distance == pytest.approx((p.sqrt() - q.sqrt()).square().sum().item(), rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(2000, 64), (500, 8), (40, 64)])
def test_equals_the_matrix_square_root(n, d):
    torch.manual_seed(0)
    x, y = torch.randn(n, d) @ torch.randn(d, d), torch.randn(n, d) @ torch.randn(d, d) + 0.3
    real, fake = Moments.of(x), Moments.of(y)
    if n > d:
        root = np.trace(np.real(scipy.linalg.sqrtm((real.covariance @ fake.covariance).numpy())))
    else:  # the root does not exist numerically; the nuclear norm of the centred factors does
        centred = [(z.double() - z.double().mean(0)) / math.sqrt(n - 1) for z in (x, y)]
        root = torch.linalg.svdvals(centred[0] @ centred[1].T).sum().item()
    expected = (real.mean - fake.mean).square().sum() + real.covariance.trace() + fake.covariance.trace() - 2 * root
    assert frechet_distance(real, fake) == pytest.approx(expected.item(), rel=1e-8)
    assert frechet_distance(fake, real) == pytest.approx(expected.item(), rel=1e-8)


@pytest.mark.parametrize("n", [30, 1000])
def test_distance_to_itself_vanishes_even_with_dead_units(n):
    torch.manual_seed(0)
    moments = Moments.of(torch.randn(n, 64).relu() * (torch.arange(64) < 50))
    assert abs(frechet_distance(moments, moments)) < 1e-8


def test_agrees_with_torchmetrics():
    torch.manual_seed(0)
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Flat(nn.Module):
        num_features = 12

        def forward(self, x):
            return x.flatten(1)

    real, fake = torch.rand(300, 3, 2, 2), torch.rand(200, 3, 2, 2) ** 2
    theirs = FrechetInceptionDistance(feature=Flat(), normalize=True)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    ours = FrechetDistance("flat")(FeatureBank(real.flatten(1)), FeatureBank(fake.flatten(1)))
    assert ours["fd_flat"] == pytest.approx(theirs.compute().item(), rel=1e-4)  # theirs ends in float32
