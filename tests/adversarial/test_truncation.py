"""Truncated latents against the truncated normal, truncated styles against the mean style."""

import math

import pytest
import torch
from torch import Tensor, nn

from genlab.adversarial.truncation import Truncation
from genlab.errors import GenlabError
from genlab.networks.stylegan2 import Generator
from genlab.noise import NoiseStream


class Identity(nn.Module):
    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return z if y is None else z + y[:, None]


def drawn(truncation: Truncation, generator: nn.Module, noise: NoiseStream, size: tuple[int, int], y: Tensor | None):
    return truncation.render(generator, truncation.latents(generator, noise, size), y)


@pytest.mark.parametrize("value", [0.5, 2.0])
def test_latents_are_normal_between_their_bounds(value: float) -> None:
    """The variance of N(0, 1) given |z| <= a is 1 - 2a φ(a)/(2Φ(a) - 1)."""
    z = drawn(Truncation(value), Identity(), NoiseStream(0), (20_000, 4), None)
    assert z.abs().max() <= value
    assert z.abs().max() > 0.99 * value
    density = math.exp(-(value**2) / 2) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * value * density / math.erf(value / math.sqrt(2))
    assert z.var().item() == pytest.approx(variance, rel=0.02)
    assert z.mean().abs() < 0.01
    inside = math.erf(value / 2 / math.sqrt(2)) / math.erf(value / math.sqrt(2))
    assert (z.abs() < value / 2).float().mean().item() == pytest.approx(inside, abs=0.01)


def test_a_sample_depends_on_its_row_alone_and_its_label() -> None:
    draw, y = Truncation(1.0), torch.arange(8)
    whole = drawn(draw, Identity(), NoiseStream(0), (8, 3), y)
    parts = [
        drawn(draw, Identity(), NoiseStream(0, start), (n, 3), y[start : start + n]) for start, n in ((0, 5), (5, 3))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(
        whole - y[:, None], drawn(draw, Identity(), NoiseStream(0), (8, 3), None).add(y[:, None]) - y[:, None]
    )


def test_styles_are_drawn_towards_their_mean() -> None:
    """1 is the plain sample of the same noise; what is near 0 is the sample of the mean style."""
    torch.manual_seed(0)
    generator = Generator(6, 1, 8, 8, 64, 8, 2, [1, 3, 3, 1], 0)
    for _ in range(3):
        generator(torch.randn(16, 6))
    generator.eval()
    plain = generator(NoiseStream(0).normal((5, 6)))
    assert torch.equal(drawn(Truncation(1.0), generator, NoiseStream(0), (5, 6), None), plain)
    spread = [
        drawn(Truncation(value), generator, NoiseStream(0), (5, 6), None).std(0).mean().item()
        for value in (1e-6, 0.5, 1.0)
    ]
    assert spread[0] < 1e-5
    assert 0.2 < spread[1] / spread[2] < 0.9


def test_less_than_nothing_is_refused() -> None:
    for value in (0.0, -1.0):
        with pytest.raises(GenlabError, match="truncation="):
            Truncation(value)
