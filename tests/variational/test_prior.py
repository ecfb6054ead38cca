"""Priors against torch.distributions and the moments of their draws."""

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from genlab.errors import GenlabError
from genlab.noise import NoiseStream
from genlab.variational.posterior import Diagonal, Draw
from genlab.variational.prior import Mixture, StandardNormal, VampPrior


def unused(x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
    raise AssertionError("this prior asks nothing of the encoder")


def torchs(logits: torch.Tensor, h: torch.Tensor) -> MixtureSameFamily:
    mu, log_s = h.chunk(2, dim=1)
    return MixtureSameFamily(Categorical(logits=logits), Independent(Normal(mu, log_s.exp()), 1))


@pytest.fixture
def mixture() -> Mixture:
    prior = Mixture(2, 3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        prior.h.copy_(torch.randn(3, 4, generator=generator))
        prior.logits.copy_(torch.tensor([0.0, 1.5, -1.0]))
    return prior


def test_the_standard_normal() -> None:
    density = StandardNormal(3).given(unused, Diagonal())
    z = torch.randn(4, 3)
    torch.testing.assert_close(density.log_prob(z), Normal(0.0, 1.0).log_prob(z).sum(1))
    assert torch.equal(density.sample(NoiseStream(0), 4), NoiseStream(0).normal((4, 3)))


def test_a_mixture_has_the_density_of_torch(mixture: Mixture) -> None:
    z = torch.randn(6, 2)
    density = mixture.given(unused, Diagonal())
    torch.testing.assert_close(density.log_prob(z), torchs(mixture.logits, mixture.h).log_prob(z))


def test_the_rate_without_a_closed_form_is_log_q_minus_log_p(mixture: Mixture) -> None:
    density, z = mixture.given(unused, Diagonal()), torch.randn(6, 2)
    log_q = torch.randn(6)
    rate = density.rate(Draw(z, log_q, torch.zeros(6, 2)))
    torch.testing.assert_close(rate, (log_q - torchs(mixture.logits, mixture.h).log_prob(z))[:, None])


@torch.no_grad()
def test_draws_of_a_mixture_have_its_moments(mixture: Mixture) -> None:
    n = 50_000
    z = mixture.given(unused, Diagonal()).sample(NoiseStream(0), n)
    exact = torchs(mixture.logits, mixture.h)
    assert ((z.mean(0) - exact.mean).abs() < 5 * (exact.variance / n).sqrt()).all()
    assert z.var(0).div(exact.variance).sub(1).abs().max() < 0.05
    # which says the weights, as two numbers of one component would not
    expected = torchs(mixture.logits, mixture.h).sample((n,))
    assert (z[:, 0] > 0).float().mean().item() == pytest.approx((expected[:, 0] > 0).float().mean().item(), abs=0.015)


def test_a_draw_depends_on_its_row_alone(mixture: Mixture) -> None:
    density = mixture.given(unused, Diagonal())
    parts = torch.cat([density.sample(NoiseStream(0), 5), density.sample(NoiseStream(0, 5), 3)])
    assert torch.equal(density.sample(NoiseStream(0), 8), parts)


class Shifted(nn.Module):
    """x, y -> (x + y, log ½)."""

    def forward(self, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        mu = x if y is None else x + y[:, None]
        return torch.cat([mu, torch.full_like(x, 0.5).log()], dim=1)


@pytest.mark.parametrize("classes", [0, 2])
def test_the_vampprior_is_the_mixture_of_posteriors_of_its_pseudo_inputs(classes: int) -> None:
    torch.manual_seed(0)
    prior, encode = VampPrior([2], 5, 1.0, classes), Shifted()
    labels = torch.tensor([0, 1, 0, 1, 0]) if classes else None
    z = torch.randn(6, 2)
    density = prior.given(encode, Diagonal())
    exact = torchs(torch.zeros(5), encode(prior.u, labels))
    torch.testing.assert_close(density.log_prob(z), exact.log_prob(z))
    assert density.sample(NoiseStream(0), 3).shape == (3, 2)
    (gradient,) = torch.autograd.grad(density.log_prob(z).sum(), prior.u)
    assert gradient.abs().min() > 0


def test_pseudo_inputs_begin_with_the_spread() -> None:
    torch.manual_seed(0)
    u = VampPrior([2, 3], 5000, 0.5, 0).u
    assert u.shape == (5000, 2, 3)
    assert u.std().item() == pytest.approx(0.5, rel=0.02)
    assert VampPrior([2], 5, 0.0, 0).u.abs().max() == 0


@pytest.mark.parametrize("make", [lambda: Mixture(2, 0), lambda: VampPrior([2], 0, 1.0, 0)])
def test_a_prior_of_nothing_is_refused(make) -> None:
    with pytest.raises(GenlabError, match="at least 1"):
        make()
    with pytest.raises(GenlabError, match="spread=nan"):
        VampPrior([2], 1, float("nan"), 0)
