"""Samples as pictures: grids of images, scatter plots of points, animations of trajectories."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor


def picture(x: Tensor, scale: int = 4, columns: int | None = None) -> Image.Image:
    """Images (N, C, H, W) uint8 as a grid, square unless `columns` says otherwise; points (N, 2) as a scatter plot; latents,
    which are floats, as a grid of false colours: their first three channels, from black at -3 of their deviations to white;
    bytes of text (N, T) as the page that they would fill.

    `scale` is how many pixels of the screen a pixel is.
    """
    if x.ndim == 4 and x.is_floating_point():
        level = x[:, :3].float().nan_to_num()
        x = ((level - level.mean()) / level.std().clamp_min(1e-6) * 42.5 + 127.5).clamp(0, 255).byte()
    if x.ndim == 2:
        return _scatter(x) if x.is_floating_point() else _page(texts(x))
    return _grid(x, scale, columns or math.ceil(math.sqrt(len(x))))


def texts(x: Tensor) -> list[str]:
    """Rows of bytes (N, T) as text, with \ufffd for what is none."""
    return [bytes(row).decode(errors="replace") for row in x.cpu().numpy()]


def _page(samples: Sequence[str], lines: int = 48, columns: int = 88) -> Image.Image:
    """The first samples, a blank line between them."""
    wrapped = [
        line[i : i + columns] for text in samples[:lines] for line in _printable(text) for i in _starts(line, columns)
    ]
    font = ImageFont.load_default(12)
    page = Image.new("L", (7 * columns, 15 * lines), 255)
    for i, line in enumerate(wrapped[:lines]):
        ImageDraw.Draw(page).text((4, 15 * i), line, 0, font)
    return page


def _printable(text: str) -> list[str]:
    return ["".join(c if c.isprintable() else " " for c in line) for line in text.split("\n")] + [""]


def _starts(line: str, columns: int) -> range:
    return range(0, max(1, len(line)), columns)


def _grid(x: Tensor, scale: int, columns: int) -> Image.Image:
    n, channels, height, width = x.shape
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 64, np.uint8)
    for i, image in enumerate(x.cpu().permute(0, 2, 3, 1).numpy()):
        top, left = i // columns * (height + 1) + 1, i % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = image
    drawn = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    return drawn.resize((drawn.width * scale, drawn.height * scale), Image.Resampling.NEAREST)


def _scatter(x: Tensor, size: int = 256) -> Image.Image:
    """The first two coordinates, over [-3, 3]² or over as many times 2 of it as 99 % of the points need, up to 2⁸: what lies
    farther is of a model that has diverged."""
    far = x[:, :2].abs().nan_to_num(0.0, posinf=0.0).amax(1).quantile(0.99).item()
    limit = 3.0 * 2 ** min(8, max(0, math.ceil(math.log2(max(far, 1.0) / 3))))
    counts, _, _ = np.histogram2d(
        -x[:, 1].cpu().numpy(), x[:, 0].cpu().numpy(), bins=size, range=[[-limit, limit], [-limit, limit]]
    )
    ink = 255 * (1 - np.minimum(1.0, counts / max(1.0, np.percentile(counts[counts > 0], 95) if counts.any() else 1.0)))
    return Image.fromarray(ink.astype(np.uint8))


def film(frames: Sequence[tuple[Tensor, Tensor | None]], folder: Path, most: int) -> None:
    """trajectory.webp and, where there is an x̂, denoised.webp of frames (x_t, x̂) in data space; nothing of a model that has
    one step."""
    if len(frames) > 1:
        # as many at equal distances, and the last, tell as much as a thousand
        x_t, x_hat = zip(*frames[: -1 : max(1, len(frames) // most)], frames[-1], strict=True)
        animate([picture(x) for x in x_t], folder / "trajectory.webp")
        if x_hat[0] is not None:
            animate([picture(x) for x in x_hat], folder / "denoised.webp")


def animate(frames: Sequence[Image.Image], path: Path, seconds: float = 4.0) -> None:
    """An animated WebP that stays on its last frame for a second."""
    durations = [round(1000 * seconds / len(frames))] * (len(frames) - 1) + [1000]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, lossless=True)
