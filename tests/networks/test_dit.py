"""DiT: its sizes by formula, patches and positions, the block written out, and what is zero at first."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.networks.dit import Block, DiT, sincos, unpatchify


def network(**more) -> DiT:
    small = {"channels": 3, "size": 8, "patch": 2, "width": 16, "depth": 2, "head_channels": 4, "classes": 5}
    return DiT(**small | more)


def awake(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def by_hand(width: int, depth: int, patch: int = 2, channels: int = 4, outputs: int = 8, classes: int = 1000) -> int:
    """The learned parameters of the published architecture.

    A block: qkv 3D² + 3D, its output D² + D, the MLP 8D² + 5D, the modulation 6D² + 6D. Noise: 256D + D, D² + D.
    Labels (classes + 1)D. First: p²cD + D. Last: the modulation 2D² + 2D, and Dp²o + p²o.
    """
    d = width
    ends = (patch**2 * channels * d + d) + (257 * d + d * d + d) + (classes + 1) * d
    last = 2 * d * d + 2 * d + (d + 1) * patch**2 * outputs
    return depth * (18 * d * d + 15 * d) + ends + last


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads", "published", "expected"),
    [
        ("dit_s", 384, 12, 6, 33, 32_865_056),
        ("dit_b", 768, 12, 12, 130, 130_315_808),
        ("dit_l", 1024, 24, 16, 458, 457_840_672),
        ("dit_xl", 1152, 28, 16, 675, 674_834_720),
    ],
)
def test_parameters(
    recipe: Callable[..., nn.Module], name: str, width: int, depth: int, heads: int, published: int, expected: int
) -> None:
    """Equal to the formula, and rounding to the millions of the paper, which has latents of 4 x 32 x 32."""
    model = recipe(name, (4, 32, 32), 1000, "meta", outputs_per_channel=2)
    count = sum(p.numel() for p in model.parameters())
    assert count == expected == by_hand(width, depth)
    assert round(count / 1e6) == published
    assert {block.heads for block in model.blocks} == {heads}  # pyright: ignore


def test_parameters_of_the_published_checkpoint() -> None:
    """DiT-XL/2's has 675,129,632 numbers: it counts the fixed positions, 256 vectors of 1152."""
    assert by_hand(1152, 28) + 256 * 1152 == 675_129_632


def test_first_prediction_is_exactly_nothing() -> None:
    torch.manual_seed(0)
    model, x = network(), torch.randn(3, 3, 8, 8)
    out = model(x, torch.rand(3), torch.tensor([0, 4, 5]))
    assert torch.equal(out, torch.zeros_like(x))


def test_block_starts_as_the_identity_exactly() -> None:
    torch.manual_seed(0)
    h = torch.randn(2, 5, 8)
    assert torch.equal(Block(8, 2)(h, torch.randn(2, 8)), h)


def test_weights_start_as_the_paper_has_them() -> None:
    torch.manual_seed(0)
    model = network(width=96)
    for layer in [model.last, model.modulation.linear, *(b.modulation.linear for b in model.blocks)]:  # pyright: ignore
        assert not layer.weight.any()  # pyright: ignore
    for weight in [model.time[1].weight, model.time[3].weight, model.label.weight]:  # pyright: ignore
        torch.testing.assert_close(weight.std().item(), 0.02, rtol=0.07, atol=0)  # pyright: ignore
    xavier = {(96, 12): model.first.weight, (288, 96): model.blocks[0].qkv.weight}  # pyright: ignore
    for fans, weight in xavier.items():
        torch.testing.assert_close(weight.abs().max().item(), math.sqrt(6 / sum(fans)), rtol=0.02, atol=0)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_block_by_its_formula() -> None:
    """adaLN-Zero: shift, scale, gate of attention, then of the MLP; keys and queries of heads of 4 channels."""
    block = awake(Block(8, 2))
    h, c = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 8, dtype=torch.float64)
    m = block.modulation.linear(F.silu(c)).reshape(2, 6, 1, 8)  # pyright: ignore

    def normed(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        centred = h - h.mean(2, keepdim=True)
        return centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt() * (1 + scale) + shift

    qkv = block.qkv(normed(h, m[:, 0], m[:, 1]))  # pyright: ignore
    q, k, v = (part.reshape(2, 5, 2, 4) for part in qkv.chunk(3, dim=2))
    weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(2.0).softmax(3)
    mixed = torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(2, 5, 8)
    expected = h + m[:, 2] * block.out(mixed)  # pyright: ignore
    inner = block.mlp[0](normed(expected, m[:, 3], m[:, 4]))  # pyright: ignore
    gelu = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
    expected = expected + m[:, 5] * block.mlp[2](gelu)  # pyright: ignore
    torch.testing.assert_close(block(h, c), expected)


# ------------------------------------------------------------------ patches and positions


def test_unpatchify_undoes_patches_in_the_published_order() -> None:
    """Patches row by row; within one, row, column, then channel."""
    x = torch.arange(2 * 3 * 4 * 6 * 6).reshape(8, 3, 6, 6)
    vectors = []
    for i in range(0, 6, 2):
        for j in range(0, 6, 2):
            vectors.append(torch.stack([x[:, :, i + p, j + q] for p in (0, 1) for q in (0, 1)], dim=1).flatten(1))
    assert torch.equal(unpatchify(torch.stack(vectors, dim=1), 2), x)


def test_patches_enter_in_the_order_in_which_they_leave() -> None:
    """With no positions the model commutes with exchanges of patches; with them it does not."""
    model = awake(network(classes=0))
    x, c = torch.randn(1, 3, 8, 8, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    with torch.no_grad():
        assert not torch.allclose(model(x.mT, c), model(x, c).mT)
        model.position.zero_()  # pyright: ignore
        rolled = x.roll((2, 4), (2, 3))
        torch.testing.assert_close(model(rolled, c), model(x, c).roll((2, 4), (2, 3)))
        assert not torch.allclose(model(x.roll(1, 2), c), model(x, c).roll(1, 2))


def test_positions_are_sines_and_cosines_of_the_column_then_of_the_row() -> None:
    table = sincos(8, 3)
    for row in range(3):
        for column in range(3):
            angles = [[n, n / 100] for n in (column, row)]
            expected = [f(a) for pair in angles for f in (math.sin, math.cos) for a in pair]
            torch.testing.assert_close(table[3 * row + column], torch.tensor(expected))


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_any_patch_that_tiles(patch: int) -> None:
    out = network(patch=patch, outputs_per_channel=2)(torch.randn(2, 3, 8, 8), torch.rand(2))
    assert out.shape == (2, 6, 8, 8)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(GenlabError, match="patches of 3 do not tile 8 pixels"):
        network(patch=3)
    with pytest.raises(GenlabError, match="divisible by 4 and by its 5 heads"):
        network(width=22)
    with pytest.raises(GenlabError, match="divisible by 4 and by its 1 heads"):
        network(width=6, head_channels=6)
