"""The losses of the papers, written by hand; the best possible loss; and where sampling starts."""

import numpy as np
import pytest
import torch
from torch import nn

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser, Index, LogSigma, Time
from genlab.gaussian.grids import Trailing
from genlab.gaussian.parametrization import Eps, ScaledScore, Score, Velocity, X
from genlab.gaussian.path import VE, Linear
from genlab.gaussian.samplers import DDIM, Ancestral, Euler, State
from genlab.gaussian.tables import Levels, Table, linear_betas
from genlab.gaussian.thresholds import Clip
from genlab.gaussian.times import Steps, Uniform
from genlab.gaussian.variances import Large
from genlab.gaussian.weights import SigmaSquared, Unit
from genlab.networks.layers import Sinusoidal
from genlab.networks.mlp import NoisyMLP
from genlab.noise import NoiseStream
from genlab.paradigms.diffusion import Diffusion

TABLE = Table(linear_betas(1000, 1e-4, 0.02))
STD = torch.tensor([0.3, 0.8])


class Start:
    """A sampler that stays where it starts."""

    needs = "denoiser"

    def check(self, path): ...

    def trajectory(self, denoiser, x, noise, y=None):
        yield State(None, x, x)


@pytest.fixture
def build(common):
    def build(
        path=TABLE,
        parametrization=None,
        embedding=None,
        network=None,
        times=None,
        weight=None,
        sampler=None,
        drop=0.0,
        classes=0,
    ):
        torch.manual_seed(0)
        network = network or NoisyMLP(2, 16, 2, classes, Sinusoidal(16))
        return Diffusion(
            denoiser=Denoiser(network, path, parametrization or Eps(), embedding or Index()),
            times=times or Steps(1000),
            weight=weight or Unit(),
            sampler=sampler or Ancestral(10, Trailing(), Large(), Clip()),
            label_drop=drop,
            **common(2, classes),
        )

    return build


@pytest.fixture
def pair():
    return torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0))


def test_loss_of_ddpm(build, pair):
    """E ‖ε - ε_θ(√ᾱ x + √(1 - ᾱ) ε, t)‖², with the 0-based rows of the published table."""
    x, eps = pair
    model, rows, y = build(classes=3), [0, 10, 499, 999], torch.tensor([0, 1, 2, 3])
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[rows]
    x_t = torch.tensor(np.sqrt(bar)[:, None] * x.numpy() + np.sqrt(1 - bar)[:, None] * eps.numpy()).float()
    expected = (eps - model.denoiser.network(x_t, torch.tensor(rows).float(), y)).square().mean()
    loss = model.losses(x, eps, torch.tensor(rows).float() + 1, y)["loss"].mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)


def test_loss_of_ncsn(build, pair):
    """½ E ‖σ s_θ(x + σ ε) + ε‖²."""
    x, eps = pair
    model = build(Levels(0.1, 10.0, 3), Score(), weight=SigmaSquared(), times=Steps(3), sampler=Start())
    sigma, rows = torch.tensor([0.1, 1.0, 10.0, 1.0])[:, None], torch.tensor([0.0, 1.0, 2.0, 1.0])
    score = model.denoiser.network(x + sigma * eps, rows)
    loss = model.losses(x, eps, rows + 1, None)["loss"].mean()
    torch.testing.assert_close(loss, (sigma * score + eps).square().mean() / 2)


def test_loss_of_score_sde(build, pair):
    """E ‖σ s_θ(x + σ ε, ln σ) + ε‖² with σ = σ_min (σ_max/σ_min)^t, the network's output being σ s."""
    x, eps = pair
    model = build(VE(0.01, 50.0), ScaledScore(), LogSigma(), times=Uniform(1e-5))
    t = torch.tensor([0.1, 0.4, 0.7, 1.0])
    sigma = 0.01 * 5000**t
    out = model.denoiser.network(x + sigma[:, None] * eps, sigma.log())
    torch.testing.assert_close(model.losses(x, eps, t, None)["loss"].mean(), (out + eps).square().mean())


def test_loss_of_flow_matching(build, pair):
    """E ‖v_θ((1 - t) x + t ε, t) - (ε - x)‖²."""
    x, eps = pair
    model = build(Linear(), Velocity(), Time(999.0), times=Uniform())
    t = torch.tensor([0.0, 0.3, 0.6, 1.0])[:, None]
    out = model.denoiser.network((1 - t) * x + t * eps, 999 * t[:, 0])
    torch.testing.assert_close(model.losses(x, eps, t[:, 0], None)["loss"].mean(), (out - (eps - x)).square().mean())


