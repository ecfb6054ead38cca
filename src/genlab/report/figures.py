"""The plots of one table as PNG: learning curves, errors of denoising, and quality against the cost of a sample."""

import io
import math
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from genlab.report.formats import marks, title
from genlab.report.records import RunRecord
from genlab.report.tables import Cell, Column, Table

PALETTE = ("#3b7dd8", "#e8743b", "#2f9e63", "#d1495b", "#8b5fbf", "#1aa6a6", "#c9971c", "#a0694b", "#d966a8", "#7d8ca3")
WIDTH = 11.0  # inches
COLUMNS = 4
LOSSES = {"train/loss": {"ls": "-", "alpha": 0.5}, "val/loss": {"ls": "--"}}
PLACES = [(side, up) for up in (0, 11, -11, 22, -22, 33, -33) for side in (1, -1, 0) if (side, up) != (0, 0)]


def colours(table: Table) -> dict[str, str]:
    """One colour per model, the same in every figure however the models rank."""
    return {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(sorted(row.label for row in table.rows))}


def curves(table: Table, dark: bool = False) -> bytes | None:
    """Losses over images seen, each model on its own axes; evaluations during training on common ones."""
    runs = [(row.label, run) for row in table.rows for run in row.runs]
    logged = {key for _, run in runs for point in run.history for key in point}
    models = list(dict.fromkeys(label for label, run in runs if any(_series(run, key)[1] for key in LOSSES)))
    evaluations = sorted(key for key in logged if key.startswith("eval/"))
    if not models and not evaluations:
        return None
    colour = colours(table)
    losses = {m: [(run, k, LOSSES[k] | {"c": colour[m]}) for n, run in runs if n == m for k in LOSSES] for m in models}
    common = {k: [(run, k, {"c": colour[m], "marker": "o"}) for m, run in runs] for k in evaluations}
    with _style(dark):
        heights = [2.1 * math.ceil(len(panels) / COLUMNS) for panels in (losses, common) if panels]
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.7), layout="constrained")
        parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        for part, panels in zip(parts, filter(None, (losses, common)), strict=True):
            columns = min(COLUMNS, len(panels))
            axes = part.subplots(math.ceil(len(panels) / columns), columns, squeeze=False)
            for ax, (heading, lines) in zip(axes.flat, panels.items(), strict=False):
                _panel(ax, heading, lines, colour.get(heading, "#8a91a0"))
            for ax in axes.flat[len(panels) :]:
                ax.remove()
        figure.supxlabel("images seen", fontsize=9)
        keys = [Line2D([], [], **LOSSES[key] | {"c": "grey"}, label=key) for key in LOSSES if models]
        keys += [Line2D([], [], c=colour[label], label=label) for label in (colour if evaluations else ())]
        figure.legend(handles=keys, loc="outside upper center", ncols=min(10, len(keys)))
        return _png(figure)


def _panel(ax: Axes, heading: str, lines: list[tuple[RunRecord, str, dict[str, Any]]], colour: str) -> None:
    """A few logged series over images seen, on a log axis where they fall a long way."""
    values = []
    for run, key, style in lines:
        x, y = _series(run, key)
        alone: dict[str, Any] = {"marker": "o"} if len(x) == 1 else {}  # of which there is no line
        ax.plot(x, y, **{"lw": 1.2, "ms": 3} | alone | style)
        values += y
    if values and min(values) > 0 and max(values) > 20 * min(values):
        ax.set_yscale("log")
        _plain(ax.yaxis, values)
    ax.set_title(heading, color=colour)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))


def _series(run: RunRecord, key: str) -> tuple[list[float], list[float]]:
    """One logged value over images seen."""
    points = [(p["images_seen"], p[key]) for p in run.history if math.isfinite(p.get(key, math.nan))]
    return [x for x, _ in points], [y for _, y in points]


def denoising(table: Table, dark: bool = False) -> bytes | None:
    """The error of x̂ at ten levels of noise when training ended, a line for each run that has logged it."""
    lines: list[tuple[str, list[float]]] = []
    for row in table.rows:
        for run in row.runs:
            ends = [_series(run, f"val/x_error/{k}")[1][-1:] for k in range(10)]
            if all(ends):
                lines.append((row.label, [error for end in ends for error in end]))
    if not lines:
        return None
    with _style(dark):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        ax = figure.subplots()
        for label, errors in lines:
            ax.plot([(k + 0.5) / 10 for k in range(10)], errors, c=colours(table)[label], marker="o", lw=1.2, ms=3)
        values = [error for _, errors in lines for error in errors]
        if min(values) > 0:
            ax.set_yscale("log")
            _plain(ax.yaxis, values)
        ax.set_xlabel("noise level, as a quantile of the model's own p(t)")
        ax.set_ylabel("mean of (x̂ - x)² per dimension")
        keys = [Line2D([], [], c=colours(table)[label], label=label) for label in dict.fromkeys(n for n, _ in lines)]
        figure.legend(handles=keys, loc="outside upper center", ncols=min(6, len(keys)))
        return _png(figure)


