"""The linear-Gaussian VAE: p(x), the posterior and every gap between them are known."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from genlab.codec import Vectors
from genlab.likelihood_heads import Gaussian
from genlab.noise import NoiseStream
from genlab.paradigms.vae import VAE

DIM, LATENT, NOISE = 3, 2, 0.6
BASIS = torch.linalg.qr(torch.tensor([[1.0, 2.0], [0.5, -1.0], [-1.0, 0.3]]).double()).Q
WEIGHT, BIAS = BASIS * torch.tensor([0.8, 1.7]), torch.tensor([0.3, -0.5, 1.0]).double()  # of orthogonal columns
EXACT = MultivariateNormal(BIAS, WEIGHT @ WEIGHT.T + NOISE**2 * torch.eye(DIM))
POSTERIOR_VARIANCE = 1 / (1 + (WEIGHT**2).sum(0) / NOISE**2)  # diagonal, as the columns are orthogonal


class Affine(nn.Linear):
    """x, y -> (A x + b, c): means and constant log standard deviations."""

    def __init__(self, weight, bias, log_s):
        super().__init__(weight.shape[1], 2 * len(weight), dtype=torch.float64)
        with torch.no_grad():
            self.weight.copy_(torch.cat([weight, torch.zeros_like(weight)]))
            self.bias.copy_(torch.cat([bias, log_s]))

    def forward(self, x, y=None):
        return super().forward(x.double())


@pytest.fixture
def build(common):
    """A VAE whose q is the posterior, moved by `shift` and stretched by `stretch`."""

    def build(shift=0.0, stretch=1.0, beta=1.0, importance=1, noisy=False, scale=1.0):
        slope = POSTERIOR_VARIANCE[:, None] * WEIGHT.T / NOISE**2
        return VAE(
            encoder=Affine(slope, shift - slope @ BIAS, (stretch * POSTERIOR_VARIANCE.sqrt()).log()),
            decoder=Affine(WEIGHT, BIAS, torch.full((DIM,), math.log(NOISE), dtype=torch.float64)),
            head=Gaussian(),
            latent=LATENT,
            beta=beta,
            importance=importance,
            noisy=noisy,
            **common(DIM, codec=Vectors(scale)),
        )

    return build


@pytest.fixture
def x():
    torch.manual_seed(0)
    return EXACT.sample((5,))


def q(vae, x):
    mu, log_s = vae.encoder(x).chunk(2, dim=1)
    return Independent(Normal(mu, log_s.exp()), 1)


def divergence_to_posterior(vae, x):
    mean = (x - BIAS) @ WEIGHT / NOISE**2 * POSTERIOR_VARIANCE
    return kl_divergence(q(vae, x), Independent(Normal(mean, POSTERIOR_VARIANCE.sqrt()), 1))


def average(bound):
    """Mean and five standard errors of draws."""
    return bound.mean().item(), 5 * bound.std().item() / math.sqrt(len(bound))


@pytest.mark.parametrize("importance", [1, 7])
def test_bound_is_exact_when_q_is_the_posterior(build, x, importance):
    vae = build(importance=importance)
    assert divergence_to_posterior(vae, x).abs().max() < 1e-12  # the test's own algebra
    torch.testing.assert_close(vae.log_prob(x), EXACT.log_prob(x))


@torch.no_grad()
def test_elbo_misses_the_divergence_to_the_posterior(build, x):
    vae = build(shift=0.3, stretch=1.4)
    for row in x[:, None]:
        mean, error = average(vae.log_prob(row.expand(20_000, -1)))
        assert mean == pytest.approx((EXACT.log_prob(row) - divergence_to_posterior(vae, row)).item(), abs=error)


@torch.no_grad()
def test_bound_rises_with_the_number_of_samples_and_stays_below(build, x):
    rows = x[:1].expand(20_000, -1)
    bounds = [average(build(shift=0.5, stretch=1.4, importance=k).log_prob(rows)) for k in (1, 4, 16, 64)]
    exact = EXACT.log_prob(x[0]).item()
    for (low, low_error), (high, high_error) in zip(bounds, [*bounds[1:], (exact, 0)], strict=True):
        assert low - low_error < high + high_error
    assert bounds[0][0] + bounds[0][1] < bounds[1][0] < bounds[2][0] < exact
    assert bounds[3][0] == pytest.approx(exact, abs=0.02)


@torch.no_grad()
@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_loss_is_distortion_and_weighted_rate(build, x, beta):
    vae = build(shift=0.3, stretch=1.4, beta=beta)
    terms = vae.loss(x, None)
    prior = Independent(Normal(torch.zeros(5, LATENT).double(), 1.0), 1)
    assert terms["rate"].item() == pytest.approx(kl_divergence(q(vae, x), prior).mean().item())
    assert terms["loss"].item() == pytest.approx((terms["distortion"] + beta * terms["rate"]).item())


@torch.no_grad()
def test_loss_is_minus_the_elbo(build, x):
    vae, row = build(shift=0.3, stretch=1.4), x[:1]
    elbo = (EXACT.log_prob(row) - divergence_to_posterior(vae, row)).item()
    _, error = average(vae.log_prob(row.expand(20_000, -1)))
    assert vae.loss(row.expand(20_000, -1), None)["loss"].item() == pytest.approx(-elbo, abs=2 * error)


@torch.no_grad()
@pytest.mark.parametrize("noisy", [False, True], ids=["mean", "noisy"])
def test_samples_have_the_moments_of_the_model(build, noisy):
    n = 50_000
    samples = build(noisy=noisy).sample(NoiseStream(0), n)
    covariance = WEIGHT @ WEIGHT.T + noisy * NOISE**2 * torch.eye(DIM)
    deviation = covariance.diag().sqrt()
    assert ((samples.mean(0) - BIAS).abs() < 5 * deviation / math.sqrt(n)).all()
    assert ((samples.T.cov() - covariance).abs() < 5 * torch.outer(deviation, deviation) * math.sqrt(2 / n)).all()


@torch.no_grad()
@pytest.mark.parametrize("noisy", [False, True], ids=["mean", "noisy"])
def test_a_sample_depends_on_its_row_alone(build, noisy):
    vae = build(noisy=noisy)
    parts = torch.cat([vae.sample(NoiseStream(0), 5), vae.sample(NoiseStream(0, 5), 3)])
    torch.testing.assert_close(vae.sample(NoiseStream(0), 8), parts)


def test_encode_is_the_mean_of_q(build, x):
    vae = build(shift=0.3)
    torch.testing.assert_close(vae.encode(x), q(vae, x).mean)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_bits_of_data_count_the_volume_of_the_codec(build, x, scale):
    """If z = x / scale has density p, x has p(x / scale) / scale^D."""
    scaled = MultivariateNormal(scale * BIAS, scale**2 * EXACT.covariance_matrix)
    vae = build(scale=scale)
    torch.testing.assert_close(vae.nats(scale * x), scaled.log_prob(scale * x))
    torch.testing.assert_close(vae.bits_per_dim(scale * x), -scaled.log_prob(scale * x) / (DIM * math.log(2)))
