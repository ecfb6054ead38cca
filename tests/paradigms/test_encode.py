"""Latents of every family: what they are, what they render, and who has none."""

import pytest
import torch
from torch import nn

from genlab.adversarial.objectives import NonSaturating
from genlab.adversarial.penalties import NoPenalty
from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser, Index, Time
from genlab.gaussian.likelihood import Exact, Gaussian, Hutchinson, ProbabilityFlow
from genlab.gaussian.parametrization import Eps, X
from genlab.gaussian.path import Cosine, Linear
from genlab.gaussian.tables import Table, linear_betas
from genlab.gaussian.times import Steps, Uniform
from genlab.gaussian.weights import Unit
from genlab.likelihood_heads import Gaussian as GaussianHead
from genlab.noise import NoiseStream
from genlab.paradigms.diffusion import Diffusion
from genlab.paradigms.gan import GAN
from genlab.paradigms.vae import VAE
from genlab.variational.objectives import Beta
from genlab.variational.posterior import Diagonal
from genlab.variational.prior import StandardNormal

STD = torch.tensor([0.3, 2.0])


class Unused:
    """No test here samples by steps."""

    needs = "denoiser"

    def check(self, denoiser): ...


class Class(nn.Module):
    """E[x | x_t, y] of data N(y, STD²) on a path, in which the noise is told by t."""

    def __init__(self, path):
        super().__init__()
        self.path, self.sizes = path, []

    def forward(self, x_t, c, y=None):
        self.sizes.append(len(x_t))
        p = self.path(c, 2)
        mean = 0.0 if y is None else y[:, None].to(x_t)
        gain = p.alpha * STD**2 / (p.alpha**2 * STD**2 + p.sigma**2)
        return mean + gain * (x_t - p.alpha * mean)


@pytest.fixture
def diffusion(common):
    def build(path, density=None, classes=0, network=None, parametrization=None, times=None):
        return Diffusion(
            denoiser=Denoiser(
                network or Class(path), path, parametrization or X(), Time(1.0) if times is None else Index()
            ),
            times=times or Uniform(1e-3, path.t_max),
            weight=Unit(),
            sampler=Unused(),
            label_drop=0.0,
            density=density,
            **common(2, classes),
        )

    return build


def test_a_conditional_model_encodes_and_renders_by_label(diffusion):
    """z = (x - y)/STD on the Linear path, which ends in N(0, 1) whatever the class."""
    model = diffusion(Linear(), ProbabilityFlow(Exact(), 1e-5, 1e-6), classes=3)
    x, y = torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1])
    z = model.encode(x, y)
    torch.testing.assert_close(z, (x - y[:, None]) / STD, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.render(z, y), x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.render(z, y.flip(0)), STD * z + y.flip(0)[:, None], rtol=1e-3, atol=1e-4)


def test_rendered_noise_is_a_sample(diffusion):
    """The flow of Cosine from N(0, 1) to N(0, STD²), which starts at σ(t_max) < 1."""
    model = diffusion(Cosine(), ProbabilityFlow(Exact(), 1e-5, 1e-6))
    z = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.render(z), STD * z, rtol=1e-3, atol=1e-4)


def test_repeats_average_the_log_density(diffusion):
    """Of a model with noisy probes, in nats; the mean of the very values that single ones have."""
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    one, five = (diffusion(Linear(), ProbabilityFlow(Hutchinson(Gaussian()), 1e-5, 1e-4, repeats=k)) for k in (1, 5))
    torch.manual_seed(0)
    singles = torch.stack([one.nats(x) for _ in range(5)])
    torch.manual_seed(0)
    torch.testing.assert_close(five.nats(x), singles.mean(0))
    assert singles.std(0).min() > 0


def test_who_has_no_ode_says_so_in_one_line(diffusion):
    table = Table(linear_betas(10, 1e-4, 0.02))
    x = torch.zeros(2, 2)
    for model, remedy in (
        (diffusion(table, network=nn.Identity(), parametrization=Eps(), times=Steps(10)), "train on the path VP"),
        (diffusion(Linear()), "likelihood=hutchinson"),
    ):
        for verb in (model.encode, model.render):
            with pytest.raises(GenlabError, match=remedy) as error:
                verb(x)
            assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("noisy", [False, True])
def test_a_vae_encodes_to_the_mean_and_renders_the_mean(common, noisy):
    """With x = z + noise and unit prior, what the encoder says is what it was built to say: μ = x/2, x̂ = 3 z."""

    class Half(nn.Module):
        def forward(self, x, y=None):
            return torch.cat([x / 2, torch.ones_like(x)], 1)

    class Triple(nn.Module):
        def forward(self, z, y=None):
            return torch.cat([3 * z, torch.zeros_like(z)], 1)

    vae = VAE(
        encoder=Half(),
        decoder=Triple(),
        head=GaussianHead(),
        posterior=Diagonal(),
        prior=StandardNormal(2),
        objective=Beta(1.0, 0),
        latent=2,
        importance=1,
        noisy=noisy,
        **common(2),
    )
    x = torch.randn(4, 2)
    torch.testing.assert_close(vae.encode(x), x / 2)
    torch.testing.assert_close(vae.render(vae.encode(x)), 1.5 * x)
    z = NoiseStream(0).normal((4, 2))
    assert torch.equal(vae.sample(NoiseStream(0), 4), vae.render(z)) is not noisy


def test_a_gan_renders_what_it_samples_and_cannot_encode(common):
    torch.manual_seed(0)

    class Generator(nn.Linear):
        def forward(self, z, y=None):
            return super().forward(z)

    gan = GAN(
        generator=Generator(3, 2),
        discriminator=nn.Identity(),
        objective=NonSaturating(),
        penalty=NoPenalty(),
        latent=3,
        n_critic=1,
        critic_optimizer=None,
        **common(2),
    )
    torch.testing.assert_close(gan.render(NoiseStream(0).normal((4, 3))), gan.sample(NoiseStream(0), 4))
    (frame,) = gan.trajectory(NoiseStream(0), 4)
    assert torch.equal(frame.x_t, frame.x_hat)
    with pytest.raises(GenlabError, match="a GAN has no encoder"):
        gan.encode(torch.zeros(1, 2))
