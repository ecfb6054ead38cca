"""Numbers as text, and the tables as Markdown, CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from genlab.files import finite
from genlab.report.tables import Cell, Column, Row, Table

TITLES = {
    "nfe": "NFE",
    "ms_per_sample": "ms/sample",
    "train_images_per_second": "train img/s",
    "parameters": "params",
    "bits_per_dim": "bits/dim",
}
PARTS = ("spread", "seeds", "kind")  # what the CSV says of every number
LEGEND = (
    "↓ lower is better, ↑ higher is better, → closer to the number is better; bold: the best of the finished models. "
    "± is the sample standard deviation over seeds; with one seed, over its sets of "
    "samples, or of one set the standard error of its estimate."
)


def title(column: Column) -> str:
    """The heading of a column."""
    return f"{TITLES.get(column.metric, column.metric)} {column.arrow}".rstrip()


def number(value: float, spread: float | None = None) -> str:
    """A number with as many digits as its spread supports: the spread keeps one, or two below 3.5; alone it keeps four."""
    if not math.isfinite(value):
        return str(value)
    if spread is None or not math.isfinite(spread) or spread <= 0:
        return _alone(value)
    if max(abs(value), spread) < 1e-4:
        return f"{value:.2e} ± {spread:.1e}"
    magnitude = math.floor(math.log10(spread))
    decimals = min(max((spread / 10**magnitude < 3.5) - magnitude, 0), 6)
    return f"{value:,.{decimals}f} ± {spread:,.{decimals}f}"


def _alone(value: float) -> str:
    """A number of which no uncertainty is known."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:,.4g} M"
    if value == int(value) or size >= 1e3:
        return f"{value:,.0f}"
    return f"{value:.4g}" if size >= 1e-3 else f"{value:.2e}"


def seen(row: Row) -> str:
    """The images its runs have seen, a range where they differ."""
    return " – ".join(f"{images:,}" for images in row.images_seen)


def marks(cell: Cell, table: Table) -> str:
    """The footnote symbols of a cell."""
    return "".join(table.symbols[note] for note in cell.notes)


def markdown(tables: Sequence[Table], figures: dict[str, list[str]]) -> str:
    """The report as Markdown: tables, footnotes and links to the figures."""
    parts = ["# genlab report", ""]
    for table in tables:
        head = ["model", "seeds", "images seen", *map(title, table.columns)]
        parts += [f"## {_md(table.data)}", "", _md_line(map(_md, head)), _md_line([":--", *["--:"] * (len(head) - 1)])]
        parts += [_md_line(_md_row(row, table)) for row in (*table.references, *table.models)]
        parts += ["", *(f"{symbol} {_md(note)}  " for note, symbol in table.symbols.items())]
        parts += [*(f"{_md(line)}  " for line in table.alarms), LEGEND, ""]
        parts += [f"![{name.removesuffix('.png')} of {_md(table.data)}]({name})\n" for name in figures[table.data]]
    return "\n".join(parts)


def _md_row(row: Row, table: Table) -> list[str]:
    """The cells of one row of a Markdown table."""
    label = f"{_md(row.label)}<br>{_md(row.state)}" if row.state else _md(row.label)
    cells = [row.cells.get(column.metric) for column in table.columns]
    return [
        label if row.runs else f"*{label}*",
        row.size,
        seen(row),
        *("" if cell is None else _md_cell(cell, table) for cell in cells),
    ]


def _md_cell(cell: Cell, table: Table) -> str:
    """One number in Markdown."""
    text = number(cell.value, cell.spread)
    return " ".join(filter(None, [f"**{text}**" if cell.best else text, _md(cell.kind)])) + marks(cell, table)


def _md_line(cells: Iterable[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _md(text: str) -> str:
    """Text that Markdown and the HTML inside it leave alone."""
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|~" else c for c in plain)


def to_csv(tables: Sequence[Table]) -> str:
    """One line per row of every table, numbers in full."""
    lines = [_csv_line(row, table) for table in tables for row in (*table.references, *table.models)]
    metrics = dict.fromkeys(column.metric for table in tables for column in table.columns)
    numbers = [name for metric in metrics for name in (metric, *(f"{metric}_{part}" for part in PARTS))]
    written = {name for line in lines for name in line}
    text = io.StringIO()
    fields = [
        "data",
        "row",
        "model",
        "state",
        "seeds",
        "n",
        "images_seen",
        *filter(written.__contains__, numbers),
        "notes",
    ]
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _csv_line(row: Row, table: Table) -> dict[str, Any]:
    """What there is to say of one row; a field without content is left out."""
    line: dict[str, Any] = {
        "data": table.data,
        "row": "model" if row.runs else row.kind if row.kind in ("best", "published") else "reference",
        "model": row.label,
        "n": row.n,
    }
    if row.runs:
        line |= {"state": row.state or "finished", "seeds": len(row.runs)}
        line["images_seen"] = "-".join(map(str, row.images_seen))
    for metric, cell in row.cells.items():
        line[metric] = cell.value
        parts = zip(PARTS, (cell.spread, len(cell.seeds) or None, cell.kind or None), strict=True)
        line |= {f"{metric}_{part}": value for part, value in parts if value is not None}
    line["notes"] = "; ".join(f"{metric}: {note}" for metric, cell in row.cells.items() for note in cell.notes)
    return line


def to_json(tables: Sequence[Table]) -> str:
    """Everything the tables hold, with the measurements of every seed and their protocols."""
    return json.dumps(finite([_plain(table) for table in tables]), indent=1, allow_nan=False)


def _plain(table: Table) -> dict[str, Any]:
    """A table as plain containers."""
    return {
        "data": table.data,
        "columns": [asdict(column) for column in table.columns],
        "references": [
            {"label": r.label, "n": r.n, "cells": {m: asdict(c) for m, c in r.cells.items()}} for r in table.references
        ],
        "rows": [
            {
                "label": row.label,
                "state": row.state or "finished",
                "cells": {metric: asdict(cell) for metric, cell in row.cells.items()},
                "best": {m: asdict(c) for m, c in row.best.cells.items()} if row.best else {},
                "published": {m: asdict(c) for m, c in row.published.cells.items()} if row.published else {},
                "runs": [
                    {"path": str(run.path), "model": run.model, "seed": run.seed, "status": run.status}
                    | {"metrics": {metric: asdict(m) for metric, m in run.metrics.items()}}
                    for run in row.runs
                ],
            }
            for row in table.rows
        ],
    }
