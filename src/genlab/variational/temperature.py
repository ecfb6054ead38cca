"""Latents drawn from a prior whose deviations are smaller than they are."""

from typing import Protocol

from torch import Tensor

from genlab.errors import GenlabError
from genlab.noise import NoiseStream


class Drawing(Protocol):
    """A model whose prior can be drawn from at a temperature."""

    def draw(self, noise: NoiseStream, n: int, temperature: float) -> Tensor: ...


class Temperature:
    """z ~ N(μ, (t s)²) at every level, t < 1 giving up diversity for quality. Vahdat & Kautz 2020, arXiv:2007.03898, section 4.2.

    It is a choice of sampling: log_prob stays that of t = 1.
    """

    needs = "draw"
    steps = 1

    def __init__(self, temperature: float):
        if not temperature >= 0:
            raise GenlabError(f"sampler.temperature={temperature}: a number of 0 or more, 1 being the model itself")
        self.temperature = temperature

    def sample(self, module: Drawing, noise: NoiseStream, n: int) -> Tensor:
        """(n, latent)."""
        return module.draw(noise, n, self.temperature)
