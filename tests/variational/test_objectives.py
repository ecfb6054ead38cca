"""Objectives against closed forms, sums over every batch there can be, and what their schedules say by hand."""

import itertools
import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from genlab.errors import GenlabError
from genlab.variational.discrepancy import Gaussian
from genlab.variational.objectives import (
    Balanced,
    Beta,
    Capacity,
    Discrepancy,
    FreeBits,
    ImportanceWeighted,
    Sampled,
    TotalCorrelation,
    stratified,
)
from genlab.variational.posterior import Diagonal


def sampled(b: int = 6, latent: int = 3, k: int = 1, seed: int = 0, h: torch.Tensor | None = None) -> Sampled:
    """A batch of a diagonal Gaussian q beside N(0, I)."""
    generator = torch.Generator().manual_seed(seed)
    if h is None:
        h = 0.7 * torch.randn(b, 2 * latent, generator=generator, dtype=torch.float64)
    draws = [Diagonal().draw(h, torch.randn(h.chunk(2, 1)[0].shape, generator=generator).double()) for _ in range(k)]
    prior = Normal(0.0, 1.0)
    return Sampled(
        distortion=torch.rand(k, len(h), generator=generator, dtype=torch.float64),
        log_ratio=torch.stack([draw.log_q - prior.log_prob(draw.z).sum(1) for draw in draws]),
        rate=draws[0].rate,
        z=draws[0].z,
        pairs=lambda: Diagonal().pairs(draws[0].z, h),
        prior=lambda: torch.randn(draws[0].z.shape, generator=generator).double(),
    )


@pytest.mark.parametrize(("images", "beta"), [(0, 0.0), (250, 1.0), (500, 2.0), (1000, 4.0), (5000, 4.0)])
def test_the_weight_of_the_rate_rises_in_a_line(images: int, beta: float) -> None:
    s = sampled()
    loss = Beta(4.0, 1000)(s, images)["loss"]
    assert loss.item() == pytest.approx((s.distortion.mean() + beta * s.rate.sum(1).mean()).item())


def test_no_warm_up_is_the_whole_weight_at_once() -> None:
    assert Beta(0.5, 0).at(0) == 0.5


def test_levels_are_balanced_by_size_and_rate_while_the_rate_comes_in() -> None:
    """Two levels of 4 latents, one of 32: α = (2, 2, 32); γ ∝ (E|KL| + 0.01)/α, of mean 1, and 1 from then on."""
    rate = torch.tensor([[1.0, 3.0, 9.0], [2.0, 5.0, 13.0]], dtype=torch.float64, requires_grad=True)
    s = sampled(2)._replace(rate=rate, sizes=[4, 4, 32])
    balanced = Balanced(1000, 1e-2)
    gamma = [1.51 / 2, 4.01 / 2, 11.01 / 32]
    gamma = [3 * g / sum(gamma) for g in gamma]
    for images, beta in ((0, 0.01), (250, 0.25)):
        terms = balanced(s, images)
        expected = beta * sum(g * kl for g, kl in zip(gamma, (1.5, 4.0, 11.0), strict=True))
        assert terms["loss"].item() == pytest.approx(s.distortion.mean().item() + expected)
        (gradient,) = torch.autograd.grad(terms["loss"], rate)
        torch.testing.assert_close(gradient[0], beta / 2 * torch.tensor(gamma).double())  # none through γ
    for images in (1000, 5000):
        assert balanced(s, images)["loss"].item() == pytest.approx(s.distortion.mean().item() + 16.5)
    with pytest.raises(GenlabError, match="model=hvae"):
        balanced(sampled(), 0)


@pytest.mark.parametrize("group", [1, 2, 3, 7])
def test_below_lambda_a_group_costs_lambda_and_has_no_gradient(group: int) -> None:
    rate = torch.tensor([[0.3, 0.05, 0.2], [0.1, 0.01, 0.6]], dtype=torch.float64, requires_grad=True)
    s = sampled(2)._replace(rate=rate)
    terms = FreeBits(0.25, group)(s, 0)
    means = [0.2, 0.03, 0.4]
    groups = [means[i : i + group] for i in range(0, 3, group)]
    expected = sum(max(0.25, sum(part)) for part in groups)
    assert terms["charged"].item() == pytest.approx(expected)
    assert terms["loss"].item() == pytest.approx(s.distortion.mean().item() + expected)
    (gradient,) = torch.autograd.grad(terms["loss"], rate)
    charged = [sum(part) > 0.25 for part in groups for _ in part]
    assert (gradient[0] > 0).tolist() == charged


@pytest.mark.parametrize(("images", "capacity"), [(0, 0.0), (50, 1.0), (100, 2.0), (900, 2.0)])
def test_capacity_charges_the_distance_from_it(images: int, capacity: float) -> None:
    for factor in (0.1, 10.0):
        s = sampled()
        s = s._replace(rate=factor * s.rate)
        loss = Capacity(30.0, 2.0, 100)(s, images)["loss"]
        expected = s.distortion.mean() + 30 * abs(s.rate.sum(1).mean() - capacity)
        assert loss.item() == pytest.approx(expected.item())


