"""The arc between two latents, and which images are its ends."""

import math

import pytest
import torch

from genlab.codec import Pixels
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.interpolation import between_samples, interpolate, lerp, pairs, slerp
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream


def test_slerp_walks_a_circle_at_constant_speed() -> None:
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    s = torch.linspace(0, 1, 5)
    (arc,) = slerp(a, b, s)
    angle = s * math.pi / 2
    torch.testing.assert_close(arc, 2 * torch.stack([angle.cos(), angle.sin()], 1))


def test_slerp_of_gaussian_latents_stays_gaussian() -> None:
    """Whose variance a straight line would halve on its middle: independent a and b are almost orthogonal."""
    a, b = torch.randn(2, 20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    middle = slerp(a, b, torch.tensor([0.5]))[:, 0]
    assert middle.shape == a.shape
    assert middle.var().item() == pytest.approx(1, abs=0.02)


def test_slerp_of_parallel_latents_is_the_line() -> None:
    a = torch.randn(3, 4, dtype=torch.float64)
    s = torch.tensor([0.0, 0.25, 1.0])
    torch.testing.assert_close(slerp(a, 3 * a, s), a[:, None] * (1 + 2 * s.double())[:, None])


def test_the_line_is_straight() -> None:
    a, b = torch.randn(2, 3, 4, 2, dtype=torch.float64)
    s = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    line = lerp(a, b, s)
    torch.testing.assert_close(line, torch.stack([a, a + (b - a) / 4, b], dim=1))


def test_pairs_are_disjoint_of_one_label_and_a_seeds_own() -> None:
    y = torch.arange(60) % 10
    first, second = pairs(Batch(torch.zeros(60, 1), y), 8, seed=0)
    assert torch.equal(y[first], y[second])
    assert len({*first.tolist(), *second.tolist()}) == 16
    assert torch.equal(first, pairs(Batch(torch.zeros(60, 1), y), 8, seed=0)[0])
    assert not torch.equal(first, pairs(Batch(torch.zeros(60, 1), y), 8, seed=1)[0])
    assert any((y[a] != y[b]).any() for a, b in [pairs(Batch(torch.zeros(60, 1), None), 8, seed=0)])
    with pytest.raises(GenlabError, match="no two test images"):
        pairs(Batch(torch.zeros(3, 1), torch.arange(3)), 8, seed=0)
    with pytest.raises(GenlabError, match="several labels"):
        pairs(Batch(torch.zeros(60, 1), torch.zeros(60, 3)), 8, seed=0)


class Shifted:
    """A conditional model whose latent is x - y."""

    codec, classes, device = Pixels(256), 10, "cpu"

    def encode(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x - y[:, None, None, None]

    def render(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return z + y[:, None, None, None]


def test_a_conditional_model_is_told_the_label_of_every_image() -> None:
    generator = torch.Generator().manual_seed(0)
    data = Batch(torch.randint(256, (80, 1, 4, 4), generator=generator, dtype=torch.uint8), torch.arange(80) % 10)
    rows, error = interpolate(Shifted(), data, steps=3, seed=0)  # type: ignore[arg-type]
    assert rows.shape == (8, 5, 1, 4, 4)
    assert error < 1e-6
    assert torch.equal(rows[:, 0], rows[:, 1])
    assert torch.equal(rows[:, -1], rows[:, -2])


class Drawn:
    """A conditional model without an encoder, whose image is its latent and whose label is its brightness."""

    codec, classes, choices, device = Pixels(256), 10, 10, "cpu"
    labels = GenerativeModule.labels

    def latents(self, noise: NoiseStream, n: int) -> torch.Tensor:
        return 0.1 * noise.normal((n, 1, 4, 4))

    def render(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return z + y[:, None, None, None] / 40


def test_between_samples_lie_what_the_curve_between_their_latents_makes() -> None:
    model = Drawn()
    rows = {along: between_samples(model, 5, 3, 7, along) for along in ("arc", "line")}  # type: ignore[arg-type]
    assert rows["arc"].shape == (8, 5, 1, 4, 4)
    for end in (0, -1):
        assert torch.equal(rows["arc"][:, end], rows["line"][:, end])
    a, b = rows["line"][:, 0].float(), rows["line"][:, -1].float()
    torch.testing.assert_close(rows["line"][:, 2].float(), (a + b) / 2, rtol=0, atol=1.01)  # two grey levels rounded
    assert (rows["arc"][:, 2].float() - rows["line"][:, 2].float()).abs().max() > 2, "the arc keeps the length"
    assert torch.equal(rows["arc"], between_samples(model, 5, 3, 7))  # type: ignore[arg-type]
    brighter = between_samples(model, 5, 3, 9).float() - rows["arc"].float()  # type: ignore[arg-type]
    torch.testing.assert_close(brighter, torch.full_like(brighter, 6.375), rtol=0, atol=1.01)
    with pytest.raises(GenlabError, match="along=curve: there is arc and line"):
        between_samples(model, 5, 3, 7, "curve")  # type: ignore[arg-type]
