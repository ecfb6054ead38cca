"""The convolutional encoder and decoder of Wasserstein and regularized autoencoders. Ghosh et al. 2020, arXiv:1903.12436, and its code."""

import itertools

import torch
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.networks.layers import scaled

REACH = 5.0  # log s = 5 tanh(·)


def _batch_norm(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01), nn.ReLU()]  # of Keras


def _check(size: int) -> None:
    if size % 16:
        raise GenlabError(f"this autoencoder halves images four times, and {size} is not divisible by 16")


class Encoder(nn.Module):
    """x (B, C, size, size), y -> (μ, log s) (B, 2 · latent): 4×4 convolutions of stride 2 to `width` · (1, 2, 4, 8) channels."""

    def __init__(self, channels: int, size: int, width: int, latent: int, classes: int):
        super().__init__()
        _check(size)
        widths = [channels, *(width << i for i in range(4))]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), *_batch_norm(outputs)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        features = (width << 3) * (size // 16) ** 2
        self.label = nn.Embedding(classes, features) if classes else None
        self.mu, self.log_s = nn.Linear(features, latent), nn.Linear(features, latent)
        _begin(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.layers(x)
        h = h if self.label is None else h + self.label(y)
        return torch.cat([self.mu(h), REACH * self.log_s(h).tanh()], dim=1)


class Decoder(nn.Module):
    """z (B, latent), y -> means (B, C, size, size) in [-1, 1]: from a quarter of the size by transposed 4×4 convolutions."""

    def __init__(self, latent: int, channels: int, size: int, width: int, classes: int):
        super().__init__()
        _check(size)
        self.size, top = size, width << 3
        self.label = nn.Embedding(classes, latent) if classes else None
        self.project = nn.Linear(latent * (2 if classes else 1), top * (size // 4) ** 2)
        layers: list[nn.Module] = []
        for inputs in (top, top // 2):
            layers += [nn.ConvTranspose2d(inputs, inputs // 2, 4, 2, 1), *_batch_norm(inputs // 2)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(top // 4, channels, 4, 1, 1))
        _begin(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.label is not None:
            z = torch.cat([z, self.label(y)], dim=1)
        h = self.project(z).reshape(len(z), -1, self.size // 4, self.size // 4)
        h = self.layers(h)[:, :, : self.size, : self.size]  # a 4×4 kernel of stride 1 leaves one row too many
        return (h / 2).tanh()  # the paper's sigmoid, in [-1, 1]


def _begin(network: nn.Module) -> None:
    """Initial weights as Keras draws them."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            scaled(layer)  # pyright: ignore[reportArgumentType] - a transposed one has the same fans
