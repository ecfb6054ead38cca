"""The encoder and the decoder of VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937, section 4.1)."""

import torch.nn.functional as F
from torch import Tensor, nn

from genlab.networks.layers import halvings


class Residual(nn.Module):
    """x + conv1x1(ReLU(conv3x3(ReLU(x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Encoder(nn.Module):
    """x (B, C, H, W) -> (B, outputs, H / factor, W / factor): a 4 x 4 convolution for each halving, then residual blocks.

    GenlabError unless factor is a power of two that divides size.
    """

    def __init__(self, channels: int, size: int, width: int, blocks: int, factor: int, outputs: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(halvings(size, factor)):
            layers += [nn.Conv2d(channels, width, 4, 2, 1), nn.ReLU()]
            channels = width
        layers += [nn.Conv2d(channels, width, 3, padding=1), *(Residual(width) for _ in range(blocks)), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Decoder(nn.Module):
    """z (B, inputs, h, w) -> (B, C, h · factor, w · factor): residual blocks, then a transposed convolution a doubling."""

    def __init__(self, channels: int, size: int, width: int, blocks: int, factor: int, inputs: int):
        super().__init__()
        layers = [nn.Conv2d(inputs, width, 3, padding=1), *(Residual(width) for _ in range(blocks))]
        for _ in range(halvings(size, factor)):
            layers += [nn.ReLU(), nn.ConvTranspose2d(width, width, 4, 2, 1)]
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)
