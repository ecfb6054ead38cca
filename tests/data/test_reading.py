"""Factors read off images, against those that the images were rendered from."""

import pytest
import torch
from torch import Tensor

from genlab.data.reading import Reading, read
from genlab.data.scenes import NAMES, OUTLINES, WORDS, Scenes, covered, draw, painted, render
from genlab.errors import GenlabError
from genlab.noise import NoiseStream

N = 600
STREAM = NoiseStream(11)
SCENES = draw(STREAM, N, unseen=False)
X = render(SCENES, 32, STREAM)


def noisy(x: Tensor, sigma: float) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + sigma * noise).round().clamp(0, 255).to(torch.uint8)


def wrong(reading: Reading, scenes: Scenes, size: int = 32) -> dict[str, float]:
    """The share of misread discrete factors, and of the continuous ones the largest error, pixels or degrees."""
    errors = {name: (reading.scenes.column(name) != scenes.column(name)).float().mean().item() for name in WORDS}
    right = (reading.scenes.column("shape") == scenes.column("shape")) & (scenes.column("count") > 0)
    for name in ("x", "y", "radius"):
        errors[name] = size * (reading.scenes.column(name) - scenes.column(name))[right].abs().max().item()
    period = torch.tensor([outline.period for outline in OUTLINES.values()])[scenes.column("shape")]
    turns = right & (period > 0)
    off = (reading.scenes.column("rotation") - scenes.column("rotation"))[turns]
    off = (off + period[turns] / 2).remainder(period[turns]) - period[turns] / 2  # up to the symmetry
    errors["rotation"] = off.rad2deg().abs().max().item()
    return errors


@pytest.mark.parametrize(("sigma", "pixels", "degrees"), [(0, 0.25, 10), (8, 0.35, 15)])
def test_factors_are_read_as_they_were_rendered(sigma: float, pixels: float, degrees: float) -> None:
    reading = read(noisy(X, sigma))
    errors = wrong(reading, SCENES)
    assert reading.readable.all()
    assert all(errors[name] <= 0.01 for name in WORDS), errors
    assert all(errors[name] < pixels for name in ("x", "y", "radius")), errors
    assert errors["rotation"] < degrees


def test_larger_images_are_read_more_finely() -> None:
    stream = NoiseStream(12)
    scenes = draw(stream, 120, unseen=True)
    errors = wrong(read(render(scenes, 64, stream)), scenes, 64)
    assert all(errors[name] == 0 for name in WORDS)
    assert errors["rotation"] < 3


def test_the_grain_is_read() -> None:
    error = read(X).scenes.column("grain") - SCENES.column("grain")
    assert error.abs().mean() < 0.3


def test_a_reading_does_not_depend_on_the_batch() -> None:
    whole, alone = read(X[:200]), read(X[150:151])
    torch.testing.assert_close(alone.scenes.factors, whole.scenes.factors[150:151])
    torch.testing.assert_close(alone.misfit, whole.misfit[150:151])


def test_noise_and_empty_images_are_unreadable() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = torch.randint(0, 256, (64, 3, 32, 32), generator=generator, dtype=torch.uint8)
    normal = (128 + 40 * torch.randn(64, 3, 32, 32, generator=generator)).clamp(0, 255).to(torch.uint8)
    flat = torch.full((4, 3, 32, 32), 128, dtype=torch.uint8)
    for x in (uniform, normal, flat):
        assert not read(x).readable.any()


def test_images_that_are_nearly_scenes_are_unreadable() -> None:
    """Two scenes laid over each other, and scenes in which one of several figures has another colour."""
    blend = ((X[: N // 2].int() + X[N // 2 :].int()) // 2).to(torch.uint8)
    assert read(blend).readable.float().mean() < 0.05
    other = Scenes(SCENES.factors.clone(), SCENES.centres)
    other.factors[:, NAMES.index("colour")] = (SCENES.factors[:, NAMES.index("colour")] + 3) % 7
    painted_ = painted(other, covered(other, 32)).round().to(torch.uint8)
    halves = torch.cat([X[:, :, :, :16], painted_[:, :, :, 16:]], 3)
    left = (SCENES.centres[:, :, 0] < 0.5) & (torch.arange(3) < SCENES.column("count")[:, None])
    both = left.any(1) & (left.sum(1) < SCENES.column("count")) & (SCENES.column("count") > 1)
    assert read(halves[both]).readable.float().mean() < 0.05


def test_the_residual_is_that_of_the_image_less_the_scene() -> None:
    """Noise of σ grey levels on a plain background leaves a residual of σ."""
    plain = SCENES.factors.clone()
    plain[:, NAMES.index("grain")] = 0
    plain[:, NAMES.index("background")] = 1  # grey, where nothing is clipped
    scenes = Scenes(plain, SCENES.centres)
    x = render(scenes, 32, NoiseStream(0))
    assert read(x).residual.max() < 4
    assert read(noisy(x, 12)).residual.mean().item() == pytest.approx(12, rel=0.03)


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 1, 32, 32).byte(), torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 24).byte()]
)
def test_other_images_are_refused(x: Tensor) -> None:
    with pytest.raises(GenlabError, match="uint8 images"):
        read(x)
