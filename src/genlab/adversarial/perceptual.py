"""How far an image is from its reconstruction in the features of a network, as values."""

from typing import Any, Protocol

import torch
from torch import Tensor

from genlab.precision import wide


class Perceptual(Protocol):
    """A distance () of x and x̂ in model space; `discriminator` is the one that is being trained, whose weights are frozen."""

    def __call__(self, discriminator: Any, x: Tensor, x_hat: Tensor) -> Tensor: ...


class DiscriminatorFeatures:
    """The mean of |f(x) - f(x̂)| over each stage f of the discriminator but its values, and over the stages.

    Larsen et al. 2016, arXiv:1512.09300, eq. 7, in the form of pix2pixHD (Wang et al. 2018, arXiv:1711.11585, eq. 4), in place
    of latent diffusion's LPIPS, whose weights are no part of this.
    """

    def __call__(self, discriminator: Any, x: Tensor, x_hat: Tensor) -> Tensor:
        with torch.no_grad():
            real = discriminator.features(x)[:-1]
        fake = discriminator.features(x_hat)[:-1]
        return torch.stack([(wide(a) - b).abs().mean() for a, b in zip(real, fake, strict=True)]).mean()
