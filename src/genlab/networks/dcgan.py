"""The DCGAN pair (Radford et al. 2016, arXiv:1511.06434), for square images of size 4 · 2^k."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from genlab.errors import GenlabError


def _stages(size: int) -> int:
    stages = int(math.log2(size / 4))
    if stages < 1 or 4 << stages != size:
        raise GenlabError(f"DCGAN draws images of size 8, 16, 32, ..., not {size}")
    return stages


def _initialize(module: nn.Module, std: float | None) -> None:
    """N(0, std²) weights, or for no std N(0, 2/fan_in) (He et al. 2015, arXiv:1502.01852, eq. 10).

    Raises GenlabError for a std that is not positive.
    """
    if std is not None and not std > 0:
        raise GenlabError(f"network.init_std={std:g}: a positive number, or null for He et al.'s")
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        transposed = isinstance(module, nn.ConvTranspose2d)  # a number that it draws meets 2 x 2 of 4 x 4 weights
        fan_in = 4 * module.in_channels if transposed else module.weight[0].numel()
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in) if std is None else std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Generator(nn.Module):
    """z (B, latent), y -> (B, C, size, size) in (-1, 1): transposed convolutions, batch norm, ReLU; y by embedding.

    `init_std` is that of the initial weights, 0.02 in the paper, section 4; None is He et al.'s, √(2/fan_in).
    """

    bound = 1.0
    """The largest number that it draws."""

    def __init__(self, latent: int, channels: int, size: int, width: int, classes: int, init_std: float | None = 0.02):
        super().__init__()
        stages = _stages(size)
        top = width * 2**stages
        self.label = nn.Embedding(classes, latent) if classes else None
        self.project = nn.Linear(latent * (2 if classes else 1), top * 16, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(top), nn.ReLU()]
        for i in range(stages):
            inputs, outputs = top >> i, top >> (i + 1)
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1), nn.Tanh())
        self.apply(partial(_initialize, std=init_std))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.label is not None:
            z = torch.cat([z, self.label(y)], dim=1)
        return self.layers(self.project(z).reshape(len(z), -1, 4, 4))


class Discriminator(nn.Module):
    """x (B, C, size, size), y -> (B,) critic values: strided convolutions, LeakyReLU, y by projection.

    Projection: D(x, y) = w·φ(x) + e_y·φ(x) (Miyato & Koyama 2018, arXiv:1802.05637, eq. 3). `spectral_norm` divides every
    weight by its largest singular value (Miyato et al. 2018, arXiv:1802.05957, eq. 8). `init_std` as the generator's.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        classes: int,
        batch_norm: bool,
        spectral_norm: bool = False,
        init_std: float | None = 0.02,
    ):
        super().__init__()
        stages = _stages(size)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2)]
        for i in range(stages):
            inputs, outputs = width << i, width << (i + 1)
            layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Flatten())
        features = (width << stages) * 16
        self.value = nn.Linear(features, 1)
        self.label = nn.Embedding(classes, features) if classes else None
        self.apply(partial(_initialize, std=init_std))
        if self.label is not None:  # it weighs features as `value` does
            nn.init.normal_(self.label.weight, std=math.sqrt(2 / features) if init_std is None else init_std)
        for layer in [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]:
            if spectral_norm:
                nn.utils.parametrizations.spectral_norm(layer)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.layers(x)
        value = self.value(h)[:, 0]
        return value if self.label is None else value + (self.label(y) * h).sum(1)
