"""The U-Nets of OpenAI: improved DDPM (Nichol & Dhariwal 2021, arXiv:2102.09672) and ADM (arXiv:2105.05233).

Their weights start as torch's own do, with the last layer of every residual block and attention at 0.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.networks.layers import (
    Conditioning,
    Cosinusoidal,
    Down,
    Fourier,
    Sinusoidal,
    Up,
    attend,
    check_size,
    norm,
    one_hot,
    zero,
)

EPS = 1e-5  # of GroupNorm; it is 1e-6 in DDPM and score-SDE


class Residual(nn.Module):
    """skip(r(x)) + conv2(dropout(SiLU(h))), h = norm(conv1(r(SiLU(norm(x))))) modulated by c, r a resampling or none.

    Modulated: (1 + a) norm(h) + b with (a, b) = W c where `scale_shift`, else norm(h + W c).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        dropout: float,
        scale_shift: bool,
        resample: nn.Module | None = None,
    ):
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample or nn.Identity()
        self.norm1, self.conv1 = norm(inputs, EPS), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.project = Conditioning(embedding, outputs * (2 if scale_shift else 1))
        self.norm2, self.conv2 = norm(outputs, EPS), zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        c = self.project(c)[:, :, None, None]
        if self.scale_shift:
            scale, shift = c.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + c)
        return self.skip(self.resample(x)) + self.conv2(self.dropout(F.silu(h)))


class Attention(nn.Module):
    """x + out(softmax(q kᵀ/√d) v) over positions, with heads of d channels."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        if channels % heads:
            raise GenlabError(f"{heads} heads do not divide {channels} channels: change network.heads or network.width")
        self.heads = heads
        self.norm, self.qkv = norm(channels, EPS), nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(attend(self.qkv(self.norm(x)), self.heads))


class Convolution(nn.Module):
    """A change of resolution that is no residual block, and so knows no noise."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.layers(x)


class Block(nn.Module):
    """A residual block and, at the resolutions that have it, attention."""

    def __init__(self, residual: Residual, attention: nn.Module):
        super().__init__()
        self.residual, self.attention = residual, attention

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.attention(self.residual(x, c))


class ADM(nn.Module):
    """(x_t, c, y) -> F (B, C · outputs_per_channel, H, W); `attention` lists resolutions, y = classes is "no label".

    Attention has heads of `head_channels` channels, or `heads` heads where that is 0; `scale_shift` and
    `residual_resampling` are ADM's norms and changes of resolution. GenlabError unless size is divisible by
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
        heads: int,
        head_channels: int,
        scale_shift: bool,
        residual_resampling: bool,
        dropout: float,
        classes: int,
        time_embedding: Sinusoidal | Cosinusoidal | Fourier,
        augmentations: int = 0,
        outputs_per_channel: int = 1,
    ):
        super().__init__()
        check_size(size, len(multipliers))
        self.classes, hidden = classes, 4 * width
        self.embedding = time_embedding
        self.augmentation = Conditioning(augmentations, time_embedding.dim, bias=False) if augmentations else None
        if self.augmentation is not None:
            nn.init.zeros_(self.augmentation.weight)
        self.time = nn.Sequential(Conditioning(time_embedding.dim, hidden), nn.SiLU(), Conditioning(hidden, hidden))
        # a linear layer on the indicator of y: an embedding of N(0, 1) vectors in which "no label" is 0
        self.label = Conditioning(classes, hidden, bias=False) if classes else None
        if self.label is not None:
            nn.init.normal_(self.label.weight)

        def residual(inputs: int, outputs: int, resample: nn.Module | None = None) -> Residual:
            return Residual(inputs, outputs, hidden, dropout, scale_shift, resample)

        def attend_(width: int) -> Attention:
            return Attention(width, max(1, width // head_channels) if head_channels else heads)

        def block(inputs: int, outputs: int, level: int) -> Block:
            return Block(residual(inputs, outputs), attend_(outputs) if size >> level in attention else nn.Identity())

        widths = [int(width * m) for m in multipliers]
        current, skips = widths[0], [widths[0]]
        self.first = nn.Conv2d(channels, current, 3, padding=1)
        self.down = nn.ModuleList()
        for level, w in enumerate(widths):
            for _ in range(blocks):
                self.down.append(block(current, w, level))
                current = w
                skips.append(w)
            if level < len(widths) - 1:
                plain = Convolution(nn.Conv2d(w, w, 3, stride=2, padding=1))
                self.down.append(residual(w, w, Down([1, 1])) if residual_resampling else plain)
                skips.append(w)
        self.middle = nn.ModuleList([Block(residual(current, current), attend_(current)), residual(current, current)])
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, w in reversed(list(enumerate(widths))):
            stage = nn.ModuleList()
            for _ in range(blocks + 1):
                stage.append(block(current + skips.pop(), w, level))
                current = w
            self.up.append(stage)
            if level > 0:
                plain = Convolution(nn.Upsample(scale_factor=2), nn.Conv2d(w, w, 3, padding=1))
                self.grow.append(residual(w, w, Up([1, 1])) if residual_resampling else plain)
        self.norm = norm(current, EPS)
        self.last = zero(nn.Conv2d(current, channels * outputs_per_channel, 3, padding=1))

    def embed(self, c: Tensor, y: Tensor | None, augmentation: Tensor | None) -> Tensor:
        """(B, 4 · width): the noise number, what was done to the picture, and the label."""
        c = self.embedding(c)  # (B, dim)
        if self.augmentation is not None and augmentation is not None:
            c = c + self.augmentation(augmentation)
        c = self.time(c)
        if self.label is not None:
            c = c + self.label(one_hot(y, self.classes, c))
        return F.silu(c)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None, augmentation: Tensor | None = None) -> Tensor:
        c = self.embed(c, y, augmentation)
        x = self.first(x)  # (B, width, H, W)
        skips = [x]
        for block in self.down:
            x = block(x, c)
            skips.append(x)
        for block in self.middle:
            x = block(x, c)
        for level, stage in enumerate(self.up):
            for block in stage:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(torch.cat([x, skips.pop()], dim=1), c)
            if level < len(self.grow):
                x = self.grow[level](x, c)
        return self.last(F.silu(self.norm(x)))
