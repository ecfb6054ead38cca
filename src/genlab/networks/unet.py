"""The U-Net of DDPM (Ho et al. 2020, arXiv:2006.11239, appendix B), with the initial weights of its published code."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.networks.layers import (
    ZERO,
    Cosinusoidal,
    Fourier,
    Sinusoidal,
    attend,
    check_size,
    conditioning,
    conv,
    labels,
    norm,
)


class Residual(nn.Module):
    """skip(x) + conv2(dropout(SiLU(norm(conv1(SiLU(norm(x))) + W c)))), nearly skip(x) at first."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float):
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), conv(inputs, outputs, 3)
        self.project = conditioning(embedding, outputs)
        self.norm2, self.conv2 = norm(outputs), conv(outputs, outputs, 3, ZERO)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.project(c)[:, :, None, None]
        return self.skip(x) + self.conv2(self.dropout(F.silu(self.norm2(h))))


class Attention(nn.Module):
    """x + out(softmax(q kᵀ/√C) v) over positions, one head, nearly x at first."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        # q, k and v are three matrices of scale 1 in one: fan_in + fan_out is 2C for each, and 4C for the whole
        self.qkv = conv(channels, 3 * channels, 1, scale=2.0)
        self.out = conv(channels, channels, 1, ZERO)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(attend(self.qkv(self.norm(x)), 1))


class Block(nn.Module):
    """A residual block and, at the resolutions that have it, attention."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float, attention: bool):
        super().__init__()
        self.residual = Residual(inputs, outputs, embedding, dropout)
        self.attention = Attention(outputs) if attention else nn.Identity()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.attention(self.residual(x, c))


class UNet(nn.Module):
    """(x_t, c, y) -> F (B, C · outputs_per_channel, H, W); `attention` lists resolutions, y = classes is "no label".

    GenlabError unless size is divisible by 2^(len(multipliers) - 1).
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
        time_embedding: Sinusoidal | Cosinusoidal | Fourier,
        outputs_per_channel: int = 1,
    ):
        super().__init__()
        check_size(size, len(multipliers))
        widths = [width * m for m in multipliers]
        hidden = 4 * width
        self.time = nn.Sequential(
            time_embedding, conditioning(time_embedding.dim, hidden), nn.SiLU(), conditioning(hidden, hidden)
        )
        self.label = nn.Embedding(classes + 1, hidden) if classes else None
        self.classes = classes
        self.first = conv(channels, width, 3)

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
                # "same" padding of a stride of 2 is one row below and one column to the right
                self.shrink.append(nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv(w, w, 3, stride=2, padding=0)))
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
                self.grow.append(nn.Sequential(nn.Upsample(scale_factor=2), conv(w, w, 3)))
        self.norm, self.last = norm(current), conv(current, channels * outputs_per_channel, 3, ZERO)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        c = self.time(c)  # (B, hidden)
        if self.label is not None:
            c = c + self.label(labels(y, self.classes, x))
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
                x = self.grow[level](x)
        return self.last(F.silu(self.norm(x)))
