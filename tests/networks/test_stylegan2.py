"""StyleGAN2: its sizes as published, modulation and resampling against explicit ones, scales, truncation, noise."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d, correlate2d
from torch import Tensor, nn

from genlab.networks.layers import kernel2d
from genlab.networks.stylegan2 import (
    Block,
    Conv,
    Dense,
    Discriminator,
    Generator,
    Mapping,
    StyledConv,
    ToImage,
    activate,
    modulated,
    normalized,
)

TAPS = (1, 3, 3, 1)


def weights(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def small(classes: int = 0, **more) -> Generator:
    torch.manual_seed(0)
    settings = {"latent": 6, "channels": 3, "size": 16, "width": 8, "base": 64, "style": 7, "depth": 2, "taps": TAPS}
    generator = Generator(**settings | {"classes": classes} | more).double()  # pyright: ignore
    for conv in (*generator.convs, *generator.ups):
        nn.init.constant_(conv.strength, 0.3)  # pyright: ignore
    return generator


@pytest.mark.parametrize(
    ("classes", "generator", "critic"), [(0, 19_947_539, 20_720_641), (10, 20_215_315, 23_089_664)]
)
def test_parameters_of_cifar10(classes: int, generator: int, critic: int) -> None:
    """The sum of the layers that the published code prints, those of 512 channels (stylegan2-ada-pytorch, issue 182).

    A mapping layer has 262,656, a convolution 2,622,465, colours 264,195, the start 8,192; with labels the first layer has
    512 more inputs and there is an embedding of 10: 20.2M, as StudioGAN prints for StyleGAN2-ADA. The critic by hand.
    """
    mapping = 262_656 + (512 * 512 + 262_656 + 11 * 512 if classes else 262_656)
    assert generator == mapping + 8_192 + 7 * 2_622_465 + 4 * 264_195
    conv, value = 512 * 512 * 9 + 512, 11 * 512 + 8 * 262_656 + 262_656 if classes else 513
    assert critic == 4 * 512 + 6 * conv + conv + 512 * 9 + (8192 + 1) * 512 + value
    with torch.device("meta"):
        pair = (
            Generator(512, 3, 32, 512, 32768, 512, 2, TAPS, classes),
            Discriminator(3, 32, 512, 32768, 8, TAPS, False, 32, classes),
        )
    assert (weights(pair[0]), weights(pair[1])) == (generator, critic)


def test_parameters_of_ffhq_256() -> None:
    """R3GAN's authors (arXiv:2501.05441) print 24.767 and 24.001 million for StyleGAN2 at 256 x 256, their start."""
    with torch.device("meta"):
        generator = Generator(512, 3, 256, 512, 16384, 512, 8, TAPS, 0)
        critic = Discriminator(3, 256, 512, 16384, 8, TAPS, True, 8, 0)
    assert (weights(generator), weights(critic)) == (24_767_458, 24_001_089)


# ------------------------------------------------------------------ modulation and resampling


def each(x: Tensor, weight: Tensor, style: Tensor, up: bool) -> Tensor:
    """Sample by sample with its own weights; upsampling by zeros, the filter, and only then the convolution."""
    out = []
    for sample, s in zip(x, style, strict=True):
        own = weight * s[None, :, None, None]
        own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            planes = []
            for plane in sample.numpy():
                zeros = np.zeros((2 * plane.shape[0] - 1, 2 * plane.shape[1] - 1))
                zeros[::2, ::2] = plane
                planes.append(convolve2d(zeros, 4 * np.outer(TAPS, TAPS) / 64))  # all of it: 2 H + 2
            out.append(F.conv2d(torch.tensor(np.stack(planes))[None], own)[0])
        else:
            out.append(F.conv2d(sample[None], own, padding=1)[0])
    return torch.stack(out)


