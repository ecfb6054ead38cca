"""BigGAN (Brock et al. 2019, arXiv:1809.11096, appendix B) with the parts of SAGAN (arXiv:1805.08318).

Every weight is orthogonal at first and divided by its largest singular value, that of the shared embedding excepted.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.networks.resnet_gan import (
    ConditionalBatchNorm,
    DownBlock,
    UpBlock,
    check_halvings,
    spectral,
    widths,
)

EPS = 1e-4  # of batch norm, appendix C


def orthogonal(layer: nn.Conv2d | nn.Linear | nn.Embedding) -> nn.Module:
    """The layer with orthogonal weights and no bias at first."""
    nn.init.orthogonal_(layer.weight)
    bias = getattr(layer, "bias", None)
    if bias is not None:
        nn.init.zeros_(bias)
    return layer


@spectral
def conv(inputs: int, outputs: int, kernel: int, bias: bool = True) -> nn.Module:
    """A convolution that keeps the size."""
    return orthogonal(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias))


@spectral
def dense(inputs: int, outputs: int, bias: bool = True) -> nn.Module:
    """A linear layer."""
    return orthogonal(nn.Linear(inputs, outputs, bias))


@spectral
def embed(classes: int, features: int) -> nn.Module:
    """(B,) -> (B, features)."""
    return orthogonal(nn.Embedding(classes, features))


class Attention(nn.Module):
    """x + γ out(softmax(q kᵀ) v), keys and values max-pooled 2 × 2, γ = 0 at first (Zhang et al. 2019, arXiv:1805.08318)."""

    def __init__(self, channels: int):
        super().__init__()
        self.q, self.k = (conv(channels, channels // 8, 1, bias=False) for _ in range(2))
        self.v, self.out = conv(channels, channels // 2, 1, bias=False), conv(channels // 2, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x).flatten(2).mT  # (B, H W, C / 8)
        k, v = (F.max_pool2d(layer(x), 2).flatten(2).mT for layer in (self.k, self.v))  # (B, H W / 4, ·)
        h = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return x + self.gain * self.out(h.mT.unflatten(2, x.shape[2:]))


class Generator(nn.Module):
    """z (B, latent), y -> (B, C, size, size) in (-1, 1), attention after the blocks that end at one of its resolutions.

    z is cut into equal parts, one that makes the first 4 × 4 and one for the norms of each block, beside the `shared`
    numbers of the label. Raises GenlabError where z cannot be cut so.
    """

    bound = 1.0
    """The largest number that it draws."""

    def __init__(
        self,
        latent: int,
        channels: int,
        size: int,
        width: int,
        multipliers: Sequence[int],
        attention: Sequence[int],
        shared: int,
        classes: int,
    ):
        super().__init__()
        sizes = widths(size, width, multipliers)
        if latent % len(sizes):
            raise GenlabError(
                f"BigGAN cuts z into {len(sizes)} equal parts for images of {size} pixels, and {latent} numbers cannot "
                f"be: set model.latent={max(latent // len(sizes), 1) * len(sizes)}"
            )
        self.part = latent // len(sizes)
        self.label = orthogonal(nn.Embedding(classes, shared)) if classes else None
        self.project = dense(self.part, 16 * sizes[0])
        condition = self.part + (shared if classes else 0)

        def norm(channels: int) -> ConditionalBatchNorm:
            gain, bias = (dense(condition, channels, bias=False) for _ in range(2))
            return ConditionalBatchNorm(channels, gain, bias, EPS)

        self.blocks, self.attention = nn.ModuleList(), nn.ModuleList()
        for i, o in pairwise(sizes):
            self.blocks.append(UpBlock(i, o, conv, norm))
            self.attention.append(Attention(o) if 4 << len(self.blocks) in attention else nn.Identity())
        self.norm, self.last = nn.BatchNorm2d(sizes[-1], EPS), conv(sizes[-1], channels, 3)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        first, *parts = z.split(self.part, dim=1)
        if self.label is not None:
            label = self.label(y)
            parts = [torch.cat([label, part], dim=1) for part in parts]
        x = self.project(first).unflatten(1, (-1, 4, 4))  # (B, width, 4, 4)
        for block, attention, c in zip(self.blocks, self.attention, parts, strict=True):
            x = attention(block(x, c))
        return self.last(F.relu(self.norm(x))).tanh()


class Discriminator(nn.Module):
    """x (B, C, size, size), y -> (B,) critic values w·φ(x) + b + e_y·φ(x), φ the sum over positions.

    A block that halves the size for each of `multipliers`, then `flat` ones that keep it.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        multipliers: Sequence[int],
        flat: int,
        attention: Sequence[int],
        classes: int,
    ):
        super().__init__()
        check_halvings(size, len(multipliers))
        sizes = [channels] + [width * m for m in multipliers]
        layers: list[nn.Module] = []
        for level, (i, o) in enumerate(pairwise(sizes)):
            layers.append(DownBlock(i, o, o, conv, True, first=level == 0))
            if size >> (level + 1) in attention:
                layers.append(Attention(o))
        last = sizes[-1]
        layers += [DownBlock(last, last, last, conv, False) for _ in range(flat)]
        self.layers = nn.Sequential(*layers, nn.ReLU())
        self.value = dense(last, 1)
        self.label = embed(classes, last) if classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.layers(x).sum((2, 3))  # (B, last)
        value = self.value(h)[:, 0]
        return value if self.label is None else value + (self.label(y) * h).sum(1)
