"""The U-Nets of OpenAI: their sizes by hand, the modulation, the heads, the initial weights."""

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genlab.networks.adm import ADM, Attention, Residual
from genlab.networks.layers import Cosinusoidal, Down


def network(**more) -> ADM:
    small = {"channels": 3, "size": 16, "width": 32, "multipliers": (1, 2), "blocks": 2, "attention": (8,)}
    style = {"heads": 0, "head_channels": 16, "scale_shift": True, "residual_resampling": True, "dropout": 0.0}
    style |= {"classes": 0, "time_embedding": Cosinusoidal(32)}
    return ADM(**small | style | more)  # pyright: ignore[reportArgumentType]


def by_hand(
    width: int,
    multipliers: Sequence[int],
    blocks: int,
    attended: Sequence[int],
    scale_shift: bool,
    residual_resampling: bool,
    classes: int = 0,
    outputs: int = 3,
) -> int:
    """The parameters of the published architecture for 3 colours, with attention at the levels `attended`.

    Counted from guided-diffusion's unet.py: a residual block has two norms, two 3 x 3 convolutions, a projection of
    the 4 · width numbers of noise and label (to a scale and a shift), and a 1 x 1 convolution where channels change;
    attention, a norm and four matrices; labels have one vector of 4 · width each.
    """
    hidden = 4 * width

    def convolution(i: int, o: int, k: int) -> int:
        return k * k * i * o + o

    def residual(i: int, o: int) -> int:
        project = convolution(hidden, 2 * o if scale_shift else o, 1)
        skip = convolution(i, o, 1) if i != o else 0
        return 2 * i + convolution(i, o, 3) + project + 2 * o + convolution(o, o, 3) + skip

    def attention(c: int) -> int:
        return 2 * c + 4 * convolution(c, c, 1)

    def resample(c: int) -> int:
        return residual(c, c) if residual_resampling else convolution(c, c, 3)

    current = width * multipliers[0]
    total = convolution(width, hidden, 1) + convolution(hidden, hidden, 1) + classes * hidden
    total += convolution(3, current, 3)
    skips = [current]
    for level, m in enumerate(multipliers):
        for _ in range(blocks):
            total += residual(current, width * m) + (attention(width * m) if level in attended else 0)
            current = width * m
            skips.append(current)
        if level < len(multipliers) - 1:
            total += resample(current)
            skips.append(current)
    total += 2 * residual(current, current) + attention(current)
    for level, m in reversed(list(enumerate(multipliers))):
        for _ in range(blocks + 1):
            total += residual(current + skips.pop(), width * m) + (attention(width * m) if level in attended else 0)
            current = width * m
        total += resample(current) if level else 0
    return total + 2 * current + convolution(current, outputs, 3)


IMAGENET = {"shape": (3, 64, 64), "classes": 1000}
CIFAR = {"shape": (3, 32, 32), "outputs_per_channel": 1}
CASES = [
    ("adm", 295.9, 295_899_267, IMAGENET, (192, (1, 2, 3, 4), 3, (1, 2, 3), True, True, 1000)),
    (
        "adm",
        295.9,
        295_904_454,
        IMAGENET | {"outputs_per_channel": 2},
        (192, (1, 2, 3, 4), 3, (1, 2, 3), True, True, 1000, 6),
    ),
    ("iddpm", 52.5, 52_546_438, CIFAR | {"outputs_per_channel": 2}, (128, (1, 2, 2, 2), 3, (1, 2), True, False, 0, 6)),
    ("unet_cfm", 35.7, 35_746_307, CIFAR, (128, (1, 2, 2, 2), 2, (1,), False, False)),
]


@pytest.mark.parametrize(("name", "published", "expected", "data", "shape"), CASES, ids=["edm", "adm", "iddpm", "cfm"])
def test_parameters(
    recipe: Callable[..., nn.Module], name: str, published: float, expected: int, data: dict, shape: tuple
) -> None:
    """Equal to the count by hand. ADM's paper has 296M (appendix I), EDM's authors 295.9M; the other papers have none.

    The U-Net of conditional flow matching is DDPM's own, and has its 35,746,307.
    """
    count = sum(p.numel() for p in recipe(name, device="meta", **data).parameters())
    assert count == expected == by_hand(*shape)
    assert round(count / 1e6, 1) == published


