"""A level's posterior in the coordinates of its prior, against torch.distributions in those of z."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from genlab.errors import GenlabError
from genlab.variational.ladder import Absolute, Descent, Residual

B, C = 5, 3


def bounded(a, bound):
    return a if bound is None else bound * (a / bound).tanh()


@pytest.fixture
def numbers():
    torch.manual_seed(0)
    return [torch.randn(B, 2 * C, 4, 4, dtype=torch.float64) for _ in range(2)]


def distributions(parametrization, p, h):
    """q and p of z as the papers write them."""
    (mu_p, log_s_p), (first, second) = (bounded(a, parametrization.bound).chunk(2, dim=1) for a in (p, h))
    prior = Normal(mu_p, log_s_p.exp())
    if parametrization.__class__ is Absolute:
        return Normal(first, second.exp()), prior
    return Normal(mu_p + first, log_s_p.exp() * second.exp()), prior


@pytest.mark.parametrize("bound", [None, 5.0])
@pytest.mark.parametrize("kind", [Absolute, Residual])
def test_a_level_is_drawn_from_the_posterior_and_charged_its_divergence(kind, bound, numbers):
    p, h = numbers
    q, prior = distributions(kind(bound), p, h)
    way, eps = Descent(kind(bound)), torch.randn(B, C, 4, 4, dtype=torch.float64)
    z = way(p, h, eps)
    torch.testing.assert_close(z, q.mean + q.stddev * eps)
    torch.testing.assert_close(way.rates[:, 0], kl_divergence(q, prior).flatten(1).sum(1))
    log_ratio = way.log_q - Normal(0.0, 1.0).log_prob(way.code).sum(1)
    torch.testing.assert_close(log_ratio, (q.log_prob(z) - prior.log_prob(z)).flatten(1).sum(1))
    torch.testing.assert_close(way.code, ((z - prior.mean) / prior.stddev).flatten(1))


def test_the_divergence_of_the_residual_normal_is_that_of_the_paper(numbers):
    """½ Σ (Δμ²/σ_p² + Δσ² - log Δσ² - 1), Vahdat & Kautz 2020, eq. 2."""
    p, h = numbers
    shift, stretch = h[:, :C], h[:, C:].exp()
    paper = 0.5 * (shift**2 / (2 * p[:, C:]).exp() + stretch**2 - (stretch**2).log() - 1)
    way = Descent(Residual())
    way(p, h, torch.zeros(B, C, 4, 4, dtype=torch.float64))
    torch.testing.assert_close(way.draws[0].rate, paper.flatten(1))
    way(p, torch.zeros_like(h), torch.zeros(B, C, 4, 4, dtype=torch.float64))
    assert way.rates[:, 1].abs().max() == 0  # no residual is the prior


def test_without_a_posterior_it_is_the_prior(numbers):
    p, _ = numbers
    way, eps = Descent(Absolute()), torch.randn(B, C, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(way(p, None, eps), p[:, :C] + p[:, C:].exp() * eps)
    assert not way.draws


def test_the_estimate_of_the_rate_is_right_on_average(numbers):
    p, h = (part[:1].expand(20_000, -1, -1, -1)[:, :, :1, :1] for part in numbers)
    way = Descent(Residual())
    way(p, h, torch.randn(20_000, C, 1, 1, dtype=torch.float64))
    ratio = way.log_q - Normal(0.0, 1.0).log_prob(way.code).sum(1)
    error = 5 * ratio.std().item() / math.sqrt(len(ratio))
    assert ratio.mean().item() == pytest.approx(way.rates[0, 0].item(), abs=error)


def test_half_precision_is_not_where_exponentials_are_taken():
    p = torch.tensor([[0.0], [8.0]]).expand(2, 1)[None, :, :, None].bfloat16()
    z = Descent(Absolute())(p[:, :, :1], None, torch.ones(1, 1, 1, 1))
    assert z.dtype == torch.float32
    assert z.item() == pytest.approx(math.exp(8), rel=1e-6)


def test_a_bound_of_nothing_is_refused():
    with pytest.raises(GenlabError, match="bound=0"):
        Residual(0.0)
