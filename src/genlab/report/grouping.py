"""Runs become tables: one per data set, grouped over seeds, compared metric by metric, labelled and ranked."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genlab.comparable import PER_MODEL
from genlab.errors import printable
from genlab.report.protocols import compared, difference, usual_protocol
from genlab.report.records import Measurement, RunRecord, flat
from genlab.report.tables import COSTS, Cell, Column, Row, Table, mean

REFERENCES = {
    "train": "train vs {split} (floor)",
    "train_full": "more of train vs {split} (floor)",
    "test": "test vs {split} (floor)",
    "test_full": "more of test vs {split} (floor)",
    "noise": "noise vs {split} (ceiling)",
}
# Settings that never tell two groups apart.
MACHINE = ("seed", "hydra", "logger", "force", "output", "trainer.devices", "trainer.accelerator", "trainer.max_images")


def build(runs: Sequence[RunRecord]) -> list[Table]:
    """One table per data set, in the order in which the data sets came."""
    return [_table(data, [run for run in runs if run.data == data]) for data in dict.fromkeys(run.data for run in runs)]


def _table(data: str, runs: list[RunRecord]) -> Table:
    """Groups the runs of one data set over seeds and compares the groups metric by metric."""
    by_group: dict[Path, list[RunRecord]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        by_group.setdefault(run.group, []).append(run)
    groups = list(by_group.values())
    usual = {name: usual_protocol(_measurements(runs, name)) for name in _metrics(runs)}
    rows = [_row(label, group, usual) for label, group in zip(_labels(groups), groups, strict=True)]
    columns = tuple(
        Column(name, next((m.better for m in _measurements(runs, name) if m.better), None)) for name in usual
    )
    for column in columns:
        _mark_best(column, rows)
    return Table(data, columns, _references(runs, usual), tuple(sorted(rows, key=lambda row: _rank(row, columns))))


def _metrics(runs: list[RunRecord]) -> list[str]:
    """The metrics in order of appearance, but Fréchet distances first and costs last."""
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    return sorted(names, key=lambda n: (COSTS.index(n) + 1 if n in COSTS else 0, not n.startswith(("fd", "fid"))))


def _measurements(runs: list[RunRecord], name: str) -> list[Measurement]:
    """What the runs measured of one metric."""
    return [run.metrics[name] for run in runs if name in run.metrics]


def _row(label: str, group: list[RunRecord], usual: dict[str, dict[str, Any]]) -> Row:
    """Mean and spread over the seeds; runs that have not finished count only where none has."""
    counted = [run for run in group if run.finished] or group
    measured = {name: [run for run in counted if name in run.metrics] for name in usual}
    cells = {name: _cell(runs, name, usual[name]) for name, runs in measured.items() if runs}
    for name, cell in cells.items():
        if len(cell.seeds) < len(counted):
            some = f"of {len(cell.seeds)} of {len(counted)} seeds: the others have none"
            cells[name] = replace(cell, notes=(*cell.notes, some))
    return Row(label, cells, tuple(group), usual=usual)


def _cell(runs: list[RunRecord], name: str, usual: dict[str, Any]) -> Cell:
    """One metric over the seeds that measured it."""
    measurements = _measurements(runs, name)
    notes = [difference(compared(m), usual, "elsewhere") for m in measurements]
    chosen = [flat({k: v for k, v in m.protocol.items() if k in PER_MODEL}) for m in measurements]
    notes += [difference(other, chosen[0], f"seed {runs[0].seed}:") for other in chosen]
    seeds = [run.seed for run in runs] * 2
    where = {note: [seed for other, seed in zip(notes, seeds, strict=True) if other == note] for note in notes if note}
    return replace(
        mean(measurements),
        seeds=tuple(seeds[: len(runs)]),
        notes=tuple(
            note if len(where[note]) == len(runs) else f"seed {', '.join(map(str, where[note]))}: {note}"
            for note in where
        ),
    )


def _mark_best(column: Column, rows: list[Row]) -> None:
    """Marks the best of the finished rows whose numbers are comparable, where there are two to choose from."""
    badness = {
        i: column.badness(cell.value)
        for i, row in enumerate(rows)
        if not row.state and (cell := row.cells.get(column.metric)) and not cell.notes
    }
    finite = [value for value in badness.values() if math.isfinite(value)]
    for i, value in badness.items():
        if len(finite) > 1 and value == min(finite):
            rows[i].cells[column.metric] = replace(rows[i].cells[column.metric], best=True)


def _rank(row: Row, columns: tuple[Column, ...]) -> tuple[bool, float, str]:
    """Best first by the leading metric; rows without it at the end."""
    cell = row.cells.get(columns[0].metric) if columns else None
    badness = columns[0].badness(cell.value) if cell else math.nan
    return (math.isnan(badness), 0.0 if math.isnan(badness) else badness, row.label)


def _references(runs: list[RunRecord], usual: dict[str, dict[str, Any]]) -> tuple[Row, ...]:
    """The floor and the ceiling of every metric, one row for every n at which they were measured."""
    rows: dict[tuple[str, str, int | None], dict[str, Cell]] = {}
    for name, fields in usual.items():
        noted = [(difference(compared(m), fields, "elsewhere"), m) for m in _measurements(runs, name)]
        for note, measurement in sorted(noted, key=lambda pair: pair[0] != ""):  # the usual protocol speaks first
            for kind, reference in measurement.references.items():
                split = measurement.protocol.get("reference_split", "test")
                label = printable(REFERENCES.get(kind, "{kind} vs {split}").format(kind=kind, split=split))
                cell = Cell(reference.value, reference.stderr, notes=(note,) if note else ())
                rows.setdefault((kind, label, reference.n), {}).setdefault(name, cell)
    order = list(REFERENCES)
    by_kind = sorted(rows, key=lambda key: order.index(key[0]) if key[0] in order else len(order))
    return tuple(Row(label, rows[kind, label, n], kind=kind, n=n) for kind, label, n in by_kind)


def _brief(value: object, others: list[object]) -> str:
    """A setting in words: a float by four digits, where these tell it from the others."""
    short = f"{value:.4g}" if isinstance(value, float) else printable(value)
    rest = [other for other in others if isinstance(other, float) and other != value]
    return printable(value) if short in [f"{other:.4g}" for other in rest] else short


def _labels(groups: list[list[RunRecord]]) -> list[str]:
    """The model's name, with the settings that tell a group from others of the same model."""
    labels = []
    for first, *_ in groups:
        own = flat(first.config)
        rivals = [flat(other.config) for other, *_ in groups if other.model == first.model]
        differ = [k for k in own if not k.startswith(MACHINE) and any(own[k] != rival.get(k) for rival in rivals)]
        settings = list(
            dict.fromkeys(f"{k.rsplit('.')[-1]}={_brief(own[k], [r.get(k) for r in rivals])}" for k in differ)
        )
        suffix = ", ".join(settings) if 0 < len(settings) <= 3 else first.group.name
        labels.append(f"{first.model} ({suffix})" if len(rivals) > 1 else first.model)
    # The same configuration trained in two places, say by two versions of the code, differs in its place only.
    places = [f"{label} in {printable(first.path.parent)}" for label, (first, *_) in zip(labels, groups, strict=True)]
    return [label if labels.count(label) == 1 else place for label, place in zip(labels, places, strict=True)]