def cost(table: Table, dark: bool = False) -> bytes | None:
    """The leading metric against milliseconds and network evaluations per sample, with the floor."""
    costs = [c for c in table.columns if c.metric in ("ms_per_sample", "nfe")]
    points = {column: _points(table, column) for column in reversed(costs)}
    points = {column: found for column, found in points.items() if found}
    if table.lead is None or table.lead in costs or not points:
        return None
    with _style(dark):
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        axes = figure.subplots(1, len(points), squeeze=False, sharey=True)[0]
        for ax, (column, found) in zip(axes, points.items(), strict=True):
            _scatter(ax, table, column, found)
        axes[0].set_ylabel(title(table.lead))
        front = Line2D([], [], c="grey", lw=3, alpha=0.3, label="no model is both cheaper and better")
        figure.legend(handles=[front], loc="outside upper right")
        figure.draw_without_rendering()  # the names need to know where the points came to lie
        for ax, found in zip(axes, points.values(), strict=True):
            _name(ax, table, found)
        return _png(figure)


def _points(table: Table, column: Column) -> dict[str, tuple[float, Cell]]:
    """By model what a sample costs, which must be positive on a log axis, and how good it is."""
    both = [(row.label, row.cells.get(column.metric), row.cells.get(table.columns[0].metric)) for row in table.rows]
    return {
        label: (price.value, quality)
        for label, price, quality in both
        if price and quality and math.isfinite(quality.value) and 0 < price.value < math.inf
    }


def _scatter(ax: Axes, table: Table, column: Column, points: dict[str, tuple[float, Cell]]) -> None:
    """The models as points with error bars, the floor as a line, and the front that no model beats on both counts."""
    lead = table.columns[0]
    floors = [
        row.cells[lead.metric] for row in table.references if row.kind in ("train", "test") and lead.metric in row.cells
    ]
    levels = [floor.value for floor in floors if not floor.notes]
    for label, (x, cell) in points.items():
        ax.errorbar(x, cell.value, cell.spread, fmt="o", ms=7, capsize=3, lw=1.2, c=colours(table)[label], zorder=3)
    for level in levels:
        ax.axhline(level, ls="--", lw=1.2, c="grey")
        ax.annotate("floor: real data", (0.01, level), (0, 4), ("axes fraction", "data"), "offset points", color="grey")
    front: list[tuple[float, float]] = []
    finished = {row.label for row in table.rows if not row.state}
    sound = [point for label, point in points.items() if label in finished and not point[1].notes]
    for x, cell in sorted(sound, key=lambda point: (point[0], lead.badness(point[1].value))):
        if not front or lead.badness(cell.value) < lead.badness(front[-1][1]):
            front.append((x, cell.value))
    if front:
        ax.step(*zip(*front, strict=True), where="post", c="grey", lw=3, alpha=0.3, zorder=1)
    values = [*levels, *(cell.value for _, cell in points.values())]
    if min(values) > 0:
        ax.set_yscale("log")
        _plain(ax.yaxis, values)
    ax.set_xscale("log")
    costs = [x for x, _ in points.values()]
    _plain(ax.xaxis, costs)
    ax.margins(x=0.12, y=0.1)
    if min(costs) == max(costs):  # around which a log axis has no margin
        ax.set_xlim(costs[0] / 2, 2 * costs[0])
    ax.set_xlabel(title(column))


def _plain(axis: Axis, values: list[float]) -> None:
    """Plain numbers on a log axis, and enough of them where it covers few decades."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < 2000 * min(values) else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def _name(ax: Axes, table: Table, points: dict[str, tuple[float, Cell]]) -> None:
    """Writes the names beside the points, each in the first place that is still free, with its footnote symbols."""
    scale = 72 / ax.figure.dpi
    frame = [edge * scale for edge in ax.get_window_extent().extents]
    at = {label: ax.transData.transform((x, cell.value)) * scale for label, (x, cell) in points.items()}
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in at.values()]
    for label, (x, y) in sorted(at.items(), key=lambda item: -item[1][1]):
        width = 6.2 * len(label)
        for side, up in PLACES:
            left, middle = x + side * (8 + width / 2) - width / 2, y + up
            box = (left, middle - 5, left + width, middle + 5)
            inside = frame[0] < box[0] and box[2] < frame[2] and frame[1] < box[1] and box[3] < frame[3]
            if inside and not any(b[0] < box[2] and box[0] < b[2] and b[1] < box[3] and box[1] < b[3] for b in taken):
                taken.append(box)
                offset, (cost, cell) = (left + width / 2 - x, up), points[label]
                name = label + marks(cell, table)
                text = ax.annotate(name, (cost, cell.value), offset, "data", "offset points", weight="bold")
                text.set(ha="center", va="center", color=colours(table)[label])
                break


def _style(dark: bool) -> AbstractContextManager[None]:
    """Quiet axes, on the background of the page in its light or its dark clothes."""
    ink, paper, line = ("#e4e7ee", "#171a21", "#3a404d") if dark else ("#1a1d24", "#ffffff", "#d5d9e0")
    settings: dict[Any, Any] = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), ink)
    settings |= dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), paper)
    settings |= dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize", "legend.fontsize"), 9)
    settings |= {
        "axes.edgecolor": line,
        "axes.grid": True,
        "grid.color": line,
        "grid.alpha": 0.5,
        "grid.linewidth": 0.6,
    }
    settings |= {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titleweight": "bold",
        "legend.frameon": False,
    }
    settings["text.parse_math"] = False  # a model may be called anything, dollars included
    return matplotlib.rc_context(settings)


def _png(figure: Figure) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()
