"""DDPM++ and NCSN++: their sizes by hand, their initial weights, and the parts that the papers fix."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d
from torch import Tensor, nn

from genlab.networks.layers import ZERO, Down, Fourier, Sinusoidal
from genlab.networks.ncsnpp import Attention, NCSNpp, Pyramid, Residual


def network(**more) -> NCSNpp:
    small = {"channels": 3, "size": 16, "width": 32, "multipliers": (1, 2), "blocks": 2, "attention": (8,)}
    style = {"taps": (1, 3, 3, 1), "residual_input": True, "dropout": 0.0, "classes": 0}
    return NCSNpp(**small | style | {"time_embedding": Fourier(64, 16.0)} | more)  # pyright: ignore[reportArgumentType]


def by_hand(
    multipliers: Sequence[int], blocks: int, embedding: int, pyramid: bool, classes: int = 0, augmentations: int = 0
) -> int:
    """The parameters of the published architecture at 128 channels, 3 colours, 32 x 32 and attention at 16.

    Counted from score_sde_pytorch's models/ncsnpp.py with resblock_type biggan, without the fixed Fourier frequencies:
    a residual block has two norms, two 3 x 3 convolutions, a projection of the 512 numbers of the noise, and a 1 x 1
    convolution where channels or the resolution change; attention has a norm and four matrices.
    """

    def convolution(i: int, o: int, k: int) -> int:
        return k * k * i * o + o

    def residual(i: int, o: int, resampled: bool = False) -> int:
        skip = convolution(i, o, 1) if i != o or resampled else 0
        return 2 * i + convolution(i, o, 3) + convolution(512, o, 1) + 2 * o + convolution(o, o, 3) + skip

    def attention(c: int) -> int:
        return 2 * c + 4 * convolution(c, c, 1)

    total = convolution(embedding, 512, 1) + convolution(512, 512, 1) + convolution(3, 128, 3)
    total += (convolution(classes, embedding, 1) if classes else 0) + augmentations * embedding
    current, skips, z = 128, [128], 3
    for level, m in enumerate(multipliers):
        for _ in range(blocks):
            total += residual(current, 128 * m) + (attention(128 * m) if level == 1 else 0)
            current = 128 * m
            skips.append(current)
        if level < len(multipliers) - 1:
            total += residual(current, current, resampled=True)
            skips.append(current)
            if pyramid:
                total += convolution(z, current, 3)
                z = current
    total += 2 * residual(current, current) + attention(current)
    for level, m in reversed(list(enumerate(multipliers))):
        for _ in range(blocks + 1):
            total += residual(current + skips.pop(), 128 * m)
            current = 128 * m
        total += attention(current) if level == 1 else 0
        total += residual(current, current, resampled=True) if level else 0
    return total + 2 * current + convolution(current, 3, 3)


@pytest.mark.parametrize(
    ("name", "published", "expected", "shape"),
    [
        ("ddpmpp", 61.8, 61_804_419, ((1, 2, 2, 2), 4, 128, False)),
        ("ddpmpp_deep", 106.6, 106_632_579, ((1, 2, 2, 2), 8, 128, False)),
        ("ncsnpp", 62.8, 62_758_787, ((1, 2, 2, 2), 4, 256, True)),
        ("ncsnpp_deep", 107.6, 107_586_947, ((1, 2, 2, 2), 8, 256, True)),
        ("edm_ddpmpp", 55.7, 55_732_739, ((2, 2, 2), 4, 128, False)),
        ("edm_ncsnpp", 56.4, 56_395_523, ((2, 2, 2), 4, 256, True)),
    ],
)
def test_parameters(recipe: Callable[..., nn.Module], name: str, published: float, expected: int, shape: tuple) -> None:
    """Equal to the count by hand; 55.7M is the figure of EDM's authors, and score-SDE's print none."""
    count = sum(p.numel() for p in recipe(name, device="meta").parameters())
    assert count == expected == by_hand(*shape)
    assert round(count / 1e6, 1) == published


def test_parameters_of_conditional_edm(recipe: Callable[..., nn.Module]) -> None:
    """With the 10 labels of CIFAR-10 and the 9 numbers of EDM's augmentation."""
    model = recipe("edm_ddpmpp", classes=10, device="meta", augmentations=9)
    count = sum(p.numel() for p in model.parameters())
    assert count == 55_735_299 == by_hand((2, 2, 2), 4, 128, False, classes=10, augmentations=9)


