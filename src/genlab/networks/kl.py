"""The encoder and the decoder of latent diffusion's autoencoders (Rombach et al. 2022, arXiv:2112.10752, appendix G)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.networks.layers import attend, halvings, norm


class Residual(nn.Module):
    """skip(x) + conv2(SiLU(norm(conv1(SiLU(norm(x))))))."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Attention(nn.Module):
    """x + out(softmax(q kᵀ/√C) v) over positions, one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(attend(self.qkv(self.norm(x)), 1))


def _middle(channels: int) -> list[nn.Module]:
    return [Residual(channels, channels), Attention(channels), Residual(channels, channels)]


def _check(size: int, factor: int, multipliers: Sequence[int]) -> None:
    if halvings(size, factor) != len(multipliers) - 1:
        raise GenlabError(f"network.factor={factor} goes with {halvings(size, factor) + 1} network.multipliers")


class Encoder(nn.Module):
    """x (B, C, H, W) -> (B, 2 · latent, H / factor, W / factor): means and log variances, attention at the bottom alone.

    GenlabError unless factor is 2^(len(multipliers) - 1) and divides size.
    """

    def __init__(
        self, channels: int, size: int, width: int, multipliers: Sequence[int], blocks: int, factor: int, latent: int
    ):
        super().__init__()
        _check(size, factor, multipliers)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
        current = width
        for level, multiplier in enumerate(multipliers):
            if level:
                layers += [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(current, current, 3, 2)]
            for _ in range(blocks):
                layers.append(Residual(current, width * multiplier))
                current = width * multiplier
        layers += [*_middle(current), norm(current), nn.SiLU(), nn.Conv2d(current, 2 * latent, 3, padding=1)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(2 * latent, 2 * latent, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Decoder(nn.Module):
    """z (B, latent, h, w) -> (B, C, h · factor, w · factor); `last` is the layer by which losses are weighed."""

    def __init__(
        self, channels: int, size: int, width: int, multipliers: Sequence[int], blocks: int, factor: int, latent: int
    ):
        super().__init__()
        _check(size, factor, multipliers)
        current = width * multipliers[-1]
        layers: list[nn.Module] = [nn.Conv2d(latent, latent, 1), nn.Conv2d(latent, current, 3, padding=1)]
        layers += _middle(current)
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                layers.append(Residual(current, width * multiplier))
                current = width * multiplier
            if level:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(current, current, 3, padding=1)]
        self.layers = nn.Sequential(*layers, norm(current), nn.SiLU())
        self.last = nn.Conv2d(current, channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(self.layers(z))
