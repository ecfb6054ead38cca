"""A convolutional encoder and decoder for square images of size 4 · 2^k; y enters both by embedding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.networks.layers import norm


class Residual(nn.Module):
    """x + conv(SiLU(GroupNorm(conv(SiLU(GroupNorm(x))))))."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.conv1 = norm(channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2, self.conv2 = norm(channels), nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


def _levels(size: int) -> int:
    levels = (size // 4).bit_length() - 1
    if levels < 1 or 4 << levels != size:
        raise GenlabError(f"this autoencoder takes images of size 8, 16, 32, ..., not {size}")
    return levels


class Encoder(nn.Module):
    """x (B, C, size, size), y -> (B, outputs)."""

    def __init__(self, channels: int, size: int, width: int, outputs: int, classes: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), Residual(width)]
        for i in range(_levels(size)):
            layers += [nn.Conv2d(width << i, width << (i + 1), 3, 2, 1), Residual(width << (i + 1))]
        features = (width << _levels(size)) * 16
        self.layers = nn.Sequential(*layers, nn.SiLU(), nn.Flatten())
        self.label = nn.Embedding(classes, features) if classes else None
        self.out = nn.Linear(features, outputs)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.layers(x)
        return self.out(h if self.label is None else h + self.label(y))


class Decoder(nn.Module):
    """z (B, latent), y -> (B, outputs, size, size), the parameters of a likelihood head."""

    def __init__(self, latent: int, size: int, width: int, outputs: int, classes: int):
        super().__init__()
        levels = _levels(size)
        top = width << levels
        self.label = nn.Embedding(classes, latent) if classes else None
        self.project = nn.Linear(latent * (2 if classes else 1), top * 16)
        layers: list[nn.Module] = [Residual(top)]
        for i in range(levels):
            inputs, outputs_ = top >> i, top >> (i + 1)
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs_, 3, padding=1), Residual(outputs_)]
        self.layers = nn.Sequential(*layers, norm(width), nn.SiLU(), nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.label is not None:
            z = torch.cat([z, self.label(y)], dim=1)
        return self.layers(self.project(z).reshape(len(z), -1, 4, 4))
