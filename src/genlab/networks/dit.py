"""The diffusion transformer with adaLN-Zero (Peebles & Xie 2023, arXiv:2212.09748)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.networks.layers import Conditioning, Cosinusoidal, labels


def sincos(width: int, side: int) -> Tensor:
    """(side², width): for every patch, rows first, sin and cos of its column, then of its row, at 10000^(-4i/width)."""
    frequencies = 1e4 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(side, dtype=torch.float64)[:, None] * frequencies  # (side, width / 4)
    one = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, width / 2)
    return torch.cat([one.repeat(side, 1), one.repeat_interleave(side, 0)], dim=1).to(torch.get_default_dtype())


def unpatchify(h: Tensor, patch: int) -> Tensor:
    """(B, side², patch · patch · C), each vector row, column, channel of its patch -> (B, C, H, W)."""
    side = math.isqrt(h.shape[1])
    h = h.unflatten(2, (patch, patch, -1)).unflatten(1, (side, side))  # (B, side, side, patch, patch, C)
    return h.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def linear(inputs: int, outputs: int, std: float | None = None, kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    """A linear layer with N(0, std²) weights, or Xavier's uniform ones where std is None; biases 0."""
    layer = kind(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight) if std is None else nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


class Modulation(nn.Module):
    """c (B, width) -> n vectors (B, 1, width): W SiLU(c) + b, all 0 at first."""

    def __init__(self, width: int, n: int):
        super().__init__()
        self.linear, self.n = linear(width, n * width, 0.0, Conditioning), n

    def forward(self, c: Tensor) -> tuple[Tensor, ...]:
        return self.linear(F.silu(c))[:, None].chunk(self.n, dim=2)


class Block(nn.Module):
    """h + g₁ attention((1 + s₁) norm(h) + b₁), then h + g₂ MLP((1 + s₂) norm(h) + b₂); b, s, g from c, 0 at first."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.modulation = Modulation(width, 6)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.mlp = nn.Sequential(linear(width, 4 * width), nn.GELU(approximate="tanh"), linear(4 * width, width))

    def attention(self, h: Tensor) -> Tensor:
        """out(softmax(q kᵀ/√d) v), with heads of d channels."""
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N, d)
        return self.out(F.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5).transpose(1, 2).flatten(2))

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)
        h = h + gate1 * self.attention((1 + scale1) * self.norm(h) + shift1)
        return h + gate2 * self.mlp((1 + scale2) * self.norm(h) + shift2)


class DiT(nn.Module):
    """(x_t, c, y) -> F (B, C · outputs_per_channel, H, W), exactly 0 at first; label `classes` is "no label".

    Attention has width // head_channels heads, or one. GenlabError unless patch divides size, and 4 and heads width.
    """

    position: Tensor

    def __init__(
        self,
        channels: int,
        size: int,
        patch: int,
        width: int,
        depth: int,
        head_channels: int,
        classes: int,
        frequencies: int = 256,
        outputs_per_channel: int = 1,
    ):
        super().__init__()
        heads = max(1, width // head_channels)
        if size % patch:
            raise GenlabError(f"patches of {patch} do not tile {size} pixels: set network.patch to a divisor of {size}")
        if width % 4 or width % heads:
            raise GenlabError(f"network.width must be divisible by 4 and by its {heads} heads, and {width} is not")
        self.classes, self.patch = classes, patch
        self.first = nn.Conv2d(channels, width, patch, stride=patch)
        nn.init.xavier_uniform_(self.first.weight.data.flatten(1))  # as the linear layer on patches that it is
        nn.init.zeros_(self.first.bias)  # pyright: ignore[reportArgumentType]
        self.register_buffer("position", sincos(width, size // patch), persistent=False)
        self.time = nn.Sequential(
            Cosinusoidal(frequencies),
            linear(frequencies, width, 0.02, Conditioning),
            nn.SiLU(),
            linear(width, width, 0.02, Conditioning),
        )
        self.label = nn.Embedding(classes + 1, width) if classes else None
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.modulation = Modulation(width, 2)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.last = linear(width, patch * patch * channels * outputs_per_channel, std=0.0)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        c = self.time(c)  # (B, width)
        if self.label is not None:
            c = c + self.label(labels(y, self.classes, x))
        h = self.first(x).flatten(2).transpose(1, 2) + self.position  # (B, N, width)
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.modulation(c)
        return unpatchify(self.last((1 + scale) * self.norm(h) + shift), self.patch)
