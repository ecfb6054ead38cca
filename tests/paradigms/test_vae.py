"""The linear-Gaussian VAE: p(x), the posterior and every gap between them are known."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from genlab.codec import Pixels, Vectors
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.likelihood_heads import DiscretizedLogistic, FixedGaussian, Gaussian
from genlab.noise import NoiseStream
from genlab.paradigms.vae import VAE
from genlab.variational.objectives import Beta, ImportanceWeighted, TotalCorrelation
from genlab.variational.posterior import Diagonal
from genlab.variational.prior import StandardNormal

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

    def build(shift=0.0, stretch=1.0, objective=None, importance=1, noisy=False, scale=1.0, **more):
        slope = POSTERIOR_VARIANCE[:, None] * WEIGHT.T / NOISE**2
        chosen = {
            "encoder": Affine(slope, shift - slope @ BIAS, (stretch * POSTERIOR_VARIANCE.sqrt()).log()),
            "decoder": Affine(WEIGHT, BIAS, torch.full((DIM,), math.log(NOISE), dtype=torch.float64)),
            "head": Gaussian(),
            "posterior": Diagonal(),
            "prior": StandardNormal(LATENT),
            "objective": objective or Beta(1.0, 0),
            "latent": LATENT,
            "importance": importance,
            "noisy": noisy,
        }
        return VAE(**chosen | more, **common(DIM, codec=Vectors(scale)))

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
    models = [build(shift=0.5, stretch=1.4, importance=k) for k in (1, 4, 16, 64)]
    assert [model.bound for model in models] == ["ELBO", "IW-4", "IW-16", "IW-64"]
    bounds = [average(model.log_prob(rows)) for model in models]
    exact = EXACT.log_prob(x[0]).item()
    for (low, low_error), (high, high_error) in zip(bounds, [*bounds[1:], (exact, 0)], strict=True):
        assert low - low_error < high + high_error
    assert bounds[0][0] + bounds[0][1] < bounds[1][0] < bounds[2][0] < exact
    assert bounds[3][0] == pytest.approx(exact, abs=0.02)


@torch.no_grad()
@pytest.mark.parametrize("log_s", [-20.0, -3.0])
def test_a_gaussian_learns_from_dequantized_images(build, log_s):
    """E -log N(u; 0, s²), u uniform over a cell: on the lattice itself black images would be worth -log s, without bound."""
    decoder = Affine(torch.zeros(DIM, LATENT), -torch.ones(DIM), torch.full((DIM,), log_s))
    vae, cell = build(decoder=decoder), 2 / 16
    vae.codec = Pixels(17)
    learned = vae.loss(-torch.ones(20_000, DIM), None)["distortion"].item()
    constant = log_s + 0.5 * math.log(2 * math.pi)
    assert learned == pytest.approx(DIM * (0.5 * cell**2 / 12 / math.exp(2 * log_s) + constant), rel=0.02)


@torch.no_grad()
@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_loss_is_distortion_and_weighted_rate(build, x, beta):
    vae = build(shift=0.3, stretch=1.4, objective=Beta(beta, 0))
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


@torch.no_grad()
def test_importance_weighted_training_minimizes_its_own_bound(build, x):
    """-IW-k on average, and with one draw -ELBO."""
    row = x[:1].expand(20_000, -1)
    losses = {}
    for k in (1, 8):
        bound, error = average(build(shift=0.5, stretch=1.4, importance=k).log_prob(row))
        terms = build(shift=0.5, stretch=1.4, objective=ImportanceWeighted(k)).loss(row, None)
        assert terms["loss"].item() == pytest.approx(-bound, abs=2 * error)
        losses[k] = terms["loss"].item()
    assert losses[8] < losses[1] - 0.05


def test_the_bound_says_its_name(build):
    assert build(importance=1).bound == "ELBO"
    assert build(importance=64).bound == "IW-64"


@torch.no_grad()
def test_active_units_are_those_whose_code_tells_of_x(build, x):
    """Var_x E[z_j | x] of a linear encoder is a Σ_x aᵀ; one latent is cut off, and its rate is 0 as q is the prior there."""
    vae = build()
    vae.encoder.weight[1], vae.encoder.bias[1], vae.encoder.bias[3] = 0.0, 0.0, 0.0
    torch.manual_seed(1)
    data = EXACT.sample((256,))
    for part in data.split(100):
        vae.validation_step(Batch(part, None), 0)
    told = vae.validated()
    assert (told["active_units"].item(), told["collapsed"].item()) == (1, 0)
    exact = kl_divergence(Normal(q(vae, data).mean, q(vae, data).stddev), Normal(0.0, 1.0)).mean(0)
    rates = torch.stack([told["rate/0"], told["rate/1"]])
    torch.testing.assert_close(rates, exact.float())
    assert rates[1] == 0
    assert not vae._codes


def test_an_objective_is_told_how_many_training_images_there_are(build):
    objective = TotalCorrelation(1.0, 1.0, 1.0, None)
    source = SimpleNamespace(split=lambda name: Batch(torch.zeros(37 if name == "train" else 5, 2), None))
    vae = build(objective=objective)
    vae.trainer = SimpleNamespace(datamodule=SimpleNamespace(source=source))
    vae.setup("fit")
    assert objective.images == 37


@torch.no_grad()
def test_a_posterior_that_stays_collapsed_is_said_once(build, capsys):
    """Not at the first pass, when nothing is learned yet, nor at the third."""
    vae, said = build(), []
    vae.encoder.weight.zero_()
    for _ in range(3):
        vae.validation_step(Batch(EXACT.sample((8,)), None), 0)
        told = vae.validated()
        assert told["collapsed"].item() == 1
        said.append(("0 of 2 latents" in capsys.readouterr().err, "alarm" in told))
    assert said == [(False, False), (True, True), (False, True)]
    resumed = build()
    resumed.load_state_dict(vae.state_dict())
    resumed.validation_step(Batch(EXACT.sample((8,)), None), 0)
    assert "alarm" in resumed.validated()
    assert "0 of 2 latents" not in capsys.readouterr().err


@torch.no_grad()
def test_a_last_batch_of_one_has_no_terms_of_an_objective_that_compares_images(build):
    vae = build(objective=TotalCorrelation(1.0, 6.0, 1.0, None))
    vae.objective.begin(20)
    assert "correlation" in vae.validation_step(Batch(EXACT.sample((4,)), None), 0)
    assert vae.validation_step(Batch(EXACT.sample((1,)), None), 1) == {}
    assert len(torch.cat(vae._codes)) == 5


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"latent": 0}, "at least 1 latent"),
        ({"importance": 0}, "1 sample"),
        ({"latent": 3}, "encoder.outputs=6"),
        ({"head": FixedGaussian(1.0)}, "decoder.outputs=3"),
        ({"head": DiscretizedLogistic(17)}, "17 levels"),
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
