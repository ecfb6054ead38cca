"""What every pair of a GAN promises: shapes, labels, rows, gradients, copies; and their files in conf/network."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.instantiation import build
from genlab.networks import biggan, dcgan, r3gan, resnet_gan, stylegan2

LATENT, SIZE = 6, 16
THREE = (1, 2, 1)  # multipliers at 4, 8 and 16 pixels
TAPS = (1, 3, 3, 1)


def sngan(k: int, size: int = SIZE) -> tuple[nn.Module, nn.Module]:
    critic = resnet_gan.Discriminator(3, size, 4, (1, 2), 1, k, spectral_norm=True, mean=False)
    return resnet_gan.Generator(LATENT, 3, size, 4, THREE, k), critic


def wgan_gp(k: int, size: int = SIZE) -> tuple[nn.Module, nn.Module]:
    critic = resnet_gan.Discriminator(3, size, 4, (1, 2), 1, k, spectral_norm=False, mean=True)
    return resnet_gan.Generator(LATENT, 3, size, 4, THREE, k), critic


def big(k: int, size: int = SIZE) -> tuple[nn.Module, nn.Module]:
    critic = biggan.Discriminator(3, size, 8, (1, 2), 1, (8,), k)
    return biggan.Generator(LATENT, 3, size, 8, THREE, (8,), 5, k), critic


def style(k: int, size: int = SIZE, residual: bool = False) -> tuple[nn.Module, nn.Module]:
    critic = stylegan2.Discriminator(3, size, 8, 64, 2, TAPS, residual, 1, k)
    return stylegan2.Generator(LATENT, 3, size, 8, 64, 7, 2, TAPS, k), critic


def residual_style(k: int, size: int = SIZE) -> tuple[nn.Module, nn.Module]:
    return style(k, size, residual=True)


def r3(k: int, size: int = SIZE) -> tuple[nn.Module, nn.Module]:
    critic = r3gan.Discriminator(3, size, 4, THREE, 1, 2, 4, TAPS, k)
    return r3gan.Generator(LATENT, 3, size, 4, THREE, 1, 2, 4, TAPS, 5, k), critic


Pair = Callable[..., tuple[nn.Module, nn.Module]]
PAIRS: list[Pair] = [sngan, wgan_gp, big, style, residual_style, r3]
every = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.__name__)


def awake(pair: Pair, k: int) -> tuple[nn.Module, nn.Module]:
    """In float64, with nothing left at zero, norms and singular vectors settled, then in evaluation mode."""
    torch.manual_seed(0)
    generator, critic = (module.double() for module in pair(k))
    for parameter in [*generator.parameters(), *critic.parameters()]:
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.2)
    z, y = latents(16), torch.arange(16) % k if k else None
    for _ in range(20):
        critic(generator(z, y), y)
    return generator.eval(), critic.eval()


def latents(n: int) -> Tensor:
    return torch.randn(n, LATENT, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def pictures(n: int) -> Tensor:
    return torch.randn(n, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_labels_weigh_no_more_than_features_do_in_the_critic_of_dcgan() -> None:
    """Both sums are of N(0, 0.02²) weights, so that values with labels have √2 times the deviation."""
    x, y = torch.rand(64, 3, 32, 32) * 2 - 1, torch.arange(64) % 10
    critics = [dcgan.Discriminator(3, 32, 32, k, batch_norm=True) for k in (0, 10)]
    with torch.no_grad():
        plain, labelled = (critic(x, y).std().item() for critic in critics)
    assert plain / 2 < labelled < 4 * plain


def test_initial_weights_of_he_keep_the_second_moment_through_dcgan_and_those_of_the_paper_lose_it() -> None:
    """E h² of what a layer gives is 2/fan_in · fan_in · E x² / 2 of what it takes after a ReLU (He et al. 2015, eq. 8)."""
    torch.manual_seed(0)
    x = torch.randn(64, 3, 32, 32)
    values = {}
    with torch.no_grad():
        for std in (None, 0.02):
            critic = dcgan.Discriminator(3, 32, 32, 0, batch_norm=False, init_std=std)
            values[std] = critic(x).pow(2).mean()
            transposed = dcgan.Generator(100, 3, 32, 32, 0, init_std=std).layers[2]
            h = transposed(torch.randn(16, 256, 8, 8).relu())[:, :, 1:-1, 1:-1]  # at the border fewer weights meet
            values["transposed", std] = h.pow(2).mean()
    assert values["transposed", None].item() == pytest.approx(1.0, rel=0.05)
    assert values["transposed", 0.02].item() == pytest.approx(256 * 4 * 0.02**2 / 2, rel=0.05)
    assert 0.2 < values[None] < 5
    assert values[0.02] < 0.01


@pytest.mark.parametrize("std", [0.0, -0.02, float("nan")])
def test_initial_weights_have_a_deviation(std: float) -> None:
    with pytest.raises(GenlabError, match=r"network\.init_std="):
        dcgan.Generator(4, 1, 8, 4, 0, init_std=std)


@every
@pytest.mark.parametrize("k", [0, 3])
def test_shapes(pair: Pair, k: int) -> None:
    generator, critic = awake(pair, k)
    y = torch.tensor([0, 2, 1, 2]) if k else None
    assert generator(latents(4), y).shape == (4, 3, SIZE, SIZE)
    assert critic(pictures(4), y).shape == (4,)


@every
def test_labels_matter_to_both(pair: Pair) -> None:
    generator, critic = awake(pair, 3)
    for network, x in ((generator, latents(4)), (critic, pictures(4))):
        zeros, mixed = (network(x, torch.tensor(y)) for y in ([0, 0, 0, 0], [0, 1, 2, 0]))
        changed = (zeros - mixed).reshape(4, -1).abs().amax(1) > 1e-6
        assert changed.tolist() == [False, True, True, False]


@every
@pytest.mark.parametrize("k", [0, 3])
def test_samples_are_functions_of_their_own_latents_and_labels(pair: Pair, k: int) -> None:
    """In evaluation: not of the batch, nor of the generator of random numbers."""
    generator, _ = awake(pair, k)
    z, y = latents(5), torch.tensor([0, 1, 2, 0, 1]) if k else None
    together = generator(z, y)
    alone = [generator(z[i : i + 1], None if y is None else y[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert (together[0] - together[1]).abs().max() > 1e-6


@every
@pytest.mark.parametrize("k", [0, 3])
def test_gradients_reach_every_parameter(pair: Pair, k: int) -> None:
    """Those of the generator through the critic too."""
    generator, critic = awake(pair, k)
    y = torch.tensor([0, 1, 2, 0]) if k else None
    critic(generator.train()(latents(4), y), y).square().sum().backward()
    for network in (generator, critic):
        dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert not dead


@every
def test_slopes_of_the_critic_may_be_punished(pair: Pair) -> None:
    """R1 and the gradient penalty differentiate twice; the value's own bias alone has no part in a slope."""
    _, critic = awake(pair, 3)
    x = pictures(4).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x, torch.tensor([0, 1, 2, 0])).sum(), x, create_graph=True)
    slope.square().sum().backward()
    gradients = [p.grad for p in critic.parameters() if p.grad is not None]
    assert len(gradients) > 10
    assert all(gradient.isfinite().all() for gradient in gradients)


