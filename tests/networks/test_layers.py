"""Initial weights, attention, embeddings and changes of resolution, against their formulas written out."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d
from torch import Tensor, nn

from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.instantiation import build
from genlab.networks.layers import (
    ZERO,
    Conditioning,
    Cosinusoidal,
    Down,
    Fourier,
    Sinusoidal,
    Up,
    attend,
    check_size,
    conv,
    dense,
    kernel2d,
    norm,
    one_hot,
)


@pytest.mark.parametrize("scale", [1.0, 2.0, ZERO])
@pytest.mark.parametrize(("build", "fans"), [((64, 96, 3), 9 * 160), ((96, 64, 1), 160)])
def test_convolution_starts_with_the_published_variance(build: tuple, fans: int, scale: float) -> None:
    """Var w = scale / ((fan_in + fan_out)/2), uniform on ±√(3 Var w), bias 0."""
    torch.manual_seed(0)
    layer = conv(*build, scale=scale)
    variance = scale * 2 / fans
    values = layer.weight.detach().flatten().double()
    torch.testing.assert_close(values.square().mean().item(), variance, rtol=0.05, atol=0)
    torch.testing.assert_close(values.abs().max().item(), math.sqrt(3 * variance), rtol=0.01, atol=0)
    # the fourth moment of a uniform law is 9/5 of its variance squared, that of a normal one 3
    torch.testing.assert_close(values.pow(4).mean().item(), 9 / 5 * variance**2, rtol=0.1, atol=0)
    assert not layer.bias.any()  # pyright: ignore[reportOptionalMemberAccess]


def test_dense_starts_with_the_published_variance() -> None:
    torch.manual_seed(0)
    layer = dense(100, 300)
    torch.testing.assert_close(layer.weight.var().item(), 2 / 400, rtol=0.05, atol=0)
    assert layer.weight.abs().max() <= math.sqrt(6 / 400)
    assert not layer.bias.any()
    assert dense(2, 3, bias=False).bias is None


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (192, 32), (384, 32), (576, 32), (32, 8), (24, 6), (7, 1)])
def test_norm_has_32_groups_where_channels_allow(channels: int, groups: int) -> None:
    assert norm(channels).num_groups == groups
    assert norm(channels).eps == 1e-6
    assert norm(channels, 1e-5).eps == 1e-5


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_softmax_over_positions(heads: int) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(2, 24, 3, 5, dtype=torch.float64)
    q, k, v = (part.reshape(2, heads, 8 // heads, 15) for part in qkv.chunk(3, dim=1))
    weights = torch.einsum("bhdq,bhdk->bhqk", q, k).div(math.sqrt(8 // heads)).softmax(3)
    expected = torch.einsum("bhqk,bhdk->bhdq", weights, v).reshape(2, 8, 3, 5)
    torch.testing.assert_close(attend(qkv, heads), expected)


def test_one_hot_has_no_one_where_there_is_no_label() -> None:
    x = torch.zeros(3, 1)
    assert one_hot(torch.tensor([0, 3, 2]), 3, x).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert one_hot(None, 3, x).tolist() == [[0, 0, 0]] * 3


# ------------------------------------------------------------------ embeddings


def test_sinusoidal_frequencies_fall_from_1_to_a_ten_thousandth() -> None:
    c = torch.tensor([0.0, 1.0, 1000.0])
    angles = c[:, None] * torch.tensor([1.0, 0.01, 0.0001])
    torch.testing.assert_close(Sinusoidal(6)(c), torch.cat([angles.sin(), angles.cos()], dim=1), rtol=0, atol=1e-4)


def test_cosinusoidal_frequencies_stop_short_of_a_ten_thousandth() -> None:
    c = torch.tensor([0.0, 1.0, 1000.0])
    angles = c[:, None] * torch.tensor([1.0, 0.1, 0.01, 0.001])
    torch.testing.assert_close(Cosinusoidal(8)(c), torch.cat([angles.cos(), angles.sin()], dim=1), rtol=0, atol=1e-4)


def test_fourier_features_are_of_period_1_over_the_frequency() -> None:
    torch.manual_seed(0)
    embedding = Fourier(2000, 16.0)
    torch.testing.assert_close(embedding.frequencies.std().item(), 16.0, rtol=0.1, atol=0)
    assert "frequencies" in embedding.state_dict()
    embedding.frequencies.fill_(0.25)
    sin, cos = embedding(torch.tensor([0.0, 1.0, 2.0]))[:, [0, 1000]].T
    torch.testing.assert_close(sin, torch.tensor([0.0, 1.0, 0.0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(cos, torch.tensor([1.0, 0.0, -1.0]), rtol=0, atol=1e-5)


# ------------------------------------------------------------------ changes of resolution


def upfirdn(x: Tensor, taps: list[int], up: int, down: int, pad: tuple[int, int], gain: float) -> Tensor:
    """By definition: zeros between the samples, zeros around, convolution, every down-th sample."""
    kernel = np.outer(taps, taps) / np.sum(taps) ** 2 * gain
    rows = []
    for plane in x.flatten(0, 1).numpy():
        spread = np.zeros([up * n for n in plane.shape])
        spread[::up, ::up] = plane
        rows.append(convolve2d(np.pad(spread, pad), kernel, mode="valid")[::down, ::down])
    return torch.tensor(np.stack(rows)).unflatten(0, x.shape[:2])


TAPS = [[1, 1], [1, 3, 3, 1], [1, 5, 10, 10, 5, 1]]


@pytest.mark.parametrize("taps", TAPS)
def test_down_is_upfirdn(taps: list[int]) -> None:
    """The padding of StyleGAN2: p = n - 2 zeros, ⌈p/2⌉ of them before."""
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = len(taps) - 2
    torch.testing.assert_close(Down(taps).double()(x), upfirdn(x, taps, 1, 2, ((p + 1) // 2, p // 2), 1.0))


@pytest.mark.parametrize("taps", TAPS)
def test_up_is_upfirdn(taps: list[int]) -> None:
    """p = n - 2 zeros, ⌈p/2⌉ + 1 of them before, gain 4. A zero follows each sample, and so one stands at the end."""
    x = torch.randn(2, 3, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = len(taps) - 2
    torch.testing.assert_close(Up(taps).double()(x), upfirdn(x, taps, 2, 1, ((p + 1) // 2 + 1, p // 2), 4.0))


def test_the_shortest_filter_is_mean_and_repetition() -> None:
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Down([1, 1])(x), F.avg_pool2d(x, 2))
    torch.testing.assert_close(Up([1, 1])(x), nn.Upsample(scale_factor=2)(x))


def test_resampling_keeps_a_constant_away_from_the_border() -> None:
    x = torch.full((1, 2, 8, 8), 3.0)
    torch.testing.assert_close(Down([1, 3, 3, 1])(x)[..., 1:-1, 1:-1], torch.full((1, 2, 2, 2), 3.0))
    torch.testing.assert_close(Up([1, 3, 3, 1])(x)[..., 1:-1, 1:-1], torch.full((1, 2, 14, 14), 3.0))


@pytest.mark.parametrize("taps", TAPS)
def test_resampling_moves_with_the_picture(taps: list[int]) -> None:
    x = torch.zeros(1, 1, 16, 16)
    x[..., 6:8, 7] = torch.tensor([1.0, -2.0])
    torch.testing.assert_close(Down(taps)(x.roll(2, -1)), Down(taps)(x).roll(1, -1))
    torch.testing.assert_close(Up(taps)(x.roll(1, -2)), Up(taps)(x).roll(2, -2))


def test_odd_filters_and_sizes_are_refused() -> None:
    with pytest.raises(GenlabError, match="even number of taps"):
        kernel2d([1, 2, 1])
    check_size(24, 4)
    with pytest.raises(GenlabError, match="size divisible by 8, and 28 is not"):
        check_size(28, 4)


def test_autocast_leaves_what_conditions_in_float32() -> None:
    layer, c = Conditioning(8, 4), torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found, narrow = layer(c), layer(c.bfloat16())
    assert torch.equal(found, layer(c))
    assert torch.equal(narrow, layer(c.bfloat16().float()))


@pytest.mark.parametrize("recipe", ["digits/ddpm", "digits/score_sde_vp", "digits/edm", "digits/dit"])
def test_a_noise_number_reaches_the_blocks_of_a_network_unrounded(recipe: str) -> None:
    """All layers that see it, from its embedding to each block."""
    network = build(preflight("train", [f"experiment={recipe}"]).network)
    seen = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and name.split(".")[0] != "last":
            layer.register_forward_hook(lambda layer, inputs, output: seen.append((type(layer), output.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.randn(2, 1, 8, 8), torch.rand(2))
    told = [dtype for kind, dtype in seen if kind is Conditioning]
    assert len(told) > 3
    assert set(told) == {torch.float32}
    plain = [kind for kind, _ in seen if kind is not Conditioning]
    assert not plain or recipe == "digits/dit", "of tokens"
