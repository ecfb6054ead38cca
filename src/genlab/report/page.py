"""The report as one page that needs nothing but itself: no server, no network."""

import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from genlab.errors import printable
from genlab.report.figures import colours
from genlab.report.formats import LEGEND, marks, number, seen, title
from genlab.report.gallery import plot, training, trajectories
from genlab.report.records import Measurement, RunRecord, flat
from genlab.report.tables import Cell, Column, Row, Table

PLOTS = {
    "cost": ("Quality against cost", "the leading metric against network evaluations and milliseconds per sample"),
    "curves": ("Learning curves", "training and validation loss of every model, and evaluations, over images seen"),
    "denoising": ("Denoising error by noise level", "mean squared error of the denoised image at ten levels of noise"),
}
Plots = dict[str, tuple[bytes | None, bytes | None]]  # by name, in light and in dark


def page(tables: Sequence[Table], plots: dict[str, Plots]) -> str:
    """The whole page, every picture inside it."""
    models = sum(len(table.rows) for table in tables)
    runs = sum(len(row.runs) for table in tables for row in table.rows)
    links = "".join(f'<a href="#data-{i}">{escape(table.data)}</a>' for i, table in enumerate(tables))
    return Template(files("genlab.report").joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"genlab: {' and '.join(table.data for table in tables)}"),
        subtitle=f"{_count(models, 'model')}, {_count(runs, 'run')}",
        contents=f'<nav aria-label="data sets">{links}</nav>' if len(tables) > 1 else "",
        sections="\n".join(_section(i, table, plots[table.data]) for i, table in enumerate(tables)),
        legend=escape(LEGEND),
    )


def _count(n: int, noun: str) -> str:
    """So many of something."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _section(i: int, table: Table, plots: Plots) -> str:
    """Everything about one data set."""
    data = escape(table.data)
    lines = [f"{symbol} {note}" for note, symbol in table.symbols.items()]
    lines += [f"{row.label}: {row.state}" for row in table.rows if row.state != row.brief_state] + table.alarms
    notes = "".join(f"<li>{escape(line)}</li>" for line in lines)
    drawn = {name: (light, dark) for name, (light, dark) in plots.items() if light and dark}
    return f"""<section aria-labelledby="data-{i}">
<h2 id="data-{i}">{data}</h2>
<div class="card">
<div class="wide" tabindex="0" role="region" aria-label="metrics of {data}">{_metrics(table)}</div>
{f'<ul class="notes">{notes}</ul>' if notes else ""}
</div>
{training(table)}
{trajectories(table)}
{"".join(plot(*PLOTS[name], *drawn[name]) for name in PLOTS if name in drawn)}
<div class="card"><h3>Runs</h3>{"".join(_run(run, row) for row in table.rows for run in row.runs)}</div>
</section>"""


def _metrics(table: Table) -> str:
    """The table of numbers, references apart from models."""
    heads = []
    for column in table.columns:
        first = "descending" if column.better == "higher" else "ascending"
        sorted_by = f'aria-sort="{first}"' if column == table.lead and column.better else ""
        heads.append(
            _head(title(column), first, sorted_by, f"{column.metric}; better: {column.better or 'not stated'}")
        )
    counts = [_head("seeds", "descending"), _head("images seen", "descending")]
    heads = [_head("model", "ascending", 'data-text="1"'), *heads[:1], *counts, *heads[1:]]
    bodies = {"references": table.references, "models": table.models}
    lines = {name: "".join(_line(row, table) for row in rows) for name, rows in bodies.items()}
    tbodies = "".join(f'<tbody class="{name}">{body}</tbody>' for name, body in lines.items() if body)
    return f'<table class="metrics"><thead><tr>{"".join(heads)}</tr></thead>{tbodies}</table>'


def _head(text: str, first: str, attributes: str = "", hint: str = "") -> str:
    """A heading that sorts, the end that matters first."""
    button = f'<button type="button" title="{escape(hint or text)}">{escape(text)}</button>'
    return f'<th scope="col" data-first="{first}" {attributes}>{button}</th>'


def _line(row: Row, table: Table) -> str:
    """One model or one reference."""
    swatch = f'<span class="swatch" style="background:{colours(table)[row.label]}"></span>' if row.runs else ""
    state = f' <span class="state">{escape(row.brief_state)}</span>' if row.state else ""
    state += ' <span class="state">collapse alarm</span>' if any(run.alarm for run in row.runs) else ""
    counts = [
        f'<td data-value="{len(row.runs)}">{row.size}</td>',
        f'<td data-value="{max(row.images_seen, default="")}">{seen(row)}</td>',
    ]
    name = f'<th scope="row" data-value="{escape(row.label)}">{swatch}{escape(row.label)}{state}</th>'
    numbers = [_number(row, column, table) for column in table.columns]
    return f"<tr>{''.join([name, *numbers[:1], *counts, *numbers[1:]])}</tr>"  # the lead is in sight on a phone


def _number(row: Row, column: Column, table: Table) -> str:
    """One number with its spread, what kind it is, and the symbols of its footnotes."""
    cell = row.cells.get(column.metric)
    if cell is None:
        return '<td data-value="">–</td>'
    value, _, spread = number(cell.value, cell.spread).partition(" ± ")
    key = cell.value if column.better in (None, "lower", "higher") else column.badness(cell.value)
    text = f"<b>{value}</b>" if cell.best else value
    text += f' <span class="spread">± {spread}</span>' if spread else ""
    text += f' <span class="kind">{escape(cell.kind)}</span>' if cell.kind else ""
    text += f"<sup>{marks(cell, table)}</sup>" if cell.notes else ""
    return (
        f'<td data-value="{key if math.isfinite(key) else ""}" title="{escape(_hint(row, column, cell))}">{text}</td>'
    )


def _hint(row: Row, column: Column, cell: Cell) -> str:
    """The values behind a mean, seed by seed, and the footnotes in full."""
    values = [f"seed {r.seed}: {r.metrics[column.metric].value:.6g}" for r in row.runs if r.seed in cell.seeds]
    return "\n".join([*values, *cell.notes])


def _run(run: RunRecord, row: Row) -> str:
    """Everything one run says about itself."""
    evaluations = [
        f"<h4>Evaluation {escape(printable(name))}</h4>{''.join(map(_measurement, measured.values()))}"
        for name, measured in reversed(run.evaluations.items())
    ]
    config = flat(run.config)
    return (
        f'<details><summary>{escape(row.label)}, seed {run.seed} <span class="quiet">{escape(run.state)} · '
        f"{escape(printable(run.path))}</span></summary><h4>Status</h4>{_pairs(flat(run.status))}{''.join(evaluations)}"
        f"<h4>Configuration</h4><details><summary>{len(config)} settings</summary>{_pairs(config)}</details></details>"
    )


def _measurement(measurement: Measurement) -> str:
    """One number with its whole protocol."""
    facts = flat({"better": measurement.better, **measurement.protocol})
    for kind, reference in measurement.references.items():
        facts[f"{kind} reference"] = f"{number(reference.value, reference.stderr)} (n = {reference.n})"
    text = f"{measurement.metric} {number(measurement.value, measurement.stderr)}"
    return f"<details><summary>{escape(text)}</summary>{_pairs(facts)}</details>"


def _pairs(facts: dict[str, object]) -> str:
    """Names and values."""
    items = (f"<dt>{escape(printable(k))}</dt><dd>{escape(printable(v))}</dd>" for k, v in facts.items())
    return f"<dl>{''.join(items)}</dl>"
