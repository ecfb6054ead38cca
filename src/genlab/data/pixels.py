"""One stored image of any kind as uint8 of one kind."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from genlab.errors import GenlabError


class Unfit(Exception):
    """What is wrong with one row, in words."""


def pixels(image: Any, shape: Sequence[int], crop: int | None, resample: str | None) -> np.ndarray:
    """The bytes, file or array of an image as (C, H, W) uint8, RGB or grey (ITU-R 601 luma).

    Turned as EXIF says; 16 bits divided by 257 and rounded; transparency over white. An image of H × W pixels stays as it is.
    Any other is cut to its central square of `crop` pixels (0: of its shorter side; null: not at all, so that what is not
    square is stretched) and resized by Pillow, whose filter `resample` is widened where it shrinks, against aliasing. Raises
    Unfit for what cannot be decoded, and for another size where `resample` is null.
    """
    channels, height, width = shape
    if isinstance(image, np.ndarray) and image.shape == tuple(shape):
        return image
    picture = _mode(_opened(image), channels)
    if picture.size != (width, height):
        if resample is None:
            raise Unfit(
                f"it has {picture.width}x{picture.height} pixels and not {width}x{height}: set data.source.resample=box"
            )
        picture = _cropped(picture, crop).resize((width, height), resampling(resample))
    array = np.asarray(picture)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _opened(image: Any) -> Image.Image:
    if image is None:
        raise Unfit("there is no image")
    try:
        if isinstance(image, np.ndarray):
            return _array(image)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual but readable files
            picture: Image.Image = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
            if picture.mode == "I" and picture.format == "TIFF":  # of others it is 16 bits
                raise ValueError("integers of 32 bits, whose range nobody knows: store it as 8 or 16")
            return ImageOps.exif_transpose(picture)
    except Exception as error:  # noqa: BLE001 - a decoder fed with anything raises anything
        raise Unfit(f"it cannot be decoded ({' '.join(str(error).split()) or type(error).__name__})") from None


def _array(image: np.ndarray) -> Image.Image:
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4) and image.shape[0] in (1, 3, 4):
        image = image.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image))


def _mode(picture: Image.Image, channels: int) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        deep = np.clip(np.asarray(picture, np.float64), 0, 65535)
        picture = Image.fromarray((deep / 257).round().astype(np.uint8))
    elif picture.mode == "F":
        raise Unfit("its pixels are floating-point numbers, whose range nobody knows: store it as 8 or 16 bits")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("L" if channels == 1 else "RGB")


def _cropped(picture: Image.Image, crop: int | None) -> Image.Image:
    if crop is None:
        return picture
    side = crop or min(picture.size)
    if side > min(picture.size):
        raise Unfit(f"it has {picture.width}x{picture.height} pixels, too few for data.source.crop={crop}")
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def resampling(resample: str | None) -> Any:
    """Pillow's filter of that name; raises GenlabError if there is none."""
    names = {f.name.lower(): f for f in Image.Resampling}
    if resample is not None and resample not in names:
        raise GenlabError(f"data.source.resample={resample}: there is {', '.join(sorted(names))}")
    return None if resample is None else names[resample]


def shape_of(image: Any) -> tuple[int, int, int]:
    """(C, H, W) of a stored image, one channel if it is grey and three if not; raises Unfit for what cannot be decoded."""
    picture = _opened(image)
    return 1 if picture.mode in ("1", "L") or picture.mode.startswith("I") else 3, picture.height, picture.width
