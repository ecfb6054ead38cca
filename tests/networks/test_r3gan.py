"""R3GAN: its sizes as published, Fix-up's scales, groups written out, and that nothing is normalized."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genlab.errors import GenlabError
from genlab.networks.layers import Down, Up
from genlab.networks.r3gan import GAIN, Discriminator, Generator, Residual

TAPS = (1, 3, 3, 1)


def weights(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameters_of_ffhq_256() -> None:
    """The paper prints 23.058 and 23.010 million for its configuration E at 256 x 256."""
    with torch.device("meta"):
        generator = Generator(64, 3, 256, 96, [8, 8, 8, 8, 4, 2, 1], 2, 2, 16, TAPS, 64, 0)
        critic = Discriminator(3, 256, 96, [8, 8, 8, 8, 4, 2, 1], 2, 2, 16, TAPS, 0)
    assert (weights(generator), weights(critic)) == (23_057_952, 23_009_568)


@pytest.mark.parametrize("classes", [0, 10])
def test_parameters_of_cifar10(classes: int) -> None:
    """From the preset's layers by hand: 8 blocks 768 -> 1536 (1 x 1), 96 groups of 16 (3 x 3), -> 768 (1 x 1), two biases."""
    blocks = 8 * (768 * 1536 + 1536 * 16 * 9 + 1536 * 768 + 2 * 1536)
    label = 64 if classes else 0
    generator = (64 + label) * 768 + 16 * 768 + blocks + 768 * 3 + classes * label
    critic = 3 * 768 + blocks + 16 * 768 + 768 * (768 if classes else 1) + classes * 768
    with torch.device("meta"):
        pair = (
            Generator(64, 3, 32, 768, [1] * 4, 2, 2, 16, TAPS, 64, classes),
            Discriminator(3, 32, 768, [1] * 4, 2, 2, 16, TAPS, classes),
        )
    assert (weights(pair[0]), weights(pair[1])) == (generator, critic)
    assert {m.groups for m in pair[0].modules() if isinstance(m, nn.Conv2d)} == {1, 96}


def test_a_block_is_the_identity_at_first() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 4, 4)
    assert torch.equal(Residual(6, 2, 4, 8)(x), x)


def test_block_by_its_formula() -> None:
    """1 x 1, then 3 x 3 within groups of 4 channels, then 1 x 1; both hidden ones with bias and LeakyReLU of 0.2."""
    torch.manual_seed(0)
    block = Residual(6, 2, 4, 8).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    h = torch.einsum("oi,bihw->bohw", block.conv1.weight[:, :, 0, 0], x) + block.conv1.bias[:, None, None]  # pyright: ignore
    h = torch.where(h > 0, h, 0.2 * h)
    groups = zip(h.split(4, 1), block.conv2.weight.split(4), block.conv2.bias.split(4), strict=True)  # pyright: ignore
    h = torch.cat([F.conv2d(part, weight, bias, padding=1) for part, weight, bias in groups], dim=1)
    h = torch.where(h > 0, h, 0.2 * h)
    expected = x + torch.einsum("oi,bihw->bohw", block.conv3.weight[:, :, 0, 0], h)  # pyright: ignore
    torch.testing.assert_close(block(x), expected)


def test_weights_start_as_fix_up_has_them() -> None:
    """Standard deviation gain · L^(-1/(2m - 2))/√fan_in, m = 3 layers a block, L = 8 blocks; the last layer at 0."""
    torch.manual_seed(0)
    block = Residual(64, 2, 16, 8)
    for weight, fan in ((block.conv1.weight, 64), (block.conv2.weight, 16 * 9)):
        expected = math.sqrt(2 / 1.04) * 8 ** (-1 / 4) / math.sqrt(fan)
        torch.testing.assert_close(weight.std().item(), expected, rtol=0.03, atol=0)  # pyright: ignore
    assert not block.conv3.weight.any()  # pyright: ignore
    torch.testing.assert_close(
        F.leaky_relu(torch.randn(100_000), 0.2).square().mean().item() * GAIN**2, 1.0, rtol=0.02, atol=0
    )


def test_signals_keep_their_size_at_first() -> None:
    """A generator of identities: basis times a unit projection, upsampled, mixed to colours of variance about that."""
    torch.manual_seed(0)
    generator = Generator(64, 3, 32, 128, [1] * 4, 1, 2, 16, TAPS, 64, 0)
    z = torch.randn(32, 64)
    start = generator.basis * generator.project(z)[:, :, None, None]
    torch.testing.assert_close(start.var().item(), 1.0, rtol=0.1, atol=0)
    up = Up(TAPS)
    torch.testing.assert_close(generator(z), generator.last(up(up(up(start)))))


def test_critic_halves_by_the_filter_and_reads_4_x_4_by_channel() -> None:
    torch.manual_seed(0)
    critic = Discriminator(3, 16, 8, [2, 2, 1], 1, 2, 4, TAPS, 3)
    x, y, down = torch.randn(2, 3, 16, 16), torch.tensor([0, 2]), Down(TAPS)
    change = next(m for m in critic.layers if isinstance(m, nn.Conv2d))
    h = down(change(down(critic.first(x))))  # the blocks are identities
    basis = critic.layers[-2].weight[:, 0]  # pyright: ignore
    h = critic.value((h * basis).sum((2, 3)))
    torch.testing.assert_close(critic(x, y), (h * critic.label.weight.T[y]).sum(1))  # pyright: ignore


def test_nothing_is_normalized() -> None:
    for network in (
        Generator(6, 3, 16, 8, [1] * 3, 1, 2, 4, TAPS, 5, 3),
        Discriminator(3, 16, 8, [1] * 3, 1, 2, 4, TAPS, 3),
    ):
        kinds = {type(m).__name__ for m in network.modules()}
        assert not [kind for kind in kinds if "Norm" in kind]
        assert not list(network.state_dict().keys() - dict(network.named_parameters()).keys())


def test_groups_that_do_not_fit_are_named() -> None:
    with pytest.raises(GenlabError, match=r"12 channels into groups of 16: change network.width"):
        Residual(6, 2, 16, 8)