@pytest.mark.parametrize("scale_shift", [True, False])
def test_residual_block_by_its_formula(scale_shift: bool) -> None:
    torch.manual_seed(0)
    block = Residual(8, 12, 5, 0.0, scale_shift, Down([1, 1]))
    nn.init.normal_(block.conv2.weight, std=0.1)
    x, c = torch.randn(2, 8, 4, 4), torch.randn(2, 5)
    h = block.conv1(F.avg_pool2d(F.silu(F.group_norm(x, 2, eps=1e-5)), 2))
    m = block.project(c)[..., None, None]
    modulated = F.group_norm(h, 3, eps=1e-5) * (1 + m[:, :12]) + m[:, 12:] if scale_shift else None
    plain = F.group_norm(h + m, 3, eps=1e-5) if not scale_shift else None
    h = block.conv2(F.silu(modulated if modulated is not None else plain))  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(block(x, c), block.skip(F.avg_pool2d(x, 2)) + h)


def test_resampling_blocks_have_no_convolution_beside_them() -> None:
    """Unlike NCSN++'s: where only the resolution changes, the skip is the resampled input."""
    assert isinstance(Residual(8, 8, 5, 0.0, True, Down([1, 1])).skip, nn.Identity)


def test_heads_are_of_64_channels_or_of_a_fixed_number() -> None:
    def heads(**more) -> list[int]:
        return [
            m.heads
            for m in network(multipliers=(1, 2, 3), attention=(16, 8, 4), **more).modules()
            if isinstance(m, Attention)
        ]

    assert heads(head_channels=16) == [2, 2, 4, 4, 6, 6, 6, 6, 6, 6, 4, 4, 4, 2, 2, 2]
    assert set(heads(heads=4, head_channels=0)) == {4}
    assert set(heads(head_channels=1000)) == {1}


def test_attention_is_at_every_block_of_its_resolution_and_the_middle() -> None:
    here = [name for name, m in network().named_modules() if isinstance(m, Attention)]
    up = [f"up.0.{i}.attention" for i in (0, 1, 2)]
    assert here == ["down.3.attention", "down.4.attention", "middle.0.attention", *up]


def test_weights_start_as_the_papers_say() -> None:
    """Zeros last in each block, N(0, 1) labels, zeros for augmentations (EDM), torch's own elsewhere; F = 0 exactly."""
    torch.manual_seed(0)
    model = network(classes=50, augmentations=9)
    for name, layer in model.named_modules():
        if name.rsplit(".", 1)[-1] in {"conv2", "out", "last"} and isinstance(layer, nn.Conv2d):
            assert not layer.weight.any()
            assert not layer.bias.any()  # pyright: ignore[reportOptionalMemberAccess]
    assert model.label is not None
    assert model.augmentation is not None
    assert not model.augmentation.weight.any()
    torch.testing.assert_close(model.label.weight.std().item(), 1.0, rtol=0.05, atol=0)
    bound = model.first.weight[0].numel() ** -0.5  # EDM's √(1/3) · U(±√(3/fan_in)) is the same law
    torch.testing.assert_close(model.first.weight.abs().max().item(), bound, rtol=0.02, atol=0)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model(x, torch.rand(2), torch.tensor([0, 50])), torch.zeros_like(x))


def test_no_label_adds_nothing_and_a_label_its_vector() -> None:
    """EDM's and ADM's: added to the second layer's output, before the SiLU that every block shares."""
    model = network(classes=4)
    assert model.label is not None
    c = torch.tensor([3.0, 5.0])
    h = model.time(model.embedding(c)) + torch.stack([model.label.weight[:, 1], torch.zeros(128)])
    torch.testing.assert_close(model.embed(c, torch.tensor([1, 4]), None), F.silu(h))
