"""What every network promises: shapes, labels, rows; and the parts that papers fix."""

import math

import pytest
import torch
from torch import nn

from genlab.errors import GenlabError
from genlab.networks.autoencoder import Decoder, Encoder
from genlab.networks.dcgan import Discriminator, Generator
from genlab.networks.mlp import MLP, NoisyMLP
from genlab.networks.unet import Attention, Fourier, Sinusoidal, UNet


def unet(classes=0, channels=1, width=8, size=8, multipliers=(1, 2), blocks=1, attention=(4,)):
    return UNet(channels, size, width, multipliers, blocks, attention, 0.0, classes, Sinusoidal(width))


IMAGE, POINT, LATENT = (1, 8, 8), (2,), (5,)
NETWORKS = {  # builder, shapes of input and output, whether it is told the noise
    "unet": (unet, IMAGE, IMAGE, True),
    "noisy-mlp": (lambda k: NoisyMLP(2, 16, 2, k, Fourier(16, 1.0)), POINT, POINT, True),
    "mlp": (lambda k: MLP(2, 3, 16, 3, k), POINT, (3,), False),
    "mlp-critic": (lambda k: MLP(2, 0, 16, 3, k), POINT, (), False),
    "dcgan-generator": (lambda k: Generator(5, 1, 8, 4, k), LATENT, IMAGE, False),
    "dcgan-critic": (lambda k: Discriminator(1, 8, 4, k, batch_norm=True), IMAGE, (), False),
    "wgan-critic": (lambda k: Discriminator(1, 8, 4, k, batch_norm=False), IMAGE, (), False),
    "encoder": (lambda k: Encoder(1, 8, 8, 10, k), IMAGE, (10,), False),
    "decoder": (lambda k: Decoder(5, 8, 8, 2, k), LATENT, (2, 8, 8), False),
}
every = pytest.mark.parametrize(("build", "inputs", "outputs", "noisy"), NETWORKS.values(), ids=NETWORKS)