@pytest.mark.parametrize("up", [False, True])
def test_modulated_convolution_is_one_with_weights_of_its_own_for_each_sample(up: bool) -> None:
    torch.manual_seed(0)
    x, weight, style = normal(3, 4, 5, 6), normal(7, 4, 3, 3), normal(3, 4)
    kernel = kernel2d(TAPS).double() if up else None
    out = modulated(x, weight, style, kernel)
    assert out.shape == ((3, 7, 10, 12) if up else (3, 7, 5, 6))
    torch.testing.assert_close(out, each(x, weight, style, up), atol=1e-6, rtol=1e-6)


def test_demodulation_makes_variance_one_whatever_the_style() -> None:
    torch.manual_seed(0)
    x, weight = normal(2, 64, 16, 16), normal(32, 64, 3, 3)
    out = modulated(x, weight, torch.tensor([0.01, 50.0], dtype=torch.float64)[:, None] * normal(2, 64).abs())
    torch.testing.assert_close(out[:, :, 1:-1, 1:-1].var((1, 2, 3)), torch.ones(2).double(), rtol=0.1, atol=0)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_demodulation_in_float16_is_that_in_float32(scale: float) -> None:
    """Σ (s w)² of 512 inputs and 3×3 kernels is beyond float16 for styles of 4: the layer would draw zeros."""
    x, weight, style = torch.randn(2, 512, 4, 4), torch.randn(16, 512, 3, 3), scale * (1 + 0.5 * torch.randn(2, 512))
    exact = modulated(x, weight, style)
    with torch.autocast("cpu", torch.float16):
        found = modulated(x.half(), weight, style)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), exact, rtol=0.01, atol=0.01)


def test_images_are_summed_over_resolutions_in_float32() -> None:
    generator = Generator(6, 1, 8, 8, 64, 8, 2, [1, 3, 3, 1], 0).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert generator(torch.randn(2, 6)).dtype == torch.float32


def test_colours_are_modulated_and_not_demodulated() -> None:
    torch.manual_seed(0)
    layer, x, w = ToImage(4, 3, 5).double(), normal(2, 4, 3, 3), normal(2, 5)
    nn.init.normal_(layer.conv.bias)  # pyright: ignore
    s = w @ layer.style.weight.T / math.sqrt(5) + 1
    expected = torch.einsum("oi,bi,bihw->bohw", layer.conv.weight[:, :, 0, 0] / 2, s, x)
    torch.testing.assert_close(layer(x, w), expected + layer.conv.bias[:, None, None])  # pyright: ignore


@pytest.mark.parametrize("size", [1, 3])
def test_convolution_that_halves_filters_first(size: int) -> None:
    torch.manual_seed(0)
    layer, x = Conv(2, 3, size, TAPS).double(), normal(1, 2, 6, 8)
    nn.init.normal_(layer.bias)  # pyright: ignore
    crop = slice(1, -1) if size == 3 else slice(2, -2)  # of the whole convolution, as far as the next one reaches
    planes = [convolve2d(plane, np.outer(TAPS, TAPS) / 64)[crop, crop] for plane in x[0].numpy()]
    for o in range(3):
        pairs = zip(planes, layer.weight[o].detach().numpy(), strict=True)
        full = sum(correlate2d(plane, weight, mode="valid") for plane, weight in pairs)
        expected = torch.tensor(full)[::2, ::2] / math.sqrt(2 * size**2) + layer.bias[o]  # pyright: ignore
        torch.testing.assert_close(layer(x)[0, o], expected)


def test_resampling_keeps_constants() -> None:
    """Away from the borders: an up-sampled and a halved plane of 3 are planes of 3, with weights that average."""
    torch.manual_seed(0)
    x = torch.full((1, 1, 8, 8), 3.0, dtype=torch.float64)
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1, 1] = 1.0
    up = modulated(x, weight, torch.ones(1, 1).double(), kernel2d(TAPS).double())
    torch.testing.assert_close(up[:, :, 2:-2, 2:-2], torch.full_like(up[:, :, 2:-2, 2:-2], 3.0), atol=1e-6, rtol=0)
    layer = Conv(1, 1, 3, TAPS).double()
    with torch.no_grad():
        layer.weight.copy_(3 * weight)
    down = layer(x)
    torch.testing.assert_close(down[:, :, 1:-1, 1:-1], torch.full_like(down[:, :, 1:-1, 1:-1], 3.0))