def test_stratified_weights_are_without_bias() -> None:
    """Over all batches of 3 of 5 images that hold x_0, and all their orders, Σ_j w_0j q(z | x_j) is on average q(z)."""
    density = torch.rand(5, dtype=torch.float64)
    weights = stratified(3, 5)[0]
    found = [weights @ density[[0, *others]] for others in itertools.permutations(range(1, 5), 2)]
    assert (sum(found) / len(found)).item() == pytest.approx(density.mean().item(), abs=1e-12)
    rows = [stratified(4, 9)[i].sum().item() for i in range(4)]
    assert rows == pytest.approx([stratified(4, 9)[0].sum().item()] * 4)


def test_each_row_of_the_weights_gives_1_over_n_to_its_own_image() -> None:
    assert torch.equal(stratified(4, 9).diagonal(), torch.full((4,), 1 / 9, dtype=torch.float64))


def test_the_three_parts_add_up_to_the_rate() -> None:
    s = sampled(8)
    loss = TotalCorrelation(1.0, 1.0, 1.0, 100)(s, 0)["loss"]
    assert loss.item() == pytest.approx((s.distortion.mean() + s.log_ratio.mean()).item())


def test_parts_of_a_gaussian_aggregate_are_its_closed_forms() -> None:
    """μ ~ N(0, C) and z | μ ~ N(μ, s²) make q(z) = N(0, C + s² I); the batch is all there is."""
    b, s = 1500, 0.5
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    torch.manual_seed(0)
    mu = MultivariateNormal(torch.zeros(2).double(), covariance).sample((b,))
    given = sampled(h=torch.cat([mu, torch.full_like(mu, math.log(s))], dim=1))
    terms = TotalCorrelation(2.0, 6.0, 3.0, b)(given, 0)
    whole = covariance + s**2 * torch.eye(2)
    correlation = 0.5 * (whole.diag().log().sum() - whole.logdet())
    information = 0.5 * (whole.logdet() - 2 * math.log(s**2))
    dimensions = sum(0.5 * (v - 1 - v.log()) for v in whole.diag())
    assert terms["correlation"].item() == pytest.approx(correlation.item(), abs=0.05)
    assert terms["information"].item() == pytest.approx(information.item(), abs=0.05)
    assert terms["dimensions"].item() == pytest.approx(dimensions.item(), abs=0.05)
    charged = 2 * terms["information"] + 6 * terms["correlation"] + 3 * terms["dimensions"]
    assert terms["loss"].item() == pytest.approx((given.distortion.mean() + charged).item())


def test_a_total_correlation_is_told_of_how_many_images_a_batch_is_one_or_says_that_it_does_not_know() -> None:
    s, told, asked = sampled(8), TotalCorrelation(1.0, 6.0, 1.0, None), TotalCorrelation(1.0, 6.0, 1.0, 50)
    with pytest.raises(GenlabError, match="known in training alone"):
        told(s, 0)
    for objective in (told, asked):
        objective.begin(100)
    losses = [TotalCorrelation(1.0, 6.0, 1.0, images)(s, 0)["loss"] for images in (100, 50)]
    torch.testing.assert_close([told(s, 0)["loss"], asked(s, 0)["loss"]], losses)


def test_a_total_correlation_needs_a_product() -> None:
    s = sampled()
    with pytest.raises(GenlabError, match="posterior=diagonal"):
        TotalCorrelation(1.0, 6.0, 1.0, 100)(s._replace(pairs=lambda: torch.zeros(6, 6, 1)), 0)


@pytest.mark.parametrize(("alpha", "weight"), [(0.0, 10.0), (1.0, 10.0), (-1.0, 5.0)])
def test_the_discrepancy_is_weighed_as_in_infovae(alpha: float, weight: float) -> None:
    s = sampled(64)
    terms = Discrepancy(alpha, weight, Gaussian(0.5))(s, 0)
    expected = s.distortion.mean() + (1 - alpha) * s.rate.sum(1).mean() + (alpha + weight - 1) * terms["mmd"]
    assert terms["loss"].item() == pytest.approx(expected.item())


def test_the_importance_weighted_loss_is_the_log_of_a_mean() -> None:
    s = sampled(k=7)
    weights = (-s.distortion - s.log_ratio).exp()
    assert ImportanceWeighted(7)(s, 0)["loss"].item() == pytest.approx(-weights.mean(0).log().mean().item())


def test_limits_are_allowed() -> None:
    s = sampled()
    half = Discrepancy(0.5, 0.5, Gaussian(1.0))(s, 0)  # charges half of the rate and no discrepancy
    assert half["loss"].item() == pytest.approx((s.distortion.mean() + s.mean_rate / 2).item())
    torch.testing.assert_close(stratified(2, 2), torch.full((2, 2), 0.5, dtype=torch.float64))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Beta(-1.0, 0),
        lambda: Beta(math.nan, 0),
        lambda: Beta(1.0, -5),
        lambda: FreeBits(-0.1, 1),
        lambda: FreeBits(0.1, 0),
        lambda: Capacity(-1.0, 25.0, 100),
        lambda: Capacity(math.inf, 25.0, 100),
        lambda: Discrepancy(math.nan, 1.0, Gaussian(1.0)),
        lambda: TotalCorrelation(1.0, -6.0, 1.0, 100),
        lambda: Discrepancy(2.0, 1.0, Gaussian(1.0)),
        lambda: Discrepancy(0.0, 0.5, Gaussian(1.0)),
        lambda: ImportanceWeighted(0),
        lambda: stratified(1, 10),
        lambda: stratified(11, 10),
    ],
)
def test_impossible_values_are_one_line(make) -> None:
    with pytest.raises(GenlabError) as error:
        make()
    assert "\n" not in str(error.value)
