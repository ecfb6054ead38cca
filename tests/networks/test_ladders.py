"""The networks of VDVAE and NVAE: sizes as published, and a way down that is the same inferred, drawn and drawn again."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.networks import nvae, vdvae, wae
from genlab.networks.levels import split
from genlab.variational.ladder import Absolute, Descent, Residual


def weights(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


def pair(kind: str, classes: int = 0) -> tuple[nn.Module, nn.Module]:
    """An encoder and a decoder of 8×8 images with three levels, all of whose layers say something."""
    torch.manual_seed(0)
    if kind == "vdvae":
        up = vdvae.BottomUp(1, 8, 16, [(8, 1), (4, 1), (1, 1)], classes)
        down = vdvae.TopDown(8, 16, 3, [(1, 1), (4, 1), (8, 1)], 2, classes)
    else:
        sizes = {"size": 8, "width": 8, "halvings": 1, "levels": 3, "cells": 1, "outer": 2, "classes": classes}
        up, down = nvae.BottomUp(channels=1, **sizes), nvae.TopDown(latent=3, outputs=2, **sizes)
    for network in (up, down):
        network.double().eval()
        for p in network.parameters():
            nn.init.normal_(p, std=0.2)
    return up, down


def test_parameters_of_vdvae_for_cifar10() -> None:
    """39M (README of the published code), by hand: a block of width w, middle m, k × k is w m + 2 k² m² + m o + 3 m + o."""

    def block(inputs: int, outputs: int, size: int, m: int = 96) -> int:
        k = 9 if size > 2 else 1
        return inputs * m + 2 * k * m * m + m * outputs + 3 * m + outputs

    encoder = 3 * 9 * 384 + 384
    for size, n in ((32, 12), (16, 7), (8, 7), (4, 4), (1, 3)):
        encoder += n * block(384, 384, size)
    decoder = sum(s * s * 384 for s in (1, 4, 8, 16, 32)) + 2 * 384 + 384 * 100 + 100
    for size, n in ((1, 1), (4, 3), (8, 6), (16, 11), (32, 22)):
        level = block(768, 32, size) + block(384, 32 + 384, size) + block(384, 384, size) + 16 * 384 + 384
        decoder += n * level
    with torch.device("meta"):
        up = vdvae.BottomUp(3, 32, 384, [(32, 11), (16, 6), (8, 6), (4, 3), (1, 3)], 0)
        down = vdvae.TopDown(32, 384, 16, [(1, 1), (4, 3), (8, 6), (16, 11), (32, 22)], 100, 0)
    assert (weights(up), weights(down)) == (encoder, decoder)
    assert encoder + decoder == 39_145_700


def test_parameters_of_nvae_for_cifar10() -> None:
    """131M in Child 2021, table 1, with the flows that are left out here."""
    sizes = {"size": 32, "width": 128, "halvings": 1, "cells": 2, "outer": 2, "classes": 0}
    with torch.device("meta"):  # each level has as many as any other, but the first
        two, three = (
            weights(
                nvae.BottomUp(channels=3, **sizes, levels=n), nvae.TopDown(latent=20, outputs=100, **sizes, levels=n)
            )
            for n in (2, 3)
        )
    assert two + 28 * (three - two) == 129_215_680


@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("kind", ["vdvae", "nvae"])
def test_what_is_inferred_is_drawn_again_from_its_code(kind: str, classes: int) -> None:
    """Bit for bit what a level does not depend on; the image's features have no way around the latents."""
    up, down = pair(kind, classes)
    x, y = torch.randn(2, 1, 8, 8).double(), torch.tensor([1, 3]) if classes else None
    parametrization = Residual(5.0) if kind == "nvae" else Absolute()
    way = Descent(parametrization)
    eps = torch.randn(2, sum(torch.Size(shape).numel() for shape in down.shapes)).double()  # pyright: ignore
    parameters = down(eps, way, y, up(x, y))
    assert parameters.shape == (2, 2, 8, 8)
    torch.testing.assert_close(down(way.code, Descent(parametrization), y), parameters)
    assert way.rates.shape == (2, 3)
    assert way.rates.min() > 1e-3
    if classes:
        other = down(way.code, Descent(parametrization), y.flip(0))  # pyright: ignore
        assert (other - parameters).abs().max() > 1e-7


