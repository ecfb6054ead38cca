"""The linear-Gaussian ladder: p(x), every posterior and every gap between them are known."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from genlab.codec import Vectors
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.likelihood_heads import DiscretizedLogistic, Gaussian
from genlab.noise import NoiseStream
from genlab.paradigms.hvae import HVAE, Moments
from genlab.variational.ladder import Absolute, Residual
from genlab.variational.objectives import Beta, FreeBits, ImportanceWeighted, TotalCorrelation
from genlab.variational.spectral import SpectralRegularization
from genlab.variational.temperature import Temperature

DIM, LEVELS, NOISE = 3, 3, 0.6
OF_ABOVE = torch.tensor([[0.0, 0, 0], [0.7, 0, 0], [-0.4, 0.9, 0]]).double()  # z_l of z above
OFFSET, SCALE = torch.tensor([0.2, -0.3, 0.5]).double(), torch.tensor([1.3, 0.8, 0.6]).double()
WEIGHT = torch.tensor([[0.5, -0.2, 1.0], [0.3, 0.8, -0.6], [-1.0, 0.4, 0.7]]).double()
BIAS = torch.tensor([0.3, -0.5, 1.0]).double()
# z = M (offset + scale ε), M = (I - A)⁻¹
MIX = torch.linalg.inv(torch.eye(LEVELS).double() - OF_ABOVE)
MEAN_Z, COV_Z = MIX @ OFFSET, MIX @ torch.diag(SCALE**2) @ MIX.T
EXACT = MultivariateNormal(WEIGHT @ MEAN_Z + BIAS, WEIGHT @ COV_Z @ WEIGHT.T + NOISE**2 * torch.eye(DIM))
GAIN = COV_Z @ WEIGHT.T @ torch.linalg.inv(EXACT.covariance_matrix)
POSTERIOR_COV = COV_Z - GAIN @ WEIGHT @ COV_Z


def posterior_mean(x):
    return MEAN_Z + (x - EXACT.mean) @ GAIN.T


class Ladder(nn.Module):
    """Levels of one number each, in every one of which q is the posterior given those above, moved and stretched."""

    shapes = [(1, 1, 1)] * LEVELS

    def __init__(self, residual, shift, stretch):
        super().__init__()
        self.residual, self.shift, self.stretch = residual, shift, stretch
        self.seen = []  # z of each level, of the last way down

    def forward(self, eps, latent, y=None, features=None):
        eps = eps.double()
        above = eps.new_zeros(len(eps), 0)
        for level in range(LEVELS):
            mu_p = OFFSET[level] + above @ OF_ABOVE[level, :level]
            p = torch.stack([mu_p, SCALE[level].log().expand(len(eps))], dim=1)
            h = None
            if features is not None:
                mean, s = conditional(features, above, level, self.shift, self.stretch)
                h = torch.stack([mean, s.log().expand(len(eps))], dim=1)
                if self.residual:
                    h = h - p
            z = latent(p[:, :, None, None], None if h is None else h[:, :, None, None], eps[:, level, None, None, None])
            above = torch.cat([above, z[:, :, 0, 0]], dim=1)
        self.seen = above
        return torch.cat([above @ WEIGHT.T + BIAS, torch.full((len(eps), DIM), math.log(NOISE))], dim=1)


def conditional(x, above, level, shift=0.0, stretch=1.0):
    """Mean (B,) and deviation of p(z_l | x, z above), moved and stretched."""
    mean, cov = posterior_mean(x), POSTERIOR_COV
    if not level:
        return mean[:, 0] + shift, stretch * cov[0, 0].sqrt()
    slope = torch.linalg.solve(cov[:level, :level], cov[:level, level])
    variance = cov[level, level] - slope @ cov[:level, level]
    return mean[:, level] + (above - mean[:, :level]) @ slope + shift, stretch * variance.sqrt()


def q(x, shift, stretch):
    """The Gaussian that a ladder moved and stretched draws z from, for one x."""
    origin = torch.zeros(1, LEVELS).double()
    rows, slopes = torch.zeros(LEVELS).double(), torch.zeros(LEVELS, LEVELS).double()
    s = torch.zeros(LEVELS).double()
    for level in range(LEVELS):
        rows[level], s[level] = (part.squeeze() for part in conditional(x, origin[:, :level], level, shift, stretch))
        for j in range(level):
            one = torch.eye(LEVELS).double()[j : j + 1, :level]
            slopes[level, j] = conditional(x, one, level, shift, stretch)[0] - rows[level]
    mix = torch.linalg.inv(torch.eye(LEVELS).double() - slopes)
    return MultivariateNormal(mix @ rows, mix @ torch.diag(s**2) @ mix.T)


@pytest.fixture
def build(common):
    def build(shift=0.0, stretch=1.0, residual=False, importance=1, noisy=False, objective=None, **more):
        chosen = {
            "encoder": nn.Identity(),
            "decoder": Ladder(residual, shift, stretch),
            "head": Gaussian(),
            "parametrization": Residual() if residual else Absolute(),
            "objective": objective or Beta(1.0, 0),
            "importance": importance,
            "noisy": noisy,
        }
        model = HVAE(**chosen | more, **common(DIM, codec=Vectors(1.0)))
        model.encoder.forward = lambda x, y=None: x
        return model

    return build


@pytest.fixture
def x():
    torch.manual_seed(0)
    return EXACT.sample((5,))


def average(bound):
    """Mean and five standard errors of draws."""
    return bound.mean().item(), 5 * bound.std().item() / math.sqrt(len(bound))


@pytest.mark.parametrize("residual", [False, True], ids=["absolute", "residual"])
@pytest.mark.parametrize("importance", [1, 7])
def test_bound_is_exact_when_every_level_has_its_posterior(build, x, importance, residual):
    torch.testing.assert_close(q(x[:1], 0.0, 1.0).covariance_matrix, POSTERIOR_COV)  # the test's own algebra
    torch.testing.assert_close(build(importance=importance, residual=residual).log_prob(x), EXACT.log_prob(x))


@torch.no_grad()
def test_elbo_misses_the_divergence_to_the_posterior(build, x):
    model = build(shift=0.2, stretch=1.3)
    for row in x[:2, None]:
        gap = kl_divergence(q(row, 0.2, 1.3), MultivariateNormal(posterior_mean(row)[0], POSTERIOR_COV))
        mean, error = average(model.log_prob(row.expand(20_000, -1)))
        assert mean == pytest.approx((EXACT.log_prob(row) - gap).item(), abs=error)
        terms = model.loss(row.expand(20_000, -1), None)
        assert -terms["loss"].item() == pytest.approx((EXACT.log_prob(row) - gap).item(), abs=2 * error)


@torch.no_grad()
def test_bound_rises_with_the_number_of_samples_and_stays_below(build, x):
    rows = x[:1].expand(20_000, -1)
    models = [build(shift=0.3, stretch=1.4, importance=k) for k in (1, 4, 16, 64)]
    assert [model.bound for model in models] == ["ELBO", "IW-4", "IW-16", "IW-64"]
    bounds = [average(model.log_prob(rows)) for model in models]
    exact = EXACT.log_prob(x[0]).item()
    assert bounds[0][0] + bounds[0][1] < bounds[1][0] < bounds[2][0] < bounds[3][0] + bounds[3][1]
    assert bounds[2][0] < exact
    assert bounds[3][0] == pytest.approx(exact, abs=0.02)


@torch.no_grad()
def test_rates_of_levels_add_up_to_the_divergence_from_the_prior(build, x):
    """Σ_l E KL(q_l ‖ p_l) = KL(q(z | x) ‖ p(z)), and the first is that of z_0 alone."""
    row = x[:1]
    terms = build(shift=0.2, stretch=1.3).loss(row.expand(20_000, -1), None)
    whole = kl_divergence(q(row, 0.2, 1.3), MultivariateNormal(MEAN_Z, COV_Z)).item()
    assert terms["rate"].item() == pytest.approx(whole, rel=0.02)
    assert sum(terms[f"rate/{level}"] for level in range(LEVELS)).item() == pytest.approx(terms["rate"].item())
    mean, s = conditional(row, torch.zeros(1, 0), 0, 0.2, 1.3)
    top = torch.distributions.Normal(mean, s), torch.distributions.Normal(OFFSET[0], SCALE[0])
    assert terms["rate/0"].item() == pytest.approx(kl_divergence(*top).item())


@torch.no_grad()
def test_free_bits_are_free_by_level(build, x):
    terms = build().loss(x, None)
    rates = [terms[f"rate/{level}"].item() for level in range(LEVELS)]
    free = sorted(rates)[1] + 1e-3  # so that two levels are below
    torch.manual_seed(1)
    charged = build(objective=FreeBits(free, 1)).loss(x, None)["charged"].item()
    assert charged == pytest.approx(2 * free + max(rates), rel=0.2)
    assert charged > terms["rate"].item()


@torch.no_grad()
def test_lipschitz_constants_have_their_price_in_training_alone(build, x):
    """That of one number as a convolution is its size."""
    convolution = nn.Conv2d(1, 1, 1)
    model = build(encoder=convolution, regularization=SpectralRegularization(0.5, 1))
    terms, price = {}, 0.5 * convolution.weight.abs().item()
    for training in (True, False):
        torch.manual_seed(1)
        terms[training] = model.train(training).loss(x, None)
    assert terms[True]["spectral"].item() == pytest.approx(price)
    assert terms[True]["loss"].item() == pytest.approx(terms[False]["loss"].item() + price)
    assert "spectral" not in terms[False]


@torch.no_grad()
def test_importance_weighted_training_minimizes_its_own_bound(build, x):
    row = x[:1].expand(20_000, -1)
    bound, error = average(build(shift=0.3, stretch=1.4, importance=8).log_prob(row))
    terms = build(shift=0.3, stretch=1.4, objective=ImportanceWeighted(8)).loss(row, None)
    assert terms["loss"].item() == pytest.approx(-bound, abs=2 * error)


@torch.no_grad()
@pytest.mark.parametrize("noisy", [False, True], ids=["mean", "noisy"])
def test_samples_have_the_moments_of_the_model_and_depend_on_their_row_alone(build, noisy):
    model, n = build(noisy=noisy), 50_000
    samples = model.sample(NoiseStream(0), n).double()
    covariance = EXACT.covariance_matrix - (not noisy) * NOISE**2 * torch.eye(DIM)
    deviation = covariance.diag().sqrt()
    assert ((samples.mean(0) - EXACT.mean).abs() < 5 * deviation / math.sqrt(n)).all()
    assert ((samples.T.cov() - covariance).abs() < 5 * torch.outer(deviation, deviation) * math.sqrt(2 / n)).all()
    parts = torch.cat([model.sample(NoiseStream(0), 5), model.sample(NoiseStream(0, 5), 3)])
    assert torch.equal(samples[:8], parts.double())


@torch.no_grad()
def test_a_temperature_scales_the_deviation_of_every_level(build):
    """At t the model is the same with s_p t; at 0 it is one image."""
    n, t = 50_000, 0.5
    samples = build(sampler=Temperature(t)).sample(NoiseStream(0), n).double()
    covariance = t**2 * (WEIGHT @ COV_Z @ WEIGHT.T)
    deviation = covariance.diag().sqrt()
    assert ((samples.mean(0) - EXACT.mean).abs() < 5 * deviation / math.sqrt(n)).all()
    assert ((samples.T.cov() - covariance).abs() < 5 * torch.outer(deviation, deviation) * math.sqrt(2 / n)).all()
    cold = build(sampler=Temperature(0.0)).sample(NoiseStream(0), 3)
    torch.testing.assert_close(cold.double(), EXACT.mean.expand(3, -1))
    with pytest.raises(GenlabError, match="temperature=-1"):
        Temperature(-1.0)


@torch.no_grad()
def test_a_code_is_where_the_posterior_lies_in_the_coordinates_of_the_prior(build, x):
    """So rendering it gives the mean of p(x | E z), and its level l does not move what is above."""
    model = build()
    code = model.encode(x)
    torch.testing.assert_close(model.render(code), posterior_mean(x) @ WEIGHT.T + BIAS)
    z = model.decoder.seen
    torch.testing.assert_close(z, posterior_mean(x))
    for level in range(LEVELS):
        other = code.clone()
        other[:, level] = torch.randn(len(x)).double()
        model.render(other)
        assert torch.equal(model.decoder.seen[:, :level], z[:, :level])
        assert (model.decoder.seen[:, level] != z[:, level]).all()


@torch.no_grad()
def test_active_latents_are_counted_by_level(build, x):
    model = build()
    for part in EXACT.sample((200,)).split(64):
        model.validation_step(Batch(part, None), 0)
    told = model.validated()
    assert told["active_units"].item() == sum(told[f"active/{level}"].item() for level in range(LEVELS)) == LEVELS
    assert told["collapsed"].item() == 0
    rows = torch.randn(300, 4)
    moments = Moments()
    for part in rows.split(70):
        moments.add(part)
    torch.testing.assert_close(moments.variance(), rows.double().var(0, correction=0))


@torch.no_grad()
def test_levels_that_stay_silent_are_named_once(build, capsys):
    """The middle level's q is its prior, at the second pass for the first time worth a word."""
    model, said = build(residual=True), []
    ladder = model.decoder.forward

    def deaf(eps, latent, y=None, features=None):
        calls = iter(range(LEVELS))
        return ladder(eps, lambda p, h, e: latent(p, h * (next(calls) != 1), e), y, features)

    for heard in (False, False, False, True, False):
        model.decoder.forward = ladder if heard else deaf
        model.validation_step(Batch(EXACT.sample((64,)), None), 0)
        told = model.validated()
        assert told["collapsed"].item() == (0 if heard else 1)
        said.append(("level 1 of 3" in capsys.readouterr().err, "alarm" in told))
    assert said == [(False, False), (True, True), (False, True), (False, False), (False, False)]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"importance": 0}, "1 sample"),
        ({"head": DiscretizedLogistic(17)}, "17 levels"),
        ({"objective": TotalCorrelation(1.0, 1.0, 1.0, 10)}, "flat VAE"),
    ],
)
def test_what_does_not_fit_is_one_line(build, x, choice, message):
    with pytest.raises(GenlabError, match=message):
        build(**choice).loss(x, None)


def test_data_that_are_no_numbers_are_refused(build, x):
    x[0, 0] = math.nan
    with pytest.raises(GenlabError, match="not finite"):
        build().loss(x, None)
    with pytest.raises(GenlabError, match="not finite"):
        build().log_prob(x)