def awake(network):
    """In float64 and evaluation mode, with no weight at zero."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.double().eval()


def ask(network, inputs, noisy, y=None, n=4):
    generator = torch.Generator().manual_seed(1)
    x, c = (torch.randn(64, *shape, dtype=torch.float64, generator=generator)[:n] for shape in (inputs, ()))
    return network(x, c, y) if noisy else network(x, y)


@every
@pytest.mark.parametrize("classes", [0, 3])
def test_shapes(build, inputs, outputs, noisy, classes):
    y = torch.tensor([0, 1, 2, 2]) if classes else None
    assert ask(awake(build(classes)), inputs, noisy, y).shape == (4, *outputs)


@every
def test_labels_matter_where_there_are_classes(build, inputs, outputs, noisy):
    network = awake(build(3))
    zeros, mixed = (ask(network, inputs, noisy, torch.tensor(y)) for y in ([0, 0, 0, 0], [0, 1, 2, 0]))
    changed = (zeros - mixed).flatten(1).abs().amax(1) if outputs else (zeros - mixed).abs()
    assert (changed > 1e-6).tolist() == [False, True, True, False]


@every
def test_rows_do_not_mix_in_evaluation(build, inputs, outputs, noisy):
    network = awake(build(0))
    torch.testing.assert_close(ask(network, inputs, noisy, n=1), ask(network, inputs, noisy, n=4)[:1])


@pytest.mark.parametrize("name", ["unet", "noisy-mlp"])
def test_no_label_is_the_label_after_the_last(name):
    """Classifier-free guidance trains and asks the same embedding."""
    build, inputs, _, noisy = NETWORKS[name]
    network = awake(build(3))
    none, last = ask(network, inputs, noisy), ask(network, inputs, noisy, torch.full((4,), 3))
    assert torch.equal(none, last)
    assert not torch.equal(none, ask(network, inputs, noisy, torch.full((4,), 2)))


@pytest.mark.parametrize("name", ["unet", "noisy-mlp"])
def test_noise_matters(name):
    build, inputs, *_ = NETWORKS[name]
    network, x = awake(build(0)), torch.ones(2, *inputs, dtype=torch.float64)
    one, other = network(x, torch.tensor([0.3, 0.9], dtype=torch.float64))
    assert (one - other).abs().max() > 1e-6


# ------------------------------------------------------------------ the U-Net


def test_unet_of_ddpm_has_its_parameters():
    """CIFAR-10: 35.7 million (Ho et al. 2020, appendix B), of which the published code counts 35,746,307."""
    with torch.device("meta"):
        network = unet(channels=3, size=32, width=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,))
    assert sum(p.numel() for p in network.parameters()) == 35_746_307


def test_unet_starts_at_zero():
    """The last layer, and so the first prediction, is 0 exactly."""
    torch.manual_seed(0)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(unet()(x, torch.ones(2)), torch.zeros_like(x))


def test_attention_starts_as_the_identity():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(Attention(8)(x, torch.empty(0)), x)


@pytest.mark.parametrize("width", [4, 6, 12, 20, 22, 34, 36])
def test_unet_of_any_even_width(width):
    network = awake(unet(width=width))
    assert ask(network, IMAGE, True).shape == (4, *IMAGE)


@pytest.mark.parametrize(
    "shape",
    [
        {"multipliers": (1,), "attention": ()},
        {"multipliers": (1, 2, 3), "attention": (8, 2), "blocks": 2},
        {"channels": 3, "size": 16, "multipliers": (2, 1, 4)},
    ],
    ids=["one-level", "three-levels", "colour"],
)
def test_unet_of_any_depth(shape):
    image = (shape.get("channels", 1), *[shape.get("size", 8)] * 2)
    assert ask(awake(unet(**shape)), image, True).shape == (4, *image)


def test_attention_is_softmax_over_positions():
    network = awake(Attention(8))
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    q, k, v = network.qkv(network.norm(x)).flatten(2).chunk(3, dim=1)  # (B, C, positions)
    weights = torch.einsum("bcq,bck->bqk", q, k).div(math.sqrt(8)).softmax(2)
    mixed = torch.einsum("bqk,bck->bcq", weights, v).reshape(x.shape)
    torch.testing.assert_close(network(x, torch.empty(0)), x + network.out(mixed))


def test_sinusoidal_frequencies_fall_from_1_to_a_ten_thousandth():
    c = torch.tensor([0.0, 1.0, 1000.0])
    embedding = Sinusoidal(6)(c)
    angles = c[:, None] * torch.tensor([1.0, 0.01, 0.0001])
    torch.testing.assert_close(embedding, torch.cat([angles.sin(), angles.cos()], dim=1), rtol=0, atol=1e-4)


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize("size", [8, 16, 64])
def test_image_sizes(size):
    image = (1, size, size)
    assert ask(awake(Generator(5, 1, size, 4, 0)), LATENT, False).shape == (4, *image)
    assert ask(awake(Discriminator(1, size, 4, 0, True)), image, False).shape == (4,)
    assert ask(awake(Encoder(1, size, 4, 10, 0)), image, False).shape == (4, 10)
    assert ask(awake(Decoder(5, size, 4, 2, 0)), LATENT, False).shape == (4, 2, size, size)


@pytest.mark.parametrize("size", [2, 12, 28])
@pytest.mark.parametrize(
    "build",
    [
        lambda size: Generator(5, 1, size, 4, 0),
        lambda size: Discriminator(1, size, 4, 0, True),
        lambda size: Encoder(1, size, 4, 10, 0),
        lambda size: Decoder(5, size, 4, 2, 0),
    ],
    ids=["generator", "discriminator", "encoder", "decoder"],
)
def test_sizes_that_cannot_be_drawn_are_named(build, size):
    with pytest.raises(GenlabError, match=f"size 8, 16, 32, ..., not {size}"):
        build(size)


def test_generator_stays_in_the_range_of_pixels():
    samples = awake(Generator(5, 1, 8, 4, 0))(torch.full((1, 5), 1e3, dtype=torch.float64))
    assert 0.99 < samples.abs().max() <= 1
