"""Resizes against slow loops from their definitions and against Pillow itself."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genlab.errors import GenlabError
from genlab.evaluation.resize import Pillow, TF1Bilinear

SIZES = [(32, 32), (37, 61), (64, 299), (299, 299), (300, 517), (1, 5)]
PILLOW = {name: Image.Resampling[name.upper()] for name in ("bilinear", "bicubic", "lanczos")}


def pixels(*shape: int) -> Tensor:
    """Noise with black and white areas, in which a cubic overshoots."""
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[..., : shape[-1] // 3] = 255
    x[..., : shape[-2] // 4, :] = 0
    return x


def slow_tf1(image: Tensor, size: int) -> Tensor:
    """One output pixel after another, in float64."""
    height, width = image.shape
    out = torch.empty(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            v, u = i * height / size, j * width / size
            top, left = int(v), int(u)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = image[top, left] * (1 - (u - left)) + image[top, right] * (u - left)
            lower = image[bottom, left] * (1 - (u - left)) + image[bottom, right] * (u - left)
            out[i, j] = upper * (1 - (v - top)) + lower * (v - top)
    return out


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 29), (50, 71)])
def test_tf1_bilinear_is_its_definition(height: int, width: int) -> None:
    x = pixels(2, 3, height, width)
    out = TF1Bilinear(41)(x)
    assert out.shape == (2, 3, 41, 41)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out[1, 2].double(), slow_tf1(x[1, 2].double(), 41), rtol=0, atol=2e-3)


def test_tf1_bilinear_keeps_the_first_pixel_and_is_shifted_by_half_of_one() -> None:
    x = torch.arange(0, 256, 8, dtype=torch.uint8).expand(1, 1, 32, 32)
    out = TF1Bilinear(299)(x)[0, 0, 0]
    ramp = torch.arange(299) * 32 / 299 * 8
    torch.testing.assert_close(out, ramp.clamp_max(248), rtol=0, atol=1e-4)  # half-pixel centres would give ramp - 3.6


@pytest.mark.parametrize("filter", PILLOW)
@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [224, 75])
def test_pillow_in_floating_point(filter: str, height: int, width: int, size: int) -> None:
    x = pixels(1, 2, height, width)
    out = Pillow(filter, size)(x)
    for channel in range(2):
        image = Image.fromarray(x[0, channel].float().numpy())
        assert image.mode == "F"
        theirs = np.asarray(image.resize((size, size), PILLOW[filter]))
        np.testing.assert_allclose(out[0, channel].numpy(), theirs, rtol=0, atol=1e-3)


@pytest.mark.parametrize("filter", PILLOW)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pillow_of_8_bits_is_exact(filter: str, height: int, width: int) -> None:
    x = pixels(2, 3, height, width)
    out = Pillow(filter, 224, rounded=True)(x)
    theirs = np.asarray(Image.fromarray(x[1].permute(1, 2, 0).numpy()).resize((224, 224), PILLOW[filter]))
    np.testing.assert_array_equal(out[1].permute(1, 2, 0).numpy(), theirs)


def test_bicubic_of_torch_is_the_clean_one_in_enlarging() -> None:
    """EDM2's resize of FD-DINOv2 (2312.02696), to a hundredth of a grey level."""
    x = pixels(2, 3, 64, 48)
    theirs = torch.nn.functional.interpolate(x.float(), (224, 224), mode="bicubic", antialias=True)
    torch.testing.assert_close(Pillow("bicubic", 224)(x), theirs, rtol=0, atol=1e-2)


def test_floating_point_overshoots_and_8_bits_do_not() -> None:
    x = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    x[..., 8:] = 255
    assert Pillow("bicubic", 64)(x).max() > 256
    assert Pillow("bicubic", 64, rounded=True)(x).max() == 255
    clipped = Pillow("bicubic", 64, clipped=True)(x)
    torch.testing.assert_close(clipped, Pillow("bicubic", 64)(x).clamp(0, 255), rtol=0, atol=0)


def test_names_state_filter_depth_and_size() -> None:
    assert TF1Bilinear(299).name == "TF1 bilinear, no antialiasing, to 299"
    assert Pillow("bicubic", 299).name == "Pillow bicubic, floating point, to 299"
    assert Pillow("bicubic", 299, clipped=True).name == "Pillow bicubic, floating point, clipped, to 299"
    assert Pillow("bicubic", 224, rounded=True).name == "Pillow bicubic, 8-bit, to 224"


def test_an_unknown_filter_is_named_with_those_that_there_are() -> None:
    with pytest.raises(GenlabError, match="'cubic': there are bilinear, bicubic, lanczos"):
        Pillow("cubic", 299)
