"""The very deep VAE: bottleneck blocks without norms, up the image and down the levels. Child 2021, arXiv:2011.10650."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.networks.levels import Latent, split


def _conv(inputs: int, outputs: int, kernel: int, scale: float = 1.0) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    with torch.no_grad():
        layer.weight.mul_(scale)
    nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    return layer


class Bottleneck(nn.Sequential):
    """1×1, 3×3, 3×3, 1×1 convolutions, each after a GELU; 1×1 alone on images of 1 or 2 pixels. Figure 3, middle."""

    def __init__(self, inputs: int, middle: int, outputs: int, size: int, scale: float = 1.0):
        k = 3 if size > 2 else 1
        convs = [
            _conv(inputs, middle, 1),
            *(_conv(middle, middle, k) for _ in range(2)),
            _conv(middle, outputs, 1, scale),
        ]
        super().__init__(*(layer for conv in convs for layer in (nn.GELU(), conv)))


def check_sizes(sizes: Sequence[int], image: int) -> None:
    """GenlabError unless the sizes rise, each divides the next, and the last is the image's."""
    if not sizes:
        raise GenlabError("network.decoder.levels is empty: a hierarchical VAE needs at least 1 level")
    for small, large in itertools.pairwise(sizes):
        if not 1 <= small < large or large % small:
            raise GenlabError(
                f"network.decoder.levels go from size {small} to {large}: each must be larger and divisible"
            )
    if image % sizes[-1] or sizes[-1] < 1:
        raise GenlabError(f"levels of size {sizes[-1]} do not divide images of size {image}")
    if sizes[-1] != image:
        raise GenlabError(f"the last levels have size {sizes[-1]}, and the images {image}: let them end at {image}")


class BottomUp(nn.Module):
    """x (B, C, S, S), y -> the features (B, width, s, s) by size s, after the `blocks` = [[size, number of blocks], ...] of it.

    Between two sizes stands one block more, and a mean over pixels.
    """

    def __init__(self, channels: int, size: int, width: int, blocks: Sequence[tuple[int, int]], classes: int):
        super().__init__()
        sizes = [s for s, _ in blocks]
        check_sizes(sizes[::-1], size)
        total = sum(n for _, n in blocks) + len(blocks) - 1
        scale = math.sqrt(1 / max(1, total))

        def row(s: int, n: int) -> nn.ModuleList:
            return nn.ModuleList(Bottleneck(width, width // 4, width, s, scale) for _ in range(n))

        self.stem = _conv(channels, width, 3)
        self.label = nn.Embedding(classes, width) if classes else None
        self.rows = nn.ModuleList(row(s, n) for s, n in blocks)
        self.downs = nn.ModuleList(block for s in sizes[:-1] for block in row(s, 1))
        self.factors = [large // small for large, small in itertools.pairwise(sizes)]

    def forward(self, x: Tensor, y: Tensor | None = None) -> dict[int, Tensor]:
        h = self.stem(x)
        if self.label is not None:
            h = h + self.label(y)[:, :, None, None]
        features: dict[int, Tensor] = {}
        for i, row in enumerate(self.rows):
            for block in row:  # pyright: ignore[reportGeneralTypeIssues]
                h = h + block(h)
            features[h.shape[2]] = h
            if i < len(self.downs):
                h = F.avg_pool2d(h + self.downs[i](h), self.factors[i])
        return features


class Level(nn.Module):
    """x -> x', by the numbers of prior and posterior, and the z drawn of them. Figure 3, right."""

    def __init__(self, width: int, latent: int, size: int, scale: float):
        super().__init__()
        middle = width // 4
        self.latent = latent
        self.posterior = Bottleneck(2 * width, middle, 2 * latent, size)
        self.prior = Bottleneck(width, middle, 2 * latent + width, size, scale=0)
        self.project = _conv(latent, width, 1, scale)
        self.block = Bottleneck(width, middle, width, size, scale)

    def forward(self, x: Tensor, features: Tensor | None, eps: Tensor, latent: Latent) -> Tensor:
        p, more = self.prior(x).split([2 * self.latent, x.shape[1]], dim=1)
        h = None if features is None else self.posterior(torch.cat([x, features], dim=1))
        x = x + more + self.project(latent(p, h, eps).to(x.dtype))
        return x + self.block(x)


class TopDown(nn.Module):
    """ε (B, D), y -> the parameters (B, outputs, S, S) of a likelihood head, by `levels` = [[size, number of levels], ...] from
    the top down, each of `latent` channels; `features` of the encoder make it infer. Raises GenlabError for sizes that do not
    fit.
    """

    def __init__(
        self, size: int, width: int, latent: int, levels: Sequence[tuple[int, int]], outputs: int, classes: int
    ):
        super().__init__()
        sizes = [s for s, n in levels if n > 0]
        check_sizes(sizes, size)
        if latent < 1:
            raise GenlabError(f"network.decoder.latent={latent}: a level needs at least 1 channel")
        all_sizes = [s for s, n in levels for _ in range(n)]
        self.shapes = [(latent, s, s) for s in all_sizes]
        scale = math.sqrt(1 / len(all_sizes))
        self.levels = nn.ModuleList(Level(width, latent, s, scale) for s in all_sizes)
        self.start = nn.ParameterList(torch.zeros(1, width, s, s) for s in sizes)  # what is there before any level
        self.label = nn.Embedding(classes, width) if classes else None
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.out = _conv(width, outputs, 1)

    def forward(
        self, eps: Tensor, latent: Latent, y: Tensor | None = None, features: dict[int, Tensor] | None = None
    ) -> Tensor:
        if features is not None and (lacking := {s for _, s, _ in self.shapes} - features.keys()):
            raise GenlabError(
                f"network.encoder.blocks has no size {min(lacking)}, at which network.decoder.levels has some"
            )
        starts = {start.shape[2]: start for start in self.start}
        x = starts[self.shapes[0][1]].expand(len(eps), -1, -1, -1)
        if self.label is not None:
            x = x + self.label(y)[:, :, None, None]
        for level, part in zip(self.levels, split(eps, self.shapes), strict=True):
            size = part.shape[2]
            if x.shape[2] < size:
                x = starts[size] + F.interpolate(x, scale_factor=size // x.shape[2])
            x = level(x, None if features is None else features[size], part, latent)
        return self.out(x * self.gain + self.bias)