# ------------------------------------------------------------------ scales


@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_a_dense_layer_starts_with_variance_one_and_learns_at_its_rate(rate: float) -> None:
    torch.manual_seed(0)
    layer, x = Dense(400, 300, rate=rate), torch.randn(500, 400)
    torch.testing.assert_close(layer(x).var().item(), 1.0, rtol=0.03, atol=0)
    before = layer(x)
    with torch.no_grad():
        layer.weight.add_(0.5)
        layer.bias.add_(0.25)
    expected = before + 0.5 * rate * x.sum(1, keepdim=True) / 20 + 0.25 * rate
    torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 3])
def test_a_convolution_starts_with_variance_one(size: int) -> None:
    torch.manual_seed(0)
    out = Conv(64, 128, size)(torch.randn(8, 64, 12, 12))[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(out.var().item(), 1.0, rtol=0.05, atol=0)


def test_mapping_by_its_formula() -> None:
    """Label and z are normalized, each by itself, and joined; two layers at a hundredth of the rate."""
    torch.manual_seed(0)
    mapping, z, y = Mapping(4, 5, 2, 3).double(), normal(2, 4), torch.tensor([0, 2])
    for parameter in mapping.parameters():
        nn.init.normal_(parameter, std=30)

    def unit(x: Tensor) -> Tensor:
        return x / x.square().mean(1, keepdim=True).sqrt()

    label, one, two = mapping.label, *mapping.layers
    h = torch.cat([unit(z), unit(label.weight.T[y] / math.sqrt(3) + label.bias)], dim=1)  # pyright: ignore
    for layer in (one, two):
        h = 0.01 * h @ layer.weight.T / math.sqrt(h.shape[1]) + 0.01 * layer.bias  # pyright: ignore
        h = math.sqrt(2) * torch.where(h > 0, h, 0.2 * h)
    torch.testing.assert_close(mapping(z, y), h)
    torch.testing.assert_close(normalized(100 * z), normalized(z))


# ------------------------------------------------------------------ the generator


def test_generator_adds_images_of_all_resolutions() -> None:
    torch.manual_seed(0)
    generator = small().eval()
    z = normal(2, 6)
    w, noise = generator.style(z, None, 1.0), list(generator.fixed.expand(2, -1).split(generator.areas, 1))
    x = generator.convs[0](generator.start.expand(2, -1, -1, -1), w, noise.pop(0))
    image = generator.images[0](x, w)
    for level in (1, 2):
        x = generator.ups[level - 1](x, w, noise.pop(0))
        x = generator.convs[level](x, w, noise.pop(0))
        image = generator.grow(image) + generator.images[level](x, w)
    assert not noise
    torch.testing.assert_close(generator(z), image)


def test_truncation() -> None:
    """1 changes nothing, 0 is the sample of the mean style whatever z, ½ stands between."""
    generator, z = small(), normal(4, 6)
    for _ in range(3):
        generator(z)
    plain = generator.eval()(z)
    w = generator.mapping(z, None)
    assert torch.equal(generator.style(z, None, 1.0), w)
    torch.testing.assert_close(generator.style(z, None, 0.5), generator.mean + (w - generator.mean) / 2)
    none = generator(z, truncation=0.0)
    torch.testing.assert_close(none, none[:1].expand_as(none))
    assert (none - plain).abs().max() > 1e-3


def test_mean_style_is_a_running_mean_of_training_alone() -> None:
    generator, z = small(), normal(4, 6)
    mean = generator.mapping(z, None).mean(0)
    generator.eval()(z)
    assert not generator.mean.any()
    generator.train()(z)
    torch.testing.assert_close(generator.mean, 0.005 * mean)
    generator(z)
    torch.testing.assert_close(generator.mean, (1 - 0.995**2) * mean)
    assert not generator.mean.requires_grad


def test_noise_is_drawn_in_training_fixed_in_evaluation_or_given() -> None:
    generator, z = small(), normal(1, 6)
    assert generator.noises == 16 + 2 * 64 + 2 * 256
    assert not torch.equal(generator(z), generator(z))
    assert torch.equal(generator.eval()(z), generator(z))
    assert torch.equal(generator(z), generator(z, noise=generator.fixed))
    given = normal(1, generator.noises)
    assert not torch.equal(generator(z), generator(z, noise=given))
    torch.manual_seed(3)
    drawn = generator.train()(z)
    torch.manual_seed(3)
    torch.testing.assert_close(drawn, generator(z, noise=normal(1, generator.noises)))


def test_noise_has_no_say_until_its_strength_is_learned() -> None:
    torch.manual_seed(0)
    layer, x, w = StyledConv(4, 4, 5), torch.randn(2, 4, 6, 6), torch.randn(2, 5)
    assert torch.equal(layer(x, w, torch.randn(2, 36)), layer(x, w, torch.zeros(2, 36)))
    with torch.no_grad():
        layer.strength.fill_(2.0)
        layer.bias.fill_(1e3)  # above the bend of the LeakyReLU
    noise = torch.randn(2, 36)
    difference = layer(x, w, noise) - layer(x, w, 0 * noise)
    expected = math.sqrt(8) * noise.reshape(2, 1, 6, 6).expand(-1, 4, -1, -1)
    torch.testing.assert_close(difference, expected, atol=1e-3, rtol=0)


# ------------------------------------------------------------------ the critic


def test_residual_block_of_the_critic() -> None:
    torch.manual_seed(0)
    plain, skip = Block(4, 6, TAPS, False).double(), Block(4, 6, TAPS, True).double()
    x = normal(2, 4, 8, 8)
    torch.testing.assert_close(plain(x), activate(plain.conv2(activate(plain.conv1(x)))))
    skip.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        skip.skip[1].weight.zero_()  # pyright: ignore
    torch.testing.assert_close(skip(x), plain(x) / math.sqrt(2))
    with torch.no_grad():
        skip.skip[1].weight[0, 1] = 2.0  # pyright: ignore
    halved = torch.tensor(
        convolve2d(x[0, 1].numpy(), np.outer(TAPS, TAPS) / 64)[2:-1:2, 2:-1:2]
    )  # with one row of zeros
    torch.testing.assert_close((skip(x) - plain(x) / math.sqrt(2))[0, 0], halved / math.sqrt(2))


def test_label_of_the_critic_is_an_inner_product() -> None:
    torch.manual_seed(0)
    critic, x, y = Discriminator(3, 16, 8, 64, 2, TAPS, False, 2, 3).double(), normal(4, 3, 16, 16), torch.arange(4) % 3
    features = []
    critic.value.register_forward_hook(lambda _, inputs, out: features.append(out))
    value = critic(x, y)
    label = critic.mapping(normal(4, 0), y)  # pyright: ignore
    torch.testing.assert_close(value, (features[0] * label).sum(1) / math.sqrt(8))


def test_critic_sees_how_different_its_samples_are() -> None:
    torch.manual_seed(0)
    critic = Discriminator(3, 8, 8, 64, 2, TAPS, False, 4, 0).double()
    x = normal(1, 3, 8, 8).expand(4, -1, -1, -1)
    together, alone = critic(x), critic.eval()(x[:1])
    torch.testing.assert_close(together, alone.expand(4))  # four equal ones have no more spread than one
    assert (critic(torch.cat([x[:3], normal(1, 3, 8, 8)]))[:3] - together[:3]).abs().min() > 1e-6
