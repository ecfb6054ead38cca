"""The residual pairs of SNGAN and WGAN-GP: their sizes by the papers' tables, blocks and norms written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.networks.resnet_gan import (
    ConditionalBatchNorm,
    Discriminator,
    DownBlock,
    Generator,
    UpBlock,
    plain,
    spectral,
)


def weights(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def convolution(i: int, o: int, k: int) -> int:
    return k * k * i * o + o


def generator_by_hand(channels: list[int], classes: int = 0) -> int:
    """Miyato et al. 2018, tables 3 and 5: a dense layer, residual blocks with two norms and a shortcut each, norm, convolution.

    A norm has a gain and a bias for each channel, of every class where there are classes; the last norm has no class.
    """
    total = 128 * 16 * channels[0] + 16 * channels[0]
    for i, o in zip(channels, channels[1:], strict=False):  # noqa: RUF007
        total += convolution(i, o, 3) + convolution(o, o, 3) + convolution(i, o, 1) + 2 * max(classes, 1) * (i + o)
    return total + 2 * channels[-1] + convolution(channels[-1], 3, 3)


def critic_by_hand(channels: list[int], flat: int, classes: int = 0) -> int:
    """The same tables: the first block has its hidden channels of its output, the others of their input."""
    first, last = channels[0], channels[-1]
    total = convolution(3, first, 3) + convolution(first, first, 3) + convolution(3, first, 1)
    for i, o in zip(channels, channels[1:], strict=False):  # noqa: RUF007
        total += convolution(i, i, 3) + convolution(i, o, 3) + convolution(i, o, 1)
    return total + flat * 2 * convolution(last, last, 3) + last + 1 + classes * last


@pytest.mark.parametrize("classes", [0, 10])
def test_parameters(classes: int) -> None:
    """By the layer tables of the papers, which print no totals; 4.28 and 1.05 million for SNGAN on CIFAR-10."""
    with torch.device("meta"):
        sngan = Generator(128, 3, 32, 128, [2] * 4, classes), Discriminator(3, 32, 128, [1, 1], 2, classes, True, False)
        wgan = Generator(128, 3, 32, 128, [1] * 4, classes), Discriminator(3, 32, 128, [1, 1], 2, classes, False, True)
        down = [1, 2, 4, 8, 16]
        large = (
            Generator(128, 3, 128, 64, [16, 16, 8, 4, 2, 1], classes),
            Discriminator(3, 128, 64, down, 1, classes, True, False),
        )
        middle = (
            Generator(128, 3, 64, 64, [16, 8, 4, 2, 1], classes),
            Discriminator(3, 64, 64, down, 0, classes, True, False),
        )
    assert weights(sngan[0]) == generator_by_hand([256] * 4, classes)
    assert weights(sngan[1]) == weights(wgan[1]) == critic_by_hand([128] * 2, 2, classes)
    assert weights(wgan[0]) == generator_by_hand([128] * 4, classes)
    assert weights(large[0]) == generator_by_hand([1024, 1024, 512, 256, 128, 64], classes)
    assert weights(large[1]) == critic_by_hand([64, 128, 256, 512, 1024], 1, classes)
    assert weights(middle[0]) == generator_by_hand([1024, 512, 256, 128, 64], classes)
    assert weights(middle[1]) == critic_by_hand([64, 128, 256, 512, 1024], 0, classes)
    if not classes:
        assert (weights(sngan[0]), weights(sngan[1])) == (4_276_739, 1_053_825)
        with torch.device("meta"):
            published = Discriminator(3, 32, 128, [1, 1], 2, classes, True, False, bias=False)
        assert weights(published) == 1_053_824


# ------------------------------------------------------------------ norms


def conditional(channels: int, classes: int) -> ConditionalBatchNorm:
    torch.manual_seed(0)
    gain, bias = nn.Linear(classes, channels, bias=False), nn.Linear(classes, channels, bias=False)
    return ConditionalBatchNorm(channels, gain, bias).double()


def test_conditional_batch_norm_of_gain_one_and_bias_zero_is_batch_norm() -> None:
    ours, theirs = conditional(3, 2), nn.BatchNorm2d(3).double()
    for layer in (ours.gain, ours.bias):
        nn.init.zeros_(layer.weight)  # pyright: ignore[reportArgumentType]
    x, c = torch.randn(8, 3, 4, 4, dtype=torch.float64) * 2 + 1, F.one_hot(torch.arange(8) % 2).double()
    torch.testing.assert_close(ours(x, c), theirs(x))
    torch.testing.assert_close(ours.eval()(x, c), theirs.eval()(x))


def test_each_class_has_a_gain_and_a_bias_of_its_own() -> None:
    norm = conditional(3, 2)
    x, y = torch.randn(8, 3, 4, 4, dtype=torch.float64), torch.arange(8) % 2
    centred = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    out = norm(x, F.one_hot(y).double())
    for i, label in enumerate(y):
        gain, bias = 1 + norm.gain.weight[:, label], norm.bias.weight[:, label]  # pyright: ignore
        torch.testing.assert_close(out[i], gain[:, None, None] * centred[i] + bias[:, None, None])


def test_norms_of_a_generator_start_as_batch_norm_for_every_class() -> None:
    torch.manual_seed(0)
    generator, z = Generator(5, 1, 8, 4, [1, 1], 3), torch.randn(6, 5)
    one, other = (generator(z, torch.full((6,), label)) for label in (0, 2))
    assert torch.equal(one, other)
    assert one.std() > 0.01


@pytest.mark.parametrize("make", [lambda: plain(3, 5, 3), lambda: nn.Linear(7, 4), lambda: nn.Embedding(6, 3)])
def test_largest_singular_value_is_one_after_power_iterations(make) -> None:
    torch.manual_seed(0)
    layer = spectral(make)().double()
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(7)  # pyright: ignore
    for _ in range(200):
        weight = layer.weight
    torch.testing.assert_close(torch.linalg.svdvals(weight.flatten(1))[0].item(), 1.0)


def test_spectral_norm_is_of_every_weight_of_the_critic_or_of_none() -> None:
    torch.manual_seed(0)
    for on in (True, False):
        critic = Discriminator(3, 16, 4, [1, 2], 1, 3, spectral_norm=on, mean=False)
        layers = [m for m in critic.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
        assert len(layers) == 3 + 3 + 2 + 2
        assert {hasattr(layer, "parametrizations") for layer in layers} == {on}


# ------------------------------------------------------------------ blocks


def repeated(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def test_up_block_by_its_table() -> None:
    torch.manual_seed(0)
    block = UpBlock(3, 5, plain, lambda channels: conditional(channels, 2)).double()
    x, c = torch.randn(6, 3, 4, 4, dtype=torch.float64), F.one_hot(torch.arange(6) % 2).double()
    h = F.conv2d(repeated(F.relu(block.norm1(x, c))), block.conv1.weight, padding=1)  # pyright: ignore
    h = F.conv2d(F.relu(block.norm2(h, c)), block.conv2.weight, padding=1)  # pyright: ignore
    torch.testing.assert_close(block(x, c), h + F.conv2d(repeated(x), block.skip.weight))  # pyright: ignore


@pytest.mark.parametrize(
    ("inputs", "outputs", "down", "first"),
    [(3, 5, True, True), (3, 5, True, False), (4, 4, True, False), (4, 4, False, False)],
)
def test_down_block_by_its_table(inputs: int, outputs: int, down: bool, first: bool) -> None:
    """The shortcut of the first block is pooled before its convolution, of the others after it; the same."""
    torch.manual_seed(0)
    block = DownBlock(inputs, 6, outputs, plain, down, first).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, inputs, 4, 4, dtype=torch.float64)
    h = x if first else F.relu(x)
    h = F.conv2d(F.relu(F.conv2d(h, *block.conv1.parameters(), padding=1)), *block.conv2.parameters(), padding=1)
    skip = F.conv2d(x, *block.skip.parameters()) if down else x
    expected = F.avg_pool2d(h, 2) + F.avg_pool2d(skip, 2) if down else h + skip
    torch.testing.assert_close(block(x), expected)


def test_projection_adds_the_product_of_features_and_label() -> None:
    torch.manual_seed(0)
    critic = Discriminator(3, 16, 4, [1, 2], 1, 3, spectral_norm=False, mean=False)
    x, y = torch.randn(3, 3, 16, 16), torch.tensor([0, 2, 1])
    phi = critic.blocks(x).sum((2, 3))
    expected = [phi[i] @ (critic.value.weight[0] + critic.label.weight[y[i]]) for i in range(3)]  # pyright: ignore
    torch.testing.assert_close(critic(x, y), torch.stack(expected))
    mean = Discriminator(3, 16, 4, [1, 2], 1, 3, spectral_norm=False, mean=True)
    mean.load_state_dict(critic.state_dict())
    torch.testing.assert_close(16 * mean(x, y), critic(x, y))  # the features have 4 x 4 positions


def test_weights_start_as_the_published_code_has_them() -> None:
    """Uniform in ±√(6/(fan_in + fan_out)), √2 times that for the 3 x 3 of blocks, and in the critic before the norm."""
    torch.manual_seed(0)
    generator = Generator(64, 3, 8, 64, [1, 1], 0)
    block = generator.blocks[0]
    found = {(64, 64, 3): block.conv1.weight, (64, 64, 1): block.skip.weight, (64, 3, 3): generator.last.weight}
    for (i, o, k), weight in found.items():
        gain = math.sqrt(2) if (o, k) == (64, 3) else 1
        limit = gain * math.sqrt(6 / (k * k * (i + o)))
        torch.testing.assert_close(weight.abs().max().item(), limit, rtol=0.02, atol=0)  # pyright: ignore
    assert not any(p.any() for name, p in generator.named_parameters() if name.endswith("bias") and "norm" not in name)
