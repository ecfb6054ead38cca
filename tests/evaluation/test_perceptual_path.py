import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from genlab.codec import Pixels
from genlab.errors import GenlabError
from genlab.evaluation.features import Activations
from genlab.evaluation.perceptual_path import PerceptualPath, _arc
from genlab.interpolation import slerp
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream


class Flat:
    """Pixels as features."""

    name, fingerprint, layer, resize = "flat", "", "none", "none"

    def to(self, device: torch.device) -> "Flat":
        return self

    def __call__(self, x: Tensor) -> Activations:
        return Activations(x.flatten(1).float())


class Linear(nn.Module):
    """What PerceptualPath needs of a module: x = scale z as an image of four pixels, or a step of z."""

    device, choices = torch.device("cpu"), 0
    labels = GenerativeModule.labels

    def __init__(self, scale: float):
        super().__init__()
        self.scale, self.codec = scale, Pixels()

    def latents(self, noise: NoiseStream, n: int) -> Tensor:
        return noise.normal((n, 1, 2, 2))

    def render(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.scale * z.reshape(-1, 1, 2, 2)


def test_fractions_of_an_arc_are_those_of_slerp() -> None:
    torch.manual_seed(0)
    a, b, t = torch.randn(5, 7).double(), torch.randn(5, 7).double(), torch.rand(5, 1).double()
    expected = torch.stack([slerp(a[i : i + 1], b[i : i + 1], t[i])[0, 0] for i in range(5)])
    torch.testing.assert_close(_arc(a, b, t), expected)


def test_length_of_a_linear_generator_is_that_of_the_arc() -> None:
    """‖d/dt slerp(a, b; t)‖² by autograd, times (127.5 scale)²: x̂ in [−1, 1] is 127.5 x̂ + 127.5 in grey levels."""
    scale, n = 0.05, 2000
    value, error = PerceptualPath(Flat(), n=n, batch=300)(Linear(scale), torch.zeros(1), NoiseStream(0))["ppl_flat"]
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 200_000, 4, generator=generator).double()
    t = torch.rand(200_000, 1, generator=generator).double()
    speed = torch.func.jvp(lambda t: _arc(a, b, t), (t,), (torch.ones_like(t),))[1].square().sum(1)
    low, high = speed.quantile(0.01), speed.quantile(0.99)
    expected = (127.5 * scale) ** 2 * speed[(low <= speed) & (speed <= high)].mean().item()
    assert value == pytest.approx(expected, abs=4 * error)
    assert 0 < error < 0.05 * value


def test_batches_do_not_matter_and_images_are_not_rounded_but_clamped() -> None:
    def length(module: Linear, batch: int, eps: float = 1e-4) -> float:
        metric = PerceptualPath(Flat(), n=100, batch=batch, eps=eps)
        return metric(module, torch.zeros(1), NoiseStream(0))["ppl_flat"][0]

    assert length(Linear(0.05), 7) == pytest.approx(length(Linear(0.05), 100), rel=1e-12)
    assert length(Linear(0.05), 100) == pytest.approx(length(Linear(0.05), 100, 1e-3), rel=0.02), "a derivative"
    assert length(Linear(0.1), 100) == pytest.approx(4 * length(Linear(0.05), 100), rel=0.02)
    assert length(Linear(1e6), 100) < 1, "black and white images do not move"


def test_models_without_latents_and_broken_ones_are_refused() -> None:
    module = Linear(1.0)
    module.scale = math.nan
    with pytest.raises(GenlabError, match="nan or inf"):
        PerceptualPath(Flat(), n=10)(module, torch.zeros(1), NoiseStream(0))
    autoregressive = Linear(1.0)
    autoregressive.latents = partial(GenerativeModule.latents, autoregressive)  # type: ignore[method-assign, arg-type]
    with pytest.raises(GenlabError, match="draws no latents: use a GAN, a VAE, a flow"):
        PerceptualPath(Flat(), n=10)(autoregressive, torch.zeros(1), NoiseStream(0))