@every
def test_a_copy_draws_the_same(pair: Pair) -> None:
    """As the running average of the weights is one, and a checkpoint another."""
    generator, _ = awake(pair, 3)
    fresh = pair(3)[0].double().eval()
    fresh.load_state_dict(generator.state_dict())
    z, y = latents(2), torch.tensor([0, 2])
    assert torch.equal(generator(z, y), deepcopy(generator)(z, y))
    assert torch.equal(generator(z, y), fresh(z, y))


@every
def test_smaller_images_have_fewer_stages(pair: Pair) -> None:
    (generator, critic), (large, _) = pair(0, 8), pair(0)
    x = generator(torch.randn(2, LATENT))
    assert x.shape == (2, 3, 8, 8)
    assert critic(x).shape == (2,)
    assert sum(p.numel() for p in generator.parameters()) < sum(p.numel() for p in large.parameters())


@every
@pytest.mark.parametrize("size", [4, 12, 28])
def test_sizes_that_cannot_be_drawn_are_named(pair: Pair, size: int) -> None:
    with pytest.raises(GenlabError, match=f"of size 8, 16.*, not {size}"):
        pair(0, size)


FILES = {
    "sngan": ("sngan", 32),
    "sngan_64": ("sngan", 64),
    "sngan_128": ("sngan", 128),
    "wgan_gp_resnet": ("sngan", 32),
}
FILES |= {name: (name, 32) for name in ("biggan", "stylegan2", "r3gan")}


@pytest.mark.parametrize("name", FILES)
def test_files_shrink_by_their_width(name: str) -> None:
    model, size = FILES[name]
    chosen = [f"model={model}", f"network={name}", f"data.shape=[3,{size},{size}]", "model.classes=10"]
    config = preflight("train", [*chosen, "network.width=8"])
    generator, critic = build(config.model.generator).eval(), build(config.model.discriminator).eval()
    y = torch.tensor([3, 9])
    with torch.no_grad():
        x = generator(torch.randn(2, config.model.latent), y)
        assert x.shape == (2, 3, size, size)
        assert critic(x, y).shape == (2,)