def test_every_weight_starts_as_in_the_published_code() -> None:
    """score-SDE: U(±√(6 s/(fan_in + fan_out))), s = 1, or 1e-10 for 0, or 0.1 for each of q, k and v; EDM: Xavier, ·1e-5,
    ·√0.2 for qkv as one matrix, which is the same.
    """
    torch.manual_seed(0)
    seen = set()
    for name, layer in network(classes=10, augmentations=40).named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        kind = name.rsplit(".", 1)[-1]
        seen.add(kind)
        o, i = layer.weight.shape[:2]
        bound = math.sqrt(6 / ((o + i) * layer.weight[0, 0].numel()))
        if kind in {"conv2", "out", "last"}:
            bound *= 1e-5
        if kind == "qkv":
            assert bound * math.sqrt(0.2) == pytest.approx(math.sqrt(6 * 0.1 / (2 * i)))
            bound *= math.sqrt(0.2)
        assert 0.97 * bound < layer.weight.abs().max() <= bound * (1 + 1e-6)
        torch.testing.assert_close(layer.weight.square().mean().item(), bound**2 / 3, rtol=0.15, atol=0)
        assert layer.bias is None or not layer.bias.any()
    assert seen >= {"conv1", "conv2", "project", "skip", "qkv", "out", "first", "last", "label", "augmentation", "conv"}
    assert math.sqrt(ZERO) == pytest.approx(1e-5)


def test_attention_is_at_every_block_of_the_encoder_and_once_a_level_of_the_decoder() -> None:
    here = [name for name, m in network().named_modules() if isinstance(m, Attention)]
    assert here == ["down.1.0.attention", "down.1.1.attention", "middle.0.attention", "up.0.2.attention"]


def test_residual_block_by_its_formula() -> None:
    torch.manual_seed(0)
    down = Down([1, 3, 3, 1])
    block = Residual(8, 8, 5, 0.0, down)
    nn.init.normal_(block.conv2.weight, std=0.1)
    x, c = torch.randn(2, 8, 4, 4), torch.randn(2, 5)
    h = block.conv1(down(F.silu(F.group_norm(x, 2, eps=1e-6)))) + block.project(c)[..., None, None]
    h = block.conv2(F.silu(F.group_norm(h, 2, eps=1e-6)))
    torch.testing.assert_close(block(x, c), (block.skip(down(x)) + h) / math.sqrt(2))
    assert isinstance(block.skip, nn.Conv2d)  # also where channels stay
    assert isinstance(Residual(8, 8, 5, 0.0).skip, nn.Identity)


def test_attention_is_rescaled() -> None:
    torch.manual_seed(0)
    layer = Attention(8)
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(layer(x), x / math.sqrt(2), rtol=0, atol=1e-4)


def test_pyramid_is_a_filter_then_a_convolution_padded_once() -> None:
    """conv_downsample_2d of StyleGAN2: p = (n - 2) + (3 - 1) zeros, half of them before, then every second output."""
    torch.manual_seed(0)
    pyramid = Pyramid(3, 2, [1, 3, 3, 1]).double()
    nn.init.normal_(pyramid.conv.bias)  # pyright: ignore[reportArgumentType]
    z, x = torch.randn(1, 3, 6, 8, dtype=torch.float64), torch.randn(1, 2, 3, 4, dtype=torch.float64)
    kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    planes = [convolve2d(np.pad(plane, 2), kernel, mode="valid") for plane in z[0].numpy()]
    filtered = F.conv2d(torch.tensor(np.stack(planes))[None], pyramid.conv.weight, pyramid.conv.bias, stride=2)
    torch.testing.assert_close(pyramid(z, x), (filtered + x) / math.sqrt(2))


def test_pyramid_carries_what_it_joined() -> None:
    """Both the next level and the next step of the pyramid start from (conv(z) + x)/√2."""
    torch.manual_seed(0)
    model = network(multipliers=(1, 1, 1))
    seen: dict[str, Tensor] = {}
    for i, step in enumerate(model.pyramid):
        step.register_forward_hook(lambda _, args, out, i=i: seen.update({f"in{i}": args[0], f"out{i}": out}))
    model.down[1][0].register_forward_hook(lambda _, args, __: seen.update(next=args[0]))  # pyright: ignore
    x = torch.randn(1, 3, 16, 16)
    model(x, torch.ones(1))
    assert torch.equal(seen["in0"], x)
    assert torch.equal(seen["in1"], seen["out0"])
    assert torch.equal(seen["next"], seen["out0"])


def test_labels_enter_as_one_hot_vectors_times_the_root_of_their_number() -> None:
    """EDM's map_label: W (√classes · one-hot(y)) + b is added to the embedding of the noise; no label leaves b."""
    torch.manual_seed(0)
    model = network(classes=4, time_embedding=Sinusoidal(32))
    assert model.label is not None
    nn.init.normal_(model.label.bias)
    c = torch.tensor([0.3, 0.7])
    column = 2 * model.label.weight[:, 1] + model.label.bias
    expected = model.time(model.embedding(c) + torch.stack([column, model.label.bias]))
    torch.testing.assert_close(model.embed(c, torch.tensor([1, 4]), None), expected)
