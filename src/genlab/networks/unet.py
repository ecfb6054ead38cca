"""The U-Net of DDPM (Ho et al. 2020, arXiv:2006.11239, appendix B): time and label embedding, attention by resolution."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with its weights and biases at zero, so that a residual block starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels // 4, channels), channels, eps=1e-6)


class Sinusoidal(nn.Module):
    """(B,) -> (B, dim): sines and cosines at frequencies 10000^(-i/(half - 1)), as the code of Ho et al. has them."""

    frequencies: Tensor

    def __init__(self, dim: int):
        super().__init__()
        half = dim // 2
        self.register_buffer(
            "frequencies", torch.exp(-math.log(1e4) * torch.arange(half) / (half - 1)), persistent=False
        )

    def forward(self, c: Tensor) -> Tensor:
        angle = c[:, None] * self.frequencies  # (B, dim / 2)
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class Fourier(nn.Module):
    """(B,) -> (B, dim): random Fourier features of N(0, scale²) frequencies (Tancik et al. 2020, arXiv:2006.10739)."""

    frequencies: Tensor

    def __init__(self, dim: int, scale: float):
        super().__init__()
        self.register_buffer("frequencies", torch.randn(dim // 2) * scale)

    def forward(self, c: Tensor) -> Tensor:
        angle = 2 * math.pi * c[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class Residual(nn.Module):
    """GroupNorm, SiLU, conv, + embedding, GroupNorm, SiLU, dropout, conv, + input."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float):
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.project = nn.Linear(embedding, outputs)
        self.norm2, self.conv2 = norm(outputs), zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.project(c)[:, :, None, None]
        return self.skip(x) + self.conv2(self.dropout(F.silu(self.norm2(h))))


class Attention(nn.Module):
    """Self-attention over positions, one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.qkv = norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)  # (B, H W, C)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """A residual block and, at the resolutions that have it, attention."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float, attention: bool):
        super().__init__()
        self.residual = Residual(inputs, outputs, embedding, dropout)
        self.attention = Attention(outputs) if attention else None

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = self.residual(x, c)
        return x if self.attention is None else self.attention(x, c)


class UNet(nn.Module):
    """(x_t, c, y) -> F of the shape of x_t; `attention` lists resolutions, and label `classes` is "no label".

    size must be divisible by 2^(levels - 1), levels = len(multipliers).
    """

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        dropout: float,
        classes: int,
        time_embedding: nn.Module,
    ):
        super().__init__()
        widths = [width * m for m in multipliers]
        hidden = 4 * width
        self.time = nn.Sequential(time_embedding, nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.label = nn.Embedding(classes + 1, hidden) if classes else None
        self.classes = classes
        self.first = nn.Conv2d(channels, width, 3, padding=1)

        def block(inputs: int, outputs: int, level: int) -> Block:
            return Block(inputs, outputs, hidden, dropout, size >> level in attention)

        current, skips = width, [width]
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for level, w in enumerate(widths):
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(block(current, w, level))
                current = w
                skips.append(w)
            self.down.append(stage)
            if level < len(widths) - 1:
                self.shrink.append(nn.Conv2d(w, w, 3, stride=2, padding=1))
                skips.append(w)
        self.middle = nn.ModuleList(
            [Block(current, current, hidden, dropout, bool(attention)), Block(current, current, hidden, dropout, False)]
        )
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, w in reversed(list(enumerate(widths))):
            stage = nn.ModuleList()
            for _ in range(blocks + 1):
                stage.append(block(current + skips.pop(), w, level))
                current = w
            self.up.append(stage)
            if level > 0:
                self.grow.append(nn.Conv2d(w, w, 3, padding=1))
        self.norm, self.last = norm(current), zero(nn.Conv2d(current, channels, 3, padding=1))

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        c = self.time(c)  # (B, hidden)
        if self.label is not None:
            c = c + self.label(torch.full((len(x),), self.classes, device=x.device) if y is None else y)
        c = F.silu(c)
        x = self.first(x)  # (B, width, H, W)
        skips = [x]
        for level, stage in enumerate(self.down):
            for block in stage:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(x, c)
                skips.append(x)
            if level < len(self.shrink):
                x = self.shrink[level](x)
                skips.append(x)
        for block in self.middle:
            x = block(x, c)
        for level, stage in enumerate(self.up):
            for block in stage:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(torch.cat([x, skips.pop()], dim=1), c)
            if level < len(self.grow):
                x = self.grow[level](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.last(F.silu(self.norm(x)))
