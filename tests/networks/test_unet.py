"""The U-Net of DDPM: its size, its initial weights, its attention."""

import math

import pytest
import torch
from torch import nn

from genlab.networks.layers import ZERO, Sinusoidal
from genlab.networks.unet import Attention, Residual, UNet


def unet(classes=0, channels=1, width=8, size=8, multipliers=(1, 2), blocks=1, attention=(4,), **more):
    return UNet(channels, size, width, multipliers, blocks, attention, 0.0, classes, Sinusoidal(width), **more)


def awake(network):
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.double().eval()


def test_unet_of_ddpm_has_its_parameters():
    """CIFAR-10: 35.7 million (Ho et al. 2020, appendix B), of which the published code counts 35,746,307."""
    with torch.device("meta"):
        network = unet(channels=3, size=32, width=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,))
    assert sum(p.numel() for p in network.parameters()) == 35_746_307


def test_every_weight_starts_as_in_the_published_code():
    """variance_scaling(scale, fan_avg, uniform), 1e-10 for conv2, out and last; q, k, v are three; biases 0."""
    torch.manual_seed(0)
    network = unet(channels=3, width=32, size=16, multipliers=(1, 2), attention=(8,))
    seen = set()
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        kind = name.rsplit(".", 1)[-1]
        seen.add(kind)
        scale = ZERO if kind in {"conv2", "out", "last"} else 1.0
        for weight in layer.weight.chunk(3) if kind == "qkv" else [layer.weight]:
            fans = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
            bound = math.sqrt(6 * scale / fans)
            assert 0.97 * bound < weight.abs().max() <= bound * (1 + 1e-6)
            torch.testing.assert_close(weight.square().mean().item(), bound**2 / 3, rtol=0.12, atol=0)
        assert not layer.bias.any()  # pyright: ignore[reportOptionalMemberAccess]
    assert seen >= {"conv1", "conv2", "project", "skip", "qkv", "out", "first", "last"}


def test_first_prediction_is_nearly_nothing():
    """1e-10 is the variance's scale, so outputs are about 1e-5."""
    torch.manual_seed(0)
    out = unet()(torch.randn(2, 1, 8, 8), torch.ones(2))
    assert 1e-7 < out.abs().max() < 1e-4


def test_blocks_start_as_the_identity_nearly():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(Attention(8)(x), x, rtol=0, atol=1e-4)
    torch.testing.assert_close(Residual(8, 8, 3, 0.0)(x, torch.randn(2, 3)), x, rtol=0, atol=1e-4)


def test_attention_has_one_head():
    layer = awake(Attention(8))
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    q, k, v = layer.qkv(layer.norm(x)).flatten(2).chunk(3, dim=1)  # (B, C, positions)
    weights = torch.einsum("bcq,bck->bqk", q, k).div(math.sqrt(8)).softmax(2)
    mixed = torch.einsum("bqk,bck->bcq", weights, v).reshape(x.shape)
    torch.testing.assert_close(layer(x), x + layer.out(mixed))


def test_attention_follows_every_block_of_its_resolution_and_the_middle():
    network = unet(size=16, multipliers=(1, 1, 1), blocks=2, attention=(8,))
    here = [name for name, m in network.named_modules() if isinstance(m, Attention)]
    down, up = [f"down.1.{i}.attention" for i in (0, 1)], [f"up.1.{i}.attention" for i in (0, 1, 2)]
    assert here == [*down, "middle.0.attention", *up]


def test_halving_pads_below_and_to_the_right():
    """TensorFlow's "same" padding of a stride of 2: output i sees inputs 2i, 2i + 1, 2i + 2."""
    shrink = unet().shrink[0]
    x = torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 8, 4, 4)
    with torch.no_grad():
        shrink[1].weight.zero_()
        shrink[1].weight[:, 0, 0, 0] = 1.0
    torch.testing.assert_close(shrink(x)[0, 0], torch.tensor([[0.0, 2.0], [8.0, 10.0]]))


@pytest.mark.parametrize("width", [4, 6, 12, 20, 22, 34, 36])
def test_unet_of_any_even_width(width):
    out = unet(width=width)(torch.randn(2, 1, 8, 8), torch.rand(2))
    assert out.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    "shape",
    [
        {"multipliers": (1,), "attention": ()},
        {"multipliers": (1, 2, 3), "attention": (8, 2), "blocks": 2},
        {"channels": 3, "size": 16, "multipliers": (2, 1, 4), "outputs_per_channel": 2},
    ],
    ids=["one-level", "three-levels", "colour"],
)
def test_unet_of_any_depth(shape):
    channels, size = shape.get("channels", 1), shape.get("size", 8)
    out = unet(**shape)(torch.randn(2, channels, size, size), torch.rand(2))
    assert out.shape == (2, channels * shape.get("outputs_per_channel", 1), size, size)
