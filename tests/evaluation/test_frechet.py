import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.frechet import FrechetDistance, FrechetInfinity, frechet_distance
from genlab.evaluation.jackknife import jackknife
from genlab.evaluation.moments import Blocks, Gaussian, fit


def bank(x: torch.Tensor, blocks: int = 10) -> FeatureBank:
    few = len(x) <= x.shape[1]
    return FeatureBank(len(x), Gaussian.of(x) if few else Blocks.of(x, blocks), features=x)


def clustered(n: int, d: int, seed: int) -> torch.Tensor:
    """Non-negative features of very different variances, as those of a network are."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(10, d, generator=torch.Generator().manual_seed(99))
    scale = torch.logspace(0, -2, d)[torch.randperm(d, generator=torch.Generator().manual_seed(98))]
    noise = torch.randn(n, d, generator=generator) * scale
    return (centres[torch.randint(10, (n,), generator=generator)] * scale + noise + 0.1 * seed * scale).relu()


def nuclear(x: torch.Tensor, y: torch.Tensor) -> float:
    """The distance by QR and the nuclear norm of centred factors, all in float64."""
    factors = [(z.double() - z.double().mean(0)) / math.sqrt(len(z) - 1) for z in (x, y)]
    root = torch.linalg.svdvals(torch.linalg.qr(factors[0]).R @ torch.linalg.qr(factors[1]).R.T).sum()
    shift = (x.double().mean(0) - y.double().mean(0)).square().sum()
    return (shift + sum(f.square().sum() for f in factors) - 2 * root).item()


def test_closed_form_of_isotropic_gaussians() -> None:
    a, b, eye = torch.zeros(5).double(), torch.full((5,), 2.0).double(), torch.eye(5).double()
    distance = frechet_distance(Gaussian(a, eye, None), Gaussian(b, 9 * eye, None))
    assert distance == pytest.approx(5 * 4 + 5 * (3 - 1) ** 2, rel=1e-12)


def test_closed_form_of_commuting_covariances() -> None:
    torch.manual_seed(0)
    p, q = torch.rand(7).double() + 0.1, torch.rand(7).double() + 0.1
    basis = torch.linalg.qr(torch.randn(7, 7).double()).Q
    zero = torch.zeros(7).double()
    ours, theirs = (Gaussian(zero, basis @ v.diag() @ basis.T, None) for v in (p, q))
    assert frechet_distance(ours, theirs) == pytest.approx((p.sqrt() - q.sqrt()).square().sum().item(), rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(2000, 600), (700, 600), (256, 256), (100, 256), (2, 16)])
def test_equals_the_nuclear_norm_to_nine_digits(n: int, d: int) -> None:
    x, y = clustered(3000, d, 0), clustered(n, d, 1)
    expected = nuclear(x, y)
    real, fake = fit(x), fit(y)
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-9)
    streamed = Blocks.of(y, 10).gaussian  # also where there are too few samples for it
    assert frechet_distance(real, streamed) == pytest.approx(expected, rel=1e-9 if n > d else 1e-6)


def test_equals_the_matrix_square_root() -> None:
    x, y = clustered(2000, 64, 0), clustered(1500, 64, 1)
    real, fake = fit(x), fit(y)
    root = np.trace(np.real(scipy.linalg.sqrtm((real.covariance @ fake.covariance).numpy())))
    expected = (real.mean - fake.mean).square().sum() + real.covariance.trace() + fake.covariance.trace() - 2 * root
    assert frechet_distance(real, fake) == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("n", [30, 1000])
def test_distance_to_itself_vanishes_even_with_dead_units(n: int) -> None:
    torch.manual_seed(0)
    gaussian = fit(torch.randn(n, 64).relu() * (torch.arange(64) < 50))
    assert abs(frechet_distance(gaussian, gaussian)) < 1e-8


def test_features_without_any_variance_are_their_means() -> None:
    still = Blocks.of(torch.ones(50, 4)).gaussian
    assert frechet_distance(still, Blocks.of(torch.full((60, 4), 3.0)).gaussian) == pytest.approx(16, rel=1e-12)
    x = clustered(300, 4, 0)
    expected = (fit(x).mean - 1).square().sum() + fit(x).covariance.trace()
    assert frechet_distance(still, fit(x)) == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(3000, 300), (250, 300)])
def test_the_factor_of_a_reference_is_a_root_and_a_triangle(n: int, d: int) -> None:
    x = clustered(n, d, 0)
    x[:, 7] = 0
    x[:, 9] = x[:, 8]
    gaussian = Blocks.of(x).gaussian
    low = gaussian.factor[gaussian.order]
    assert torch.equal(low, low.tril())
    assert low.shape[1] == min(n - 1, d - 2)
    torch.testing.assert_close(gaussian.factor @ gaussian.factor.T, gaussian.covariance, rtol=1e-9, atol=1e-13)


def test_order_and_batches_do_not_matter() -> None:
    x, y = clustered(800, 32, 0), clustered(700, 32, 1)
    expected = FrechetDistance("net")(bank(x), bank(y))["fd_net"]
    shuffled = bank(y[torch.randperm(700)])
    assert FrechetDistance("net")(bank(x, 1), shuffled)["fd_net"] == pytest.approx(expected, rel=1e-9)


def test_agrees_with_torchmetrics() -> None:
    torch.manual_seed(0)
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Flat(nn.Module):
        num_features = 12

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).double()

    real, fake = torch.rand(300, 3, 2, 2), torch.rand(200, 3, 2, 2) ** 2
    theirs = FrechetInceptionDistance(feature=Flat(), normalize=True)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    ours = FrechetDistance("flat")(bank(real.flatten(1)), bank(fake.flatten(1)))
    assert ours["fd_flat"] == pytest.approx(theirs.compute().item(), rel=1e-9)


def test_spatial_features_have_a_distance_of_their_own() -> None:
    x, y = clustered(300, 8, 0), clustered(300, 8, 1)
    metric = FrechetDistance("net", spatial=True)
    assert metric.needs == ("spatial",)
    got = metric(FeatureBank(300, spatial=Blocks.of(x)), FeatureBank(300, spatial=Blocks.of(y, 10)))
    assert got == {"sfd_net": pytest.approx(nuclear(x, y), rel=1e-9)}
    with pytest.raises(GenlabError, match="sfd_net needs spatial"):
        metric(bank(x), bank(y))


def test_only_what_may_be_called_fid_is(capsys: pytest.CaptureFixture[str]) -> None:
    x = clustered(300, 32, 0)
    metric = FrechetDistance("inception", key="fid")
    for n in (200, 34):  # the jackknife of 34 leaves 31 samples, which is its own affair
        assert jackknife(metric, bank(x), bank(clustered(n, 32, 1)))["fid"].stderr > 0
    assert capsys.readouterr().err.count("a fid of 200 samples") == 1
    with pytest.raises(GenlabError, match="32 samples are not enough for a fid in 32 dimensions"):
        metric(bank(x), bank(clustered(32, 32, 1)))
    assert FrechetDistance("inception")(bank(x), bank(clustered(32, 32, 1)))["fd_inception"] > 0


def test_what_is_no_set_of_features_is_refused_in_one_line() -> None:
    x = clustered(300, 8, 0)
    broken = x.clone()
    broken[7, 3] = math.nan
    with pytest.raises(GenlabError, match="nan or inf") as caught:
        FrechetDistance("net")(bank(x), bank(broken))
    assert "\n" not in str(caught.value)
    with pytest.raises(GenlabError, match="at least 2 samples"):
        FrechetDistance("net")(bank(x), FeatureBank(1, Blocks.of(x[:1])))


def test_infinity_has_a_tenth_of_the_bias() -> None:
    """N(0, 1) against N(m, 4), whose distance is known: ‖m‖² + d (2 − 1)²."""
    d, n, generator = 32, 1000, torch.Generator().manual_seed(0)
    real = FeatureBank(0, Gaussian(torch.zeros(d).double(), torch.eye(d).double(), None))
    truth = d * (0.1**2 + 1)
    fakes = [bank(2 * torch.randn(n, d, generator=generator) + 0.1) for _ in range(100)]
    plain, infinite = (
        torch.tensor([metric(real, fake)[key] for fake in fakes]) - truth
        for metric, key in ((FrechetDistance("g"), "fd_g"), (FrechetInfinity("g"), "fd_infinity_g"))
    )
    assert plain.mean() > 5 * plain.std() / 10, "the bias is there to be seen"
    assert abs(infinite.mean()) < plain.mean() / 10 + 3 * infinite.std() / 10
    assert infinite.std() < 2 * plain.std()


def test_infinity_is_the_end_of_the_line_through_its_subsets() -> None:
    x, y = clustered(900, 8, 0), clustered(1000, 8, 1)
    sizes = [100 * k for k in range(1, 11)]
    subsets = [torch.cat([y[j::10] for j in range(k)]) for k in range(1, 11)]
    values = [frechet_distance(fit(x), fit(z)) for z in subsets]
    expected = np.polyfit(1 / np.array(sizes), values, 1)[1]
    assert FrechetInfinity("net")(bank(x), bank(y))["fd_infinity_net"] == pytest.approx(expected, rel=1e-9)


def test_infinity_of_too_few_samples_is_refused() -> None:
    x = clustered(300, 32, 0)
    for n, blocks in ((60, 10), (70, 10), (300, 1), (20, 10)):
        with pytest.raises(GenlabError, match="three subsets of at least 64 samples"):
            FrechetInfinity("net")(bank(x), bank(clustered(n, 32, 1), blocks))
