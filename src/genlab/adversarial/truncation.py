"""Samples nearer to the middle of what a generator has learned: better ones, and fewer kinds of them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.noise import NoiseStream


class Truncation:
    """Styles w̄ + `value` · (w - w̄) of a generator that has styles; of any other z ~ N(0, I) given that no |z| is above `value`.

    Karras et al. 2019, arXiv:1812.04948, appendix B; Brock et al. 2019, arXiv:1809.11096, section 3.1, who draw numbers
    that are too large again. A choice of sampling, so not of the run's hash. Raises GenlabError for a negative value.
    """

    needs = "generator"
    steps = 1

    def __init__(self, value: float):
        if not value > 0:
            raise GenlabError(f"truncation={value}: it is above 0, and smaller ones keep less of what was learned")
        self.value = value

    def latents(self, generator: nn.Module, noise: NoiseStream, size: Sequence[int]) -> Tensor:
        """z of this size, of which row i depends on the stream's row i alone."""
        return noise.normal(size) if hasattr(generator, "style") else self.normal(noise.uniform(size))

    def render(self, generator: nn.Module, z: Tensor, y: Tensor | None, **noise: Tensor) -> Tensor:
        """G(z)."""
        styled = {"truncation": self.value} if hasattr(generator, "style") else {}
        return generator(z, y, **styled, **noise)

    def normal(self, u: Tensor) -> Tensor:
        """Φ⁻¹(½ + (u - ½)(Φ(value) - Φ(-value))): the quantile of N(0, 1) within ±value at u in [0, 1)."""
        inside = math.erf(self.value / math.sqrt(2))
        z = math.sqrt(2) * torch.erfinv((2 * u.double() - 1) * inside)
        return z.clamp(-self.value, self.value).to(u.dtype)
