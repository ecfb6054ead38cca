"""Every mode and size of image, against what it should be by arithmetic."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from genlab.data.pixels import Unfit, pixels

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)  # 6 high, 8 wide


def stored(image: Image.Image, form: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **more)
    return buffer.getvalue()


def asis(image: Image.Image, channels: int = 3, form: str = "PNG", **more: Any) -> np.ndarray:
    """The image as it comes out, at the size it has."""
    return pixels(stored(image, form, **more), (channels, image.height, image.width), None, None)


# ---------------------------------------------------------------------- modes


def test_colours_stay_as_they_are() -> None:
    assert np.array_equal(asis(Image.fromarray(RGB)), RGB.transpose(2, 0, 1))
    grey = asis(Image.fromarray(RGB[..., 0]))
    assert np.array_equal(grey, np.stack([RGB[..., 0]] * 3))
    palette = Image.fromarray(RGB // 64 * 64).quantize(256)
    assert palette.mode == "P"
    assert np.array_equal(asis(palette), np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    assert np.array_equal(asis(Image.fromarray(RGB[..., 0] > 99)), np.stack([(RGB[..., 0] > 99) * np.uint8(255)] * 3))


def test_grey_is_luma() -> None:
    """ITU-R 601: 0.299 R + 0.587 G + 0.114 B."""
    luma = RGB @ np.array([0.299, 0.587, 0.114])
    assert np.abs(asis(Image.fromarray(RGB), 1)[0] - luma).max() <= 1


def test_transparency_lies_over_white() -> None:
    alpha = RNG.integers(0, 256, (6, 8, 1), dtype=np.uint8)
    over = (RGB * (alpha / 255) + 255 * (1 - alpha / 255)).transpose(2, 0, 1)
    assert np.abs(asis(Image.fromarray(np.concatenate([RGB, alpha], 2))) - over).max() <= 1
    palette = Image.fromarray(RGB // 64 * 64).quantize(16)
    index = np.asarray(palette)[0, 0].item()
    assert (asis(palette, transparency=index)[:, 0, 0] == 255).all()
    grey = Image.fromarray(np.concatenate([RGB[..., :1], alpha], 2), "LA")
    assert np.abs(asis(grey, 1) - (RGB[..., 0] * (alpha[..., 0] / 255) + 255 - alpha[..., 0])).max() <= 1


def test_sixteen_bits_become_eight() -> None:
    """65535 is 255: divided by 257, not clipped at 255 and not shifted."""
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    assert asis(Image.fromarray(deep), 1)[0].tolist() == [[0, 0, 1, 1, 128, 255]]


def test_cmyk_is_converted() -> None:
    image = asis(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), form="TIFF")  # no cyan, all magenta and yellow: red
    assert image[:, 0, 0].tolist() == [255, 0, 0]


def test_exif_turns_the_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = pixels(stored(Image.fromarray(RGB), exif=exif), (3, 8, 6), None, None)
    assert np.array_equal(turned, np.rot90(RGB, -1).transpose(2, 0, 1))


def test_arrays_are_images_in_either_layout() -> None:
    for array in (RGB, RGB.transpose(2, 0, 1)):
        assert np.array_equal(pixels(array, (3, 6, 8), None, None), RGB.transpose(2, 0, 1))
    grey = RGB[..., 0]
    for array in (grey, grey[None], grey[..., None]):
        assert np.array_equal(pixels(array, (1, 6, 8), None, None), grey[None])


# ---------------------------------------------------------------------- size


def test_box_halving_is_the_mean_of_four() -> None:
    image = pixels(stored(Image.fromarray(RGB)), (3, 3, 4), None, "box")
    means = RGB.astype(float).reshape(3, 2, 4, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(image - means).max() <= 1, "rounded twice, once for each direction"


def test_crops_are_central() -> None:
    image = RNG.integers(0, 256, (218, 178, 3), dtype=np.uint8)  # CelebA's size
    cropped = pixels(stored(Image.fromarray(image)), (3, 140, 140), 140, "box")
    assert np.array_equal(cropped, image[39:179, 19:159].transpose(2, 0, 1)), (
        "(218 - 140) / 2 = 39, (178 - 140) / 2 = 19"
    )
    shorter = pixels(stored(Image.fromarray(RGB)), (3, 3, 3), 0, "box")
    whole = pixels(stored(Image.fromarray(RGB[:, 1:7])), (3, 3, 3), None, "box")
    assert np.array_equal(shorter, whole)


def test_bilinear_shrinking_is_antialiased() -> None:
    """As torch does it with antialias=True, and not as it does without."""
    image = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    ours = torch.from_numpy(pixels(stored(Image.fromarray(image)), (3, 10, 10), None, "bilinear").copy()).float()
    theirs = [F.interpolate(x, (10, 10), mode="bilinear", antialias=a)[0] for a in (True, False)]
    assert (ours - theirs[0]).abs().max() <= 1
    assert (ours - theirs[1]).abs().max() > 20


def test_an_image_of_the_right_size_stays_as_it_is() -> None:
    assert np.array_equal(pixels(stored(Image.fromarray(RGB)), (3, 6, 8), 4, "box"), RGB.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("image", "crop", "resample", "message"),
    [
        (stored(Image.fromarray(RGB)), None, None, "8x6 pixels and not 4x4: set data.source.resample=box"),
        (stored(Image.fromarray(RGB)), 7, "box", "8x6 pixels, too few for data.source.crop=7"),
        (stored(Image.fromarray(RGB))[:60], None, "box", "cannot be decoded"),
        (stored(Image.fromarray(RGB), "JPEG")[:-100], None, "box", "cannot be decoded"),
        (b"", None, "box", "cannot be decoded"),
        (b"no image", None, "box", "cannot be decoded"),
        (None, None, "box", "there is no image"),
        (Path("/nowhere.png"), None, "box", "cannot be decoded"),
        (stored(Image.fromarray(RGB[..., 0].astype(np.float32)), "TIFF"), None, "box", "floating-point"),
        (stored(Image.fromarray(RGB[..., 0].astype(np.int32)), "TIFF"), None, "box", "integers of 32 bits"),
    ],
)
def test_images_that_cannot_be_had(image: Any, crop: int | None, resample: str | None, message: str) -> None:
    with pytest.raises(Unfit, match=message):
        pixels(image, (3, 4, 4), crop, resample)
