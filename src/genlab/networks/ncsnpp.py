"""DDPM++ and NCSN++ (Song et al. 2021, arXiv:2011.13456, appendix H) and the versions of them that EDM trains.

σ's scale of the output, `scale_by_sigma` in the published code, is the parametrization ScaledScore, not the network's.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.networks.layers import (
    ZERO,
    Cosinusoidal,
    Down,
    Fourier,
    Sinusoidal,
    Up,
    attend,
    check_size,
    conditioning,
    conv,
    kernel2d,
    norm,
    one_hot,
)

ROOT_HALF = math.sqrt(0.5)


class Residual(nn.Module):
    """(skip(r(x)) + conv2(dropout(SiLU(norm(conv1(r(SiLU(norm(x)))) + W c)))))/√2, r a change of resolution or none.

    The residual block of BigGAN (Brock et al. 2019, arXiv:1809.11096).
    """

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float, resample: nn.Module | None = None):
        super().__init__()
        self.resample = resample or nn.Identity()
        self.norm1, self.conv1 = norm(inputs), conv(inputs, outputs, 3)
        self.project = conditioning(embedding, outputs)
        self.norm2, self.conv2 = norm(outputs), conv(outputs, outputs, 3, ZERO)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if inputs == outputs and resample is None else conv(inputs, outputs, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x)))) + self.project(c)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return ROOT_HALF * (self.skip(self.resample(x)) + h)


class Attention(nn.Module):
    """(x + out(softmax(q kᵀ/√C) v))/√2 over positions, one head."""

    def __init__(self, channels: int):
        super().__init__()
        # q, k and v start as three matrices of scale 0.1 would: score-SDE's, and equally EDM's single one times √0.2
        self.norm, self.qkv = norm(channels), conv(channels, 3 * channels, 1, 0.2)
        self.out = conv(channels, channels, 1, ZERO)

    def forward(self, x: Tensor) -> Tensor:
        return ROOT_HALF * (x + self.out(attend(self.qkv(self.norm(x)), 1)))


class Block(nn.Module):
    """A residual block and, where it is asked for, attention."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float, attention: bool):
        super().__init__()
        self.residual = Residual(inputs, outputs, embedding, dropout)
        self.attention = Attention(outputs) if attention else nn.Identity()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.attention(self.residual(x, c))


class Pyramid(nn.Module):
    """(conv(filtered(z)) + x)/√2: the input z at half its size joins x (B, outputs, H/2, W/2)."""

    kernel: Tensor

    def __init__(self, inputs: int, outputs: int, taps: Sequence[float]):
        super().__init__()
        self.padding = len(taps) // 2  # of the filter, less one, and of the convolution: once, before both
        self.conv = conv(inputs, outputs, 3, stride=2, padding=0)
        self.register_buffer("kernel", kernel2d(taps), persistent=False)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        kernel = self.kernel.to(z.dtype).repeat(z.shape[1], 1, 1, 1)
        return ROOT_HALF * (self.conv(F.conv2d(z, kernel, padding=self.padding, groups=z.shape[1])) + x)


class NCSNpp(nn.Module):
    """(x_t, c, y) -> F (B, C · outputs_per_channel, H, W); `attention` lists resolutions, y = classes is "no label".

    `taps` is the filter of every change of resolution, `residual_input` the pyramid of the input in the encoder.
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
        taps: Sequence[float],
        residual_input: bool,
        augmentations: int = 0,
        outputs_per_channel: int = 1,
    ):
        super().__init__()
        check_size(size, len(multipliers))
        self.classes, hidden = classes, 4 * width
        self.embedding = time_embedding
        self.label = conditioning(classes, time_embedding.dim) if classes else None
        self.augmentation = conditioning(augmentations, time_embedding.dim, bias=False) if augmentations else None
        self.time = nn.Sequential(
            conditioning(time_embedding.dim, hidden), nn.SiLU(), conditioning(hidden, hidden), nn.SiLU()
        )
        self.first = conv(channels, width, 3)

        def block(inputs: int, outputs: int, attention: bool) -> Block:
            return Block(inputs, outputs, hidden, dropout, attention)

        current, skips, z = width, [width], channels
        self.down, self.shrink, self.pyramid = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, w in enumerate(width * m for m in multipliers):
            self.down.append(
                nn.ModuleList(block(i, w, size >> level in attention) for i in [current] + [w] * (blocks - 1))
            )
            current = w
            skips += [w] * blocks
            if level < len(multipliers) - 1:
                self.shrink.append(Residual(w, w, hidden, dropout, Down(taps)))
                skips.append(w)
                if residual_input:
                    self.pyramid.append(Pyramid(z, w, taps))
                    z = w
        self.middle = nn.ModuleList([block(current, current, True), block(current, current, False)])
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, w in reversed(list(enumerate(width * m for m in multipliers))):
            stage = nn.ModuleList()
            for i in range(blocks + 1):  # in the decoder attention comes once a level, after its last block
                stage.append(block(current + skips.pop(), w, i == blocks and size >> level in attention))
                current = w
            self.up.append(stage)
            if level > 0:
                self.grow.append(Residual(w, w, hidden, dropout, Up(taps)))
        self.norm, self.last = norm(current), conv(current, channels * outputs_per_channel, 3, ZERO)

    def embed(self, c: Tensor, y: Tensor | None, augmentation: Tensor | None) -> Tensor:
        """(B, 4 · width): the noise number, the label as √classes · one-hot and what was done to the picture."""
        c = self.embedding(c)  # (B, dim)
        if self.label is not None:
            c = c + self.label(math.sqrt(self.classes) * one_hot(y, self.classes, c))
        if self.augmentation is not None and augmentation is not None:
            c = c + self.augmentation(augmentation)
        return self.time(c)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None, augmentation: Tensor | None = None) -> Tensor:
        c = self.embed(c, y, augmentation)
        z, x = x, self.first(x)  # (B, C, H, W), (B, width, H, W)
        skips = [x]
        for level, stage in enumerate(self.down):
            for block in stage:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(x, c)
                skips.append(x)
            if level < len(self.shrink):
                x = self.shrink[level](x, c)
                if len(self.pyramid):
                    z = x = self.pyramid[level](z, x)
                skips.append(x)
        for block in self.middle:
            x = block(x, c)
        for level, stage in enumerate(self.up):
            for block in stage:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(torch.cat([x, skips.pop()], dim=1), c)
            if level < len(self.grow):
                x = self.grow[level](x, c)
        return self.last(F.silu(self.norm(x)))