class Best(nn.Module):
    """E[ε | x_t] for data N(0, diag(STD²)) on the table."""

    def forward(self, x_t, c, y=None):
        p = TABLE(c + 1, 2)
        return p.sigma * x_t / (p.alpha**2 * STD**2 + p.sigma**2)


@torch.no_grad()
def test_loss_of_the_best_network_is_the_variance_that_is_left(build):
    """Var[ε | x_t] = α²s²/(α²s² + σ²), over all t and both dimensions: noise and times are drawn rightly."""
    n = 50_000
    model = build(network=Best())
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(1)) * STD
    p = TABLE(torch.arange(1.0, 1001.0), 2)
    left = (p.alpha**2 * STD**2 / (p.alpha**2 * STD**2 + p.sigma**2)).mean().item()
    torch.manual_seed(0)
    losses = torch.stack([model.loss(rows, None)["loss"] for rows in x.split(1000)])
    assert losses.mean().item() == pytest.approx(left, abs=5 * losses.std().item() / len(losses) ** 0.5)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_labels_are_dropped_at_their_rate(build, rate):
    n, model = 10_000, build(drop=rate, classes=3)
    y = torch.arange(n) % 3
    torch.manual_seed(0)
    kept = model.drop_labels(y)
    dropped = kept == 3  # the label after the last is "none"
    assert abs(dropped.double().mean() - rate) <= 4 * (rate * (1 - rate) / n) ** 0.5
    assert torch.equal(kept[~dropped], y[~dropped])
    assert kept.dtype == y.dtype
    assert model.drop_labels(None) is None


class Telltale(nn.Module):
    """Answers the label, or -1 where there is none."""

    def forward(self, x, c, y=None):
        return (torch.full((len(x),), -1) if y is None else y)[:, None].expand_as(x).float()


def test_training_sees_the_labels_that_are_left(build):
    model = build(network=Telltale(), parametrization=X(), drop=1.0, classes=3)
    assert model.loss(torch.full((8, 2), 3.0), torch.zeros(8, dtype=torch.long))["loss"].item() == 0
    assert model.loss(torch.full((8, 2), -1.0), None)["loss"].item() == 0


@torch.no_grad()
def test_samples_are_of_the_label_asked_for(build):
    model = build(network=Telltale(), parametrization=X(), sampler=DDIM(5, Trailing(), 0.0), drop=1.0, classes=3)
    y = torch.tensor([2, 0, 1])
    torch.testing.assert_close(model.sample(NoiseStream(0), 3, y), y[:, None].expand(3, 2).float())


def test_sampling_starts_from_the_noise_of_the_path(build):
    """σ(t_max) ε in float32, from the stream's first draw."""
    x = build(VE(0.01, 50.0), ScaledScore(), LogSigma(), times=Uniform(1e-5), sampler=Start()).sample(NoiseStream(3), 4)
    torch.testing.assert_close(x, 50 * NoiseStream(3).normal((4, 2)))


@torch.no_grad()
def test_samples_end_the_trajectory_and_depend_on_their_row_alone(build):
    model = build()
    whole = model.sample(NoiseStream(0), 8)
    *before, last = model.trajectory(NoiseStream(0), 8)
    assert len(before) == 9
    assert torch.equal(last.x_t, whole)
    torch.testing.assert_close(whole, torch.cat([model.sample(NoiseStream(0), 5), model.sample(NoiseStream(0, 5), 3)]))


def test_a_sampler_that_cannot_work_is_refused_before_training(build):
    with pytest.raises(GenlabError, match="use the path VP"):
        build(sampler=Euler(10, Trailing()))


def test_labels_of_samples(build):
    """Drawn evenly where a conditional model is given none; refused by an unconditional one."""
    labels = build(classes=3).labels(NoiseStream(0), 9000, None)
    assert labels.dtype == torch.int64
    assert (labels.bincount(minlength=3) - 3000).abs().max() < 5 * (9000 * 2 / 9) ** 0.5
    assert build().labels(NoiseStream(0), 4, None) is None
    with pytest.raises(GenlabError, match="classes"):
        build().labels(NoiseStream(0), 1, torch.tensor([0]))
