"""Characters of the fonts that matplotlib carries, each under its own random affine map."""

import math
import string
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from genlab.data.rendered import Rendered
from genlab.errors import GenlabError
from genlab.noise import NoiseStream, key

FORMAT = 1  # counted up when the same seed comes to mean other images
SIZE = 32
CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase  # the 62 classes, in this order
SYMBOLS = ("cmex10", "cmsy10")  # have other signs in the places of the letters
CAPITAL, WIDEST, TALLEST = (
    17.6,
    20,
    24,
)  # pixels: the height of an H, and what wider or taller characters are pressed to
# The ranges of the jitter, all uniform; no character leaves the image, and o stays smaller than O.
ROTATION = math.radians(10)  # and back
SHEAR = 0.15  # and back
SCALE = 0.1  # more or less
SHIFT = 1.5  # pixels, each way
DETAIL = 3  # pixels of a stored character for one of the image


class Glyphs(Rendered):
    """White characters (N, 1, 32, 32) on black of 62 classes, x ↦ scale · rotation · shear · x + shift about their middle;
    image i is a function of (seed, split, i). Train and test share the fonts, and their jitter is independent.

    `fonts` is a folder of .ttf files, by default matplotlib's; raises GenlabError if none has all the characters.
    """

    def __init__(
        self,
        seed: int = 0,
        train: int = 50_000,
        test: int = 10_000,
        fonts: str | None = None,
        cache: str | None = None,
    ):
        folder = Path(matplotlib.get_data_path(), "fonts", "ttf") if fonts is None else Path(fonts).expanduser()
        self.where, self.files = folder, sorted(folder.glob("*.ttf"))
        known = [(path.name, path.stat().st_size) for path in self.files]
        recipe: dict[str, Any] = {"seed": seed, "format": FORMAT, "fonts": known}
        versions = {"pillow": PIL.__version__, "matplotlib": matplotlib.__version__, "torch": torch.__version__}
        super().__init__("glyphs", recipe, {"train": train, "test": test}, versions, cache)
        self.seed = seed

    @property
    def templates(self) -> Tensor:
        """Every character of every usable font, in the middle of a fine image: (fonts, 62, 96, 96) float32 in [0, 255]."""
        found = _templates(tuple(self.files))
        if not len(found):
            raise GenlabError(
                f"no font in {self.where} has all of {CHARACTERS}: set data.source.fonts to a folder of .ttf"
            )
        return found

    def rows(self, split: str, start: int, n: int) -> tuple[Tensor, Tensor]:
        u = NoiseStream(key(self.seed, "glyphs", split), start).uniform((n, 7))
        y, font = (u[:, 0] * len(CHARACTERS)).long(), (u[:, 1] * len(self.templates)).long()
        where = _inverse(2 * u[:, 2:] - 1)[:, :, :, None, None]  # (n, 2, 3, 1, 1)
        axis = (torch.arange(2 * SIZE) + 0.5) / SIZE - 1  # of twice as many points as pixels
        # element by element: the products of matrices depend in the last bit on how many there are
        grid = where[:, :, 0] * axis + where[:, :, 1] * axis[:, None] + where[:, :, 2]  # (n, 2, 64, 64)
        x = F.grid_sample(self.templates[font, y][:, None], grid.movedim(1, 3), align_corners=False)
        return F.avg_pool2d(x, 2).round().to(torch.uint8), y


def _inverse(u: Tensor) -> Tensor:
    """From the image back to the character: (n, 5) in [−1, 1] -> (n, 2, 3), in halves of the image's side."""
    angle, shear, scale = ROTATION * u[:, 0], SHEAR * u[:, 1], 1 + SCALE * u[:, 2]
    right, down = (SHIFT / (SIZE / 2) * u[:, 3:]).unbind(1)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = ((cos + shear * sin, sin - shear * cos), (-sin, cos))  # [1 −k; 0 1] R(−θ) / s
    return torch.stack([torch.stack([a, b, -a * right - b * down], 1) for a, b in rows], 1)


@cache
def _templates(files: tuple[Path, ...]) -> Tensor:
    usable = [ImageFont.truetype(str(path), 4 * SIZE) for path in files if path.stem not in SYMBOLS]
    drawn = [torch.stack([_template(font, c) for c in CHARACTERS]) for font in usable if _complete(font)]
    return torch.stack(drawn) if drawn else torch.empty(0)


def _complete(font: ImageFont.FreeTypeFont) -> bool:
    """Whether every character has a picture of its own; what a font lacks is empty, or looks like U+FFFF."""
    pictures = {_ink(font, c).tobytes() for c in CHARACTERS} - {_ink(font, "\uffff").tobytes()}
    return len(pictures) == len(CHARACTERS) and all(map(any, pictures))


def _ink(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    """The character, and no more."""
    left, top, right, bottom = map(int, font.getbbox(character))
    page = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(page).text((-left, -top), character, fill=255, font=font)
    return page.crop(page.getbbox())


def _template(font: ImageFont.FreeTypeFont, character: str) -> Tensor:
    """One character, scaled by the height of its font's H and pressed into what the image has room for: (96, 96)."""
    ink = _ink(font, character)
    scale = DETAIL * CAPITAL / _ink(font, "H").height
    width = max(1, round(min(ink.width * scale, DETAIL * WIDEST)))
    height = max(1, round(min(ink.height * scale, DETAIL * TALLEST)))
    page = Image.new("L", (DETAIL * SIZE, DETAIL * SIZE))
    page.paste(
        ink.resize((width, height), Image.Resampling.BICUBIC), ((page.width - width) // 2, (page.height - height) // 2)
    )
    return torch.from_numpy(np.array(page, np.float32))
