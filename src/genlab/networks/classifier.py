"""Networks that tell the class of noisy x: ADM's (Dhariwal & Nichol 2021, arXiv:2105.05233), and one for the plane."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.networks.adm import EPS, Attention, Block, Residual
from genlab.networks.layers import Conditioning, Cosinusoidal, Down, Fourier, Sinusoidal, attend, norm


class AttentionPool(nn.Module):
    """(B, C, H, W) -> (B, outputs): what the mean over positions, as one position more, attends to.

    Radford et al. 2021, arXiv:2103.00020, section 2.4; here with ADM's heads and its positions, N(0, 1/C) at first.
    """

    def __init__(self, channels: int, size: int, heads: int, outputs: int):
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(torch.randn(channels, size**2 + 1) / math.sqrt(channels))
        self.qkv, self.out = nn.Conv1d(channels, 3 * channels, 1), nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)  # (B, C, H W)
        x = torch.cat([x.mean(2, keepdim=True), x], dim=2) + self.position
        return self.out(attend(self.qkv(x)[..., None], self.heads)[:, :, 0, 0])


class Encoder(nn.Module):
    """(x_t, c) -> (B, classes): the half of ADM's U-Net that goes down, its middle, and attention pooling.

    `attention` lists resolutions, whose heads have `head_channels` channels. size must be divisible by
    2^(len(multipliers) - 1).
    """

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        multipliers: Sequence[float],
        blocks: int,
        attention: Sequence[int],
        head_channels: int,
        dropout: float,
        classes: int,
        time_embedding: Sinusoidal | Cosinusoidal | Fourier,
    ):
        super().__init__()
        hidden, widths = 4 * width, [int(width * m) for m in multipliers]
        self.embedding = time_embedding
        self.time = nn.Sequential(Conditioning(time_embedding.dim, hidden), nn.SiLU(), Conditioning(hidden, hidden))

        def residual(inputs: int, outputs: int, resample: nn.Module | None = None) -> Residual:
            return Residual(inputs, outputs, hidden, dropout, scale_shift=True, resample=resample)

        def heads(width: int) -> int:
            return max(1, width // head_channels)

        current = widths[0]
        self.first = nn.Conv2d(channels, current, 3, padding=1)
        self.down = nn.ModuleList()
        for level, w in enumerate(widths):
            for _ in range(blocks):
                attends = Attention(w, heads(w)) if size >> level in attention else nn.Identity()
                self.down.append(Block(residual(current, w), attends))
                current = w
            if level < len(widths) - 1:
                self.down.append(residual(w, w, Down([1, 1])))
        middle = Block(residual(current, current), Attention(current, heads(current)))
        self.middle = nn.ModuleList([middle, residual(current, current)])
        self.norm = norm(current, EPS)
        self.pool = AttentionPool(current, size >> (len(widths) - 1), heads(current), classes)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        c = F.silu(self.time(self.embedding(c)))  # (B, hidden)
        x = self.first(x)  # (B, width, H, W)
        for block in (*self.down, *self.middle):
            x = block(x, c)
        return self.pool(F.silu(self.norm(x)))


class EncoderMLP(nn.Module):
    """(x_t, c) -> (B, classes), x_t (B, dim): residual SiLU layers, the noise added to each."""

    def __init__(self, dim: int, width: int, depth: int, classes: int, time_embedding: nn.Module):
        super().__init__()
        self.time = nn.Sequential(time_embedding, nn.Linear(width, width), nn.SiLU())
        self.first = nn.Linear(dim, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, classes)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        c, h = self.time(c), self.first(x)  # (B, width)
        for layer in self.hidden:
            h = h + layer(F.silu(h + c))
        return self.last(F.silu(h))
