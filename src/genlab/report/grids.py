"""Sample grids: which ones stand for a model, and all of them side by side in one picture."""

import io
import math
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from genlab.errors import GenlabError
from genlab.report.formats import marks, number
from genlab.report.records import RunRecord
from genlab.report.tables import Row, Table

PANEL = 420  # the side of one grid, in pixels
GAP, HEAD = 36, 76  # around the grids, above each of them
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # the one place where a font with ± and · surely lies


def showcase(row: Row) -> RunRecord | None:
    """The run whose samples stand for a model: the first seed that finished, else the first with samples at all."""
    shown = [run for run in row.runs if run.frames]
    return next((run for run in shown if run.finished), next(iter(shown), None))


def real_data(table: Table) -> Path | None:
    """The grid of real data, which any run may have written."""
    return next((path for row in table.rows for run in row.runs if (path := run.picture("data.png"))), None)


def summary(row: Row, table: Table) -> str:
    """The leading metric of a model and what a sample costs."""
    parts = [row.brief_state]
    if table.lead and (cell := row.cells.get(table.lead.metric)):
        parts.append(f"{table.lead.metric} {number(cell.value, cell.spread)}{marks(cell, table)}")
    if cost := row.cells.get("nfe"):
        parts.append(f"{number(cost.value)} NFE")
    return " · ".join(filter(None, parts))


def side_by_side(table: Table) -> bytes | None:
    """The last sample grid of every model beside the real data, as PNG."""
    panels = [("real data", table.data, real)] if (real := real_data(table)) else []
    panels += [(row.label, summary(row, table), run.frames[-1][1]) for row in table.rows if (run := showcase(row))]
    if not panels:
        return None
    grids = [_fitted(path) for *_, path in panels]
    columns = len(panels) if len(panels) <= 5 else min(math.ceil(len(panels) / 2), 6)
    lines = math.ceil(len(panels) / columns)
    width, height = max(grid.width for grid in grids), max(grid.height for grid in grids)
    picture = Image.new("RGB", (GAP + columns * (width + GAP), GAP // 2 + lines * (HEAD + height + GAP // 2)), "white")
    draw = ImageDraw.Draw(picture)
    for i, ((name, text, _), grid) in enumerate(zip(panels, grids, strict=True)):
        left, top = GAP + i % columns * (width + GAP), GAP // 2 + i // columns * (HEAD + height + GAP // 2)
        _write(draw, (left, top + 10), name, "DejaVuSans-Bold.ttf", 25, "#1a1d24", width)
        _write(draw, (left, top + 42), text, "DejaVuSans.ttf", 18, "#5b6270", width)
        picture.paste(grid, (left, top + HEAD))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def opened(path: Path) -> Image.Image:
    """The picture at a path, decoded."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise GenlabError(f"cannot read the picture {path}: {error}") from error


def _fitted(path: Path) -> Image.Image:
    """A grid at the width of a panel; small pixels grow by a whole factor, so that all stay equally large."""
    grid = opened(path)
    if grid.width > PANEL:
        return grid.resize((PANEL, max(1, grid.height * PANEL // grid.width)), Image.Resampling.LANCZOS)
    factor = round(PANEL / grid.width)
    return grid.resize((grid.width * factor, grid.height * factor), Image.Resampling.NEAREST)


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, font: str, size: int, fill: str, room: int
) -> None:
    """One line of text, in smaller letters where it would not fit, and cut where they would be too small."""
    letters = ImageFont.truetype(FONTS / font, size)
    if (long := draw.textlength(text, letters)) > room:
        letters = ImageFont.truetype(FONTS / font, max(12, int(size * room / long)))
    while text and draw.textlength(text, letters) > room:
        text = text[:-2].rstrip("… ") + "…" if len(text) > 2 else ""
    draw.text(at, text, fill, letters)
