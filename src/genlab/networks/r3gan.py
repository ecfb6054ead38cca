"""R3GAN (Huang et al. 2024, arXiv:2501.05441, section 4, config E): grouped residual blocks, and no normalization."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.networks.layers import Down, Up, one_hot
from genlab.networks.resnet_gan import widths

GAIN = math.sqrt(2 / (1 + 0.2**2))  # of LeakyReLU with slope 0.2


def scaled(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """The layer with weights N(0, gain²/fan_in), fan_in counted within a group, and biases 0."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Residual(nn.Module):
    """x + W₃ a(W₂ ∗ a(W₁ x + b₁) + b₂): 1 × 1, 3 × 3 in groups, 1 × 1, a = LeakyReLU; W₃ = 0 at first.

    W₁ and W₂ are scaled by L^(-1/4) for a network of L = `depth` such blocks, as Fix-up has it (Zhang et al. 2019,
    arXiv:1901.09321). Raises GenlabError unless `group` divides the expanded channels.
    """

    def __init__(self, channels: int, expansion: int, group: int, depth: int):
        super().__init__()
        inner = expansion * channels
        if inner % group:
            raise GenlabError(f"R3GAN cannot cut {inner} channels into groups of {group}: change network.width")
        gain = GAIN * depth**-0.25
        self.conv1 = scaled(nn.Conv2d(channels, inner, 1), gain)
        self.conv2 = scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group), gain)
        self.conv3 = scaled(nn.Conv2d(inner, channels, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.conv1(x), 0.2)
        return x + self.conv3(F.leaky_relu(self.conv2(h), 0.2))


def change(inputs: int, outputs: int) -> nn.Module:
    """A 1 × 1 convolution where the channels change."""
    return nn.Identity() if inputs == outputs else scaled(nn.Conv2d(inputs, outputs, 1, bias=False))


class Generator(nn.Module):
    """z (B, latent), y -> (B, C, size, size): `blocks` residual blocks at 4 × 4, 8 × 8, ..., y by `embedding` numbers.

    The first 4 × 4 is a learned pattern for each channel, scaled by a linear function of z.
    """

    def __init__(
        self,
        latent: int,
        channels: int,
        size: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        expansion: int,
        group: int,
        taps: Sequence[float],
        embedding: int,
        classes: int,
    ):
        super().__init__()
        self.classes = classes
        sizes = widths(size, width, multipliers)
        self.label = scaled(nn.Linear(classes, embedding, bias=False)) if classes else None
        self.project = scaled(nn.Linear(latent + (embedding if classes else 0), sizes[0], bias=False))
        self.basis = nn.Parameter(torch.randn(sizes[0], 4, 4))
        layers: list[nn.Module] = []
        for i, o in zip([sizes[0], *sizes], sizes, strict=False):
            layers += [change(i, o), Up(taps)] if layers else []
            layers += [Residual(o, expansion, group, blocks * len(sizes)) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers)
        self.last = scaled(nn.Conv2d(sizes[-1], channels, 1, bias=False))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.label is not None:
            z = torch.cat([z, self.label(one_hot(y, self.classes, z))], dim=1)
        return self.last(self.layers(self.basis * self.project(z)[:, :, None, None]))


class Discriminator(nn.Module):
    """x (B, C, size, size), y -> (B,) critic values, the generator in reverse; with labels φ(x)·e_y."""

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        expansion: int,
        group: int,
        taps: Sequence[float],
        classes: int,
    ):
        super().__init__()
        self.classes = classes
        sizes = widths(size, width, multipliers)[::-1]
        last = sizes[-1]
        self.first = scaled(nn.Conv2d(channels, sizes[0], 1, bias=False))
        layers: list[nn.Module] = []
        for i, o in zip([sizes[0], *sizes], sizes, strict=False):
            layers += [Down(taps), change(i, o)] if layers else []
            layers += [Residual(o, expansion, group, blocks * len(sizes)) for _ in range(blocks)]
        basis = scaled(nn.Conv2d(last, last, 4, groups=last, bias=False))
        self.layers = nn.Sequential(*layers, basis, nn.Flatten())
        self.value = scaled(nn.Linear(last, last if classes else 1, bias=False))
        self.label = scaled(nn.Linear(classes, last, bias=False), last**-0.5) if classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.value(self.layers(self.first(x)))
        return h[:, 0] if self.label is None else (h * self.label(one_hot(y, self.classes, x))).sum(1)
