"""What every network promises: shapes, labels, rows; and the parts that papers fix."""

import pytest
import torch
from torch import nn

from genlab.errors import GenlabError
from genlab.folders import conf_dir
from genlab.networks.adm import ADM
from genlab.networks.autoencoder import Decoder, Encoder
from genlab.networks.dcgan import Discriminator, Generator
from genlab.networks.dit import DiT
from genlab.networks.layers import Cosinusoidal, Fourier, Sinusoidal
from genlab.networks.mlp import MLP, NoisyMLP
from genlab.networks.ncsnpp import NCSNpp
from genlab.networks.unet import UNet

SHAPE = {"channels": 1, "size": 8, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "dropout": 0.0}


def unet(k, **more):
    return UNet(**SHAPE, classes=k, time_embedding=Sinusoidal(8), **more)


def ncsnpp(k, **more):
    embedding = Fourier(16, 1.0)
    taps = {"taps": (1, 3, 3, 1), "residual_input": True}
    return NCSNpp(**SHAPE, **taps, classes=k, time_embedding=embedding, **more)


def ddpmpp(k, **more):
    taps = {"taps": (1, 1), "residual_input": False}
    return NCSNpp(**SHAPE, **taps, classes=k, time_embedding=Sinusoidal(8), **more)


def adm(k, **more):
    style = {"heads": 0, "head_channels": 4, "scale_shift": True, "residual_resampling": True}
    return ADM(**SHAPE, **style, classes=k, time_embedding=Cosinusoidal(8), **more)


def iddpm(k, **more):
    style = {"heads": 2, "head_channels": 0, "scale_shift": False, "residual_resampling": False}
    return ADM(**SHAPE, **style, classes=k, time_embedding=Cosinusoidal(8), **more)


def dit(k, **more):
    return DiT(channels=1, size=8, patch=2, width=8, depth=2, head_channels=4, classes=k, **more)


IMAGE, POINT, LATENT = (1, 8, 8), (2,), (5,)
NETWORKS = {  # builder, shapes of input and output, whether it is told the noise
    "unet": (unet, IMAGE, IMAGE, True),
    "ncsnpp": (ncsnpp, IMAGE, IMAGE, True),
    "ddpmpp": (ddpmpp, IMAGE, IMAGE, True),
    "adm": (adm, IMAGE, IMAGE, True),
    "iddpm": (iddpm, IMAGE, IMAGE, True),
    "dit": (dit, IMAGE, IMAGE, True),
    "noisy-mlp": (lambda k: NoisyMLP(2, 16, 2, k, Fourier(16, 1.0)), POINT, POINT, True),
    "mlp": (lambda k: MLP(2, 3, 16, 3, k), POINT, (3,), False),
    "mlp-critic": (lambda k: MLP(2, 0, 16, 3, k), POINT, (), False),
    "dcgan-generator": (lambda k: Generator(5, 1, 8, 4, k), LATENT, IMAGE, False),
    "dcgan-critic": (lambda k: Discriminator(1, 8, 4, k, batch_norm=True), IMAGE, (), False),
    "wgan-critic": (lambda k: Discriminator(1, 8, 4, k, batch_norm=False), IMAGE, (), False),
    "encoder": (lambda k: Encoder(1, 8, 8, 10, k), IMAGE, (10,), False),
    "decoder": (lambda k: Decoder(5, 8, 8, 2, k), LATENT, (2, 8, 8), False),
}
NOISY = [name for name, (*_, noisy) in NETWORKS.items() if noisy]
PICTURES = [name for name in NOISY if NETWORKS[name][1] == IMAGE]
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


@pytest.mark.parametrize("name", NOISY)
def test_no_label_is_the_label_after_the_last(name):
    """Classifier-free guidance trains and asks the same embedding."""
    build, inputs, _, noisy = NETWORKS[name]
    network = awake(build(3))
    none, last = ask(network, inputs, noisy), ask(network, inputs, noisy, torch.full((4,), 3))
    assert torch.equal(none, last)
    assert not torch.equal(none, ask(network, inputs, noisy, torch.full((4,), 2)))


@pytest.mark.parametrize("name", NOISY)
def test_noise_matters(name):
    build, inputs, *_ = NETWORKS[name]
    network, x = awake(build(0)), torch.ones(2, *inputs, dtype=torch.float64)
    one, other = network(x, torch.tensor([0.3, 0.9], dtype=torch.float64))
    assert (one - other).abs().max() > 1e-6


# ------------------------------------------------------------------ networks of the Gaussian paths


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("classes", [0, 3])
def test_every_parameter_learns(name, classes):
    network = awake(NETWORKS[name][0](classes))
    ask(network, IMAGE, True, torch.tensor([0, 1, 2, 3]) if classes else None).square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not still


@pytest.mark.parametrize("name", PICTURES)
def test_learned_variance_doubles_the_channels(name):
    """F = (mean, variance) with the means first, as OpenAI's code splits them; all of it of full rank."""
    out = ask(awake(NETWORKS[name][0](0, outputs_per_channel=2)), IMAGE, True)
    assert out.shape == (4, 2, 8, 8)
    assert (out[:, 0] - out[:, 1]).abs().amax((1, 2)).min() > 1e-3


@pytest.mark.parametrize("name", ["ncsnpp", "ddpmpp", "adm", "iddpm"])
def test_no_augmentation_is_the_augmentation_of_zeros(name):
    network = awake(NETWORKS[name][0](0, augmentations=3))
    x, c = torch.randn(2, *IMAGE, dtype=torch.float64), torch.rand(2, dtype=torch.float64)
    some = torch.tensor([[0.0, 0, 0], [0, 1, 0]], dtype=torch.float64)
    none, zeros, other = network(x, c), network(x, c, None, some * 0), network(x, c, None, some)
    assert torch.equal(none, zeros)
    assert ((none - other).flatten(1).abs().amax(1) > 1e-6).tolist() == [False, True]


@pytest.mark.parametrize("name", PICTURES)
def test_labels_are_ignored_where_there_are_no_classes(name):
    network = awake(NETWORKS[name][0](0))
    assert torch.equal(ask(network, IMAGE, True), ask(network, IMAGE, True, torch.tensor([0, 1, 2, 9])))


def recipes():
    """The files of conf/network that describe one network of a Gaussian path on pictures."""
    texts = {path.stem: path.read_text() for path in (conf_dir() / "network").glob("*.yaml")}
    ours = {
        name for name, text in texts.items() if any(f"networks.{f}" in text for f in ("unet.", "ncsnpp", "adm", "dit"))
    }
    return sorted(ours | {name for name, text in texts.items() if any(f"  - {parent}\n" in text for parent in ours)})


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_shrinks(name, recipe):
    """Width 32 and one block, the tests' size of any of them, on pictures of 32 x 32; with labels and two outputs."""
    deep = {"depth": 1} if name.startswith("dit") else {"blocks": 1}
    network = recipe(name, (3, 32, 32), 10, width=32, outputs_per_channel=2, **deep).eval()
    x, c, y = torch.randn(2, 3, 32, 32), torch.rand(2), torch.tensor([3, 10])
    with torch.no_grad():
        assert network(x, c, y).shape == (2, 6, 32, 32)


def test_there_are_recipes():
    assert {"unet", "unet_small", "unet_cfm", "ddpmpp", "ncsnpp_deep", "edm_ncsnpp", "adm", "dit_xl"} <= set(recipes())


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
