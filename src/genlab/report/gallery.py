"""The pictures of the page, each inside it as a data: URI."""

import base64
import io
import json
from html import escape
from pathlib import Path

from genlab.report.figures import colours
from genlab.report.grids import opened, real_data, showcase, summary
from genlab.report.tables import Row, Table

FRAMES = 40  # sample grids per model
BYTES = 200_000  # a larger grid is shrunk to SIDE pixels, or the page would not open
SIDE = 640


def training(table: Table) -> str:
    """The sample grids of all models with one slider over training."""
    rows = [(row, _thinned(run.frames)) for row in table.rows if (run := showcase(row))]
    if not rows:
        return ""
    real = real_data(table)
    first = [_figure("real data", table.data, "", _image(real, f"a grid of real {table.data} data"))] if real else []
    models = [_model(row, frames, table) for row, frames in rows]
    steps = sorted({images for _, frames in rows for images, _ in frames})
    last = len(steps) - 1
    return f"""<div class="card training"><h3>Samples over training</h3>
<div class="slider" hidden><button type="button">▶ Play</button>
<input type="range" min="0" max="{last}" value="{last}" step="1" aria-label="images seen" data-steps="{json.dumps(steps)}">
<output></output></div>
<div class="grids">{"".join(first + models)}</div></div>"""


def trajectories(table: Table) -> str:
    """How a sample comes about in each model, as animations that start when they are asked for."""
    kinds = {"trajectory.webp": "x_t", "denoised.webp": "x̂, what x_t is expected to become"}
    figures = [
        _figure(row.label, text, colours(table)[row.label], _image(path, f"how {row.label} makes its samples: {text}"))
        for row in table.rows
        for name, text in kinds.items()
        if (run := showcase(row)) and (path := run.picture(name))
    ]
    if not figures:
        return ""
    return (
        '<div class="card"><details class="plain"><summary>How samples come about (animated)</summary>'
        f'<div class="grids">{"".join(figures)}</div></details></div>'
    )


def plot(heading: str, alt: str, light: bytes, dark: bytes) -> str:
    """A figure in the clothes of the page."""
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{_uri(dark, "png")}">'
    image = f'<img src="{_uri(light, "png")}" alt="{escape(alt)}">'
    return f'<div class="card plot"><h3>{heading}</h3><picture>{source}{image}</picture></div>'


def _model(row: Row, frames: list[tuple[int, Path]], table: Table) -> str:
    """One model's grids over training; the last one shows where no script runs."""
    images = [
        _image(
            path,
            f"samples of {row.label} after {seen:,} images",
            f'data-seen="{seen}"{" hidden" * (i + 1 < len(frames))}',
        )
        for i, (seen, path) in enumerate(frames)
    ]
    return _figure(row.label, summary(row, table), colours(table)[row.label], "".join(images))


def _figure(name: str, text: str, colour: str, images: str) -> str:
    """A picture with its caption above."""
    swatch = f'<span class="swatch" style="background:{colour}"></span>' if colour else ""
    caption = f'{swatch}<b>{escape(name)}</b><small>{escape(text)}</small><small class="seen"></small>'
    return f"<figure><figcaption>{caption}</figcaption>{images}</figure>"


def _thinned(frames: list[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """At most FRAMES of them, evenly, the first and the last among them."""
    most = min(len(frames), FRAMES)
    return [frames[round(i * (len(frames) - 1) / max(most - 1, 1))] for i in range(most)]


def _image(path: Path, alt: str, attributes: str = "") -> str:
    """A picture from a file; small pixels stay square, a large picture shrinks."""
    content, kind, grid = path.read_bytes(), path.suffix.removeprefix("."), opened(path)
    pixels = ' class="pixels"' if grid.width < SIDE else ""
    if kind == "png" and len(content) > BYTES:
        grid.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        grid.save(buffer, "WEBP", quality=85)
        content, kind = buffer.getvalue(), "webp"
    return f'<img src="{_uri(content, kind)}" alt="{escape(alt)}"{pixels} {attributes}>'


def _uri(content: bytes, kind: str) -> str:
    """A picture as part of the page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