@pytest.mark.parametrize("kind", ["vdvae", "nvae"])
def test_levels_are_split_in_order_and_what_is_above_does_not_see_below(kind: str) -> None:
    _, down = pair(kind)

    def descend(eps: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Parameters, and of each level ε and the numbers of its prior."""
        drawn: list[Tensor] = []
        numbers: list[Tensor] = []

        def latent(p: Tensor, h: Tensor | None, e: Tensor) -> Tensor:
            drawn.append(e)
            numbers.append(p)
            return e + p[:, : e.shape[1]]

        return down(eps, latent), drawn, numbers

    sizes = [torch.Size(shape).numel() for shape in down.shapes]  # pyright: ignore
    eps = torch.randn(2, sum(sizes)).double()
    whole, drawn, before = descend(eps)
    torch.testing.assert_close(torch.cat([part.flatten(1) for part in drawn], dim=1), eps)
    assert [part.shape[1:] for part in split(eps, down.shapes)] == [torch.Size(s) for s in down.shapes]  # pyright: ignore
    for level in range(3):
        changed = [part.clone() for part in eps.split(sizes, dim=1)]
        changed[level] += 1
        other, _, after = descend(torch.cat(changed, dim=1))
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [i <= level or (kind == "nvae" and i == 0) for i in range(3)]  # its first prior is fixed
        assert (other - whole).abs().max() > 1e-7


def test_a_level_begins_as_its_prior_is_the_normal_one() -> None:
    """The prior's last layer is 0 (Child 2021, published code)."""
    down = vdvae.TopDown(8, 16, 3, [(1, 1), (8, 1)], 2, 0)
    down(torch.randn(2, 195), lambda p, h, eps: eps + 1e9 * p.abs().max())
    for level in down.levels:
        assert level.prior[-1].weight.abs().max() == 0  # pyright: ignore


def test_a_level_of_vdvae_against_its_formula() -> None:
    """x + f + W z, then a residual block; prior and f of x, posterior of x beside the features."""
    torch.manual_seed(0)
    level = vdvae.Level(8, 3, 4, 1.0)
    nn.init.normal_(level.prior[-1].weight)  # pyright: ignore
    x, features, z = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4), torch.randn(2, 3, 4, 4)
    asked: list[Tensor | None] = []

    def latent(p: Tensor, h: Tensor | None, eps: Tensor) -> Tensor:
        asked.extend((p, h, eps))
        return 2 * z

    found = level(x, features, z, latent)
    numbers = level.prior(x)
    inner = x + numbers[:, 6:] + level.project(2 * z)
    torch.testing.assert_close(found, inner + level.block(inner))
    expected = numbers[:, :6], level.posterior(torch.cat([x, features], dim=1)), z
    for a, b in zip(asked, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_features_of_nvae_go_from_the_top_down() -> None:
    """Those of the second level are what the last cells of the way up began with."""
    up, _ = pair("nvae")
    x = torch.randn(2, 1, 8, 8).double()
    rows = [up.outer(up.stem(x))]  # pyright: ignore
    for row in up.rows:  # pyright: ignore
        rows.append(row(rows[-1]))
    features = up(x)
    for a, b in zip(features, (up.top(rows[3]), rows[2], rows[1]), strict=True):  # pyright: ignore
        assert torch.equal(a, b)


def test_cells_of_nvae_against_their_formula() -> None:
    torch.manual_seed(0)
    shrink, x = nvae.Shrink(4), torch.randn(2, 4, 6, 6)
    corners = [F.silu(x)[:, :, i::2, j::2] for i, j in ((0, 0), (1, 1), (0, 1), (1, 0))]
    assert shrink(x).shape == (2, 8, 3, 3)
    torch.testing.assert_close(
        shrink(x)[:, 2:4], F.conv2d(corners[1], shrink.corners[1].weight, shrink.corners[1].bias)
    )  # pyright: ignore
    cell = nvae.up_cell(4).eval()
    nn.init.constant_(cell.body[-2].parametrizations.weight.original1, -math.inf)  # pyright: ignore - a body of 0
    nn.init.zeros_(cell.body[-2].bias)  # pyright: ignore
    torch.testing.assert_close(cell(x), x)


def test_lengths_of_nvaes_weights_are_learned_by_their_logarithm() -> None:
    """They begin 0.01 longer than torch's, and a step of -1 of each divides every output by e."""
    torch.manual_seed(0)
    layer, x = nvae.conv(4, 6, 3), torch.randn(2, 4, 5, 5)
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3, padding=1)
    longer = 1 + 0.01 / plain.weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(layer.weight, longer[:, None, None, None] * plain.weight, rtol=1e-4, atol=0)
    nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    before = layer(x)
    with torch.no_grad():
        layer.parametrizations.weight.original1 -= 1  # pyright: ignore
    torch.testing.assert_close(layer(x), before / math.e)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: vdvae.TopDown(8, 16, 4, [], 2, 0), "at least 1 level"),
        (lambda: vdvae.TopDown(8, 16, 0, [(8, 1)], 2, 0), "latent=0"),
        (lambda: vdvae.TopDown(8, 16, 4, [(1, 1), (3, 1)], 2, 0), "size 3 do not divide images of size 8"),
        (lambda: vdvae.TopDown(8, 16, 4, [(1, 1), (4, 1)], 2, 0), "let them end at 8"),
        (lambda: vdvae.TopDown(8, 16, 4, [(4, 1), (2, 1), (8, 1)], 2, 0), "from size 4 to 2"),
        (lambda: vdvae.TopDown(12, 16, 4, [(5, 1), (12, 1)], 2, 0), "from size 5 to 12"),
        (lambda: nvae.TopDown(8, 8, 1, 0, 1, 1, 4, 2, 0), "blocks=0"),
        (lambda: nvae.TopDown(8, 8, 1, 2, 1, 1, 0, 2, 0), "latent=0"),
        (lambda: nvae.TopDown(10, 8, 2, 2, 1, 1, 4, 2, 0), "cannot be halved 2 times"),
        (lambda: wae.Encoder(3, 24, 8, 4, 0), "24 is not divisible by 16"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(build, message: str) -> None:
    with pytest.raises(GenlabError, match=message):
        build()


def test_an_encoder_without_the_sizes_of_the_levels_is_one_line() -> None:
    up = vdvae.BottomUp(1, 8, 16, [(8, 1), (1, 1)], 0)
    down = vdvae.TopDown(8, 16, 3, [(1, 1), (2, 1), (8, 1)], 2, 0)
    with pytest.raises(GenlabError, match="has no size 2"):
        down(torch.zeros(1, 207), Descent(Absolute()), None, up(torch.zeros(1, 1, 8, 8)))


def test_the_autoencoder_of_ghosh_has_the_published_sizes_and_range() -> None:
    """Weights of 4×4 convolutions to 128, 256, 512, 1024 channels with their norms, two heads of 128; 8 × 8 × 1024 and back."""
    norms = [2 * c for c in (128, 256, 512, 1024)]
    convs = [16 * i * o + o for i, o in ((3, 128), (128, 256), (256, 512), (512, 1024))]
    encoder = sum(norms) + sum(convs) + 2 * (4096 * 128 + 128)
    back = [16 * i * o + o for i, o in ((1024, 512), (512, 256), (256, 3))]
    decoder = 128 * 65_536 + 65_536 + sum(back) + 2 * (512 + 256)
    with torch.device("meta"):
        assert weights(wae.Encoder(3, 32, 128, 128, 0)) == encoder
        assert weights(wae.Decoder(128, 3, 32, 128, 0)) == decoder
    torch.manual_seed(0)
    small = wae.Decoder(4, 3, 32, 8, 10).eval()
    x = small(100 * torch.randn(2, 4), torch.tensor([0, 9]))
    assert x.shape == (2, 3, 32, 32)
    assert 0.5 < x.abs().max() <= 1
    h = wae.Encoder(3, 32, 8, 4, 10).eval()(x, torch.tensor([0, 9]))
    assert h.shape == (2, 8)
    assert h[:, 4:].abs().max() <= 5
