"""Latent diffusion's autoencoder and its discriminator: published sizes, what they see, and which images they take."""

import pytest
import torch
from torch import nn

from genlab.errors import GenlabError
from genlab.networks.kl import Decoder, Encoder
from genlab.networks.patch import PatchDiscriminator


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_kl_f8_has_the_parameters_of_stable_diffusions_autoencoder() -> None:
    """83,653,863, as its checkpoint has (CompVis/stable-diffusion v1, f8 with 4 channels)."""
    with torch.device("meta"):
        sizes = (3, 256, 128, [1, 2, 4, 4], 2, 8, 4)
        assert parameters(Encoder(*sizes), Decoder(*sizes)) == 83_653_863


def test_the_discriminator_is_pix2pixs() -> None:
    """2.765M parameters in its code's own words, and a receptive field of 70."""
    network = PatchDiscriminator(3, 256, 64, 3).eval()
    assert parameters(network) == 2_765_633
    x = torch.zeros(1, 3, 158, 158, requires_grad=True)
    values = network(x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))
    middle = values.shape[2] // 2
    (gradient,) = torch.autograd.grad(values[0, 0, middle, middle], x)
    rows = gradient.abs().sum((0, 1, 3)).nonzero()[:, 0]
    assert rows[-1] - rows[0] + 1 == 70


def test_latents_see_the_whole_image_and_come_back_in_its_size() -> None:
    torch.manual_seed(0)
    sizes = (1, 16, 8, [1, 2, 2], 1, 4, 3)
    encoder, decoder = Encoder(*sizes), Decoder(*sizes)
    x = torch.randn(2, 1, 16, 16, requires_grad=True)
    h = encoder(x)
    assert h.shape == (2, 6, 4, 4)
    (gradient,) = torch.autograd.grad(h[0, 0, 0, 0], x)
    assert (gradient[0] != 0).all(), "by attention at the bottom"
    assert (gradient[1] == 0).all()
    assert decoder(h[:, :3]).shape == x.shape


@pytest.mark.parametrize(
    ("size", "factor", "multipliers", "message"),
    [
        (30, 4, [1, 2, 4], "divides images of size 30"),
        (32, 3, [1, 2, 4], "network.factor=3: a power of two"),
        (32, 1, [1], "network.factor=1"),
        (32, 4, [1, 2], "network.factor=4 goes with 3 network.multipliers"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(size: int, factor: int, multipliers: list[int], message: str) -> None:
    for network in (Encoder, Decoder):
        with pytest.raises(GenlabError, match=message):
            network(3, size, 8, multipliers, 1, factor, 3)


def test_a_discriminator_of_small_images_has_few_layers() -> None:
    assert PatchDiscriminator(1, 8, 8, 1)(torch.zeros(2, 1, 8, 8)).shape == (2, 1, 2, 2)
    with pytest.raises(GenlabError, match="layers=3: 1 or more, and few enough for images of 8"):
        PatchDiscriminator(1, 8, 8, 3)
