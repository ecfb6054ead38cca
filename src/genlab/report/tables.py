"""Runs become tables: one per data set, one row per model, one column per metric, footnotes where protocols differ."""

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genlab.better import badness, target
from genlab.comparable import PER_MODEL
from genlab.errors import printable
from genlab.report.protocols import compared, difference, usual_protocol
from genlab.report.records import Measurement, RunRecord, flat, number

COSTS = ("nfe", "ms_per_sample", "train_images_per_second", "parameters")
REFERENCES = {
    "train": "train vs {split} (floor)",
    "train_full": "more of train vs {split} (floor)",
    "test": "test vs {split} (floor)",
    "test_full": "more of test vs {split} (floor)",
    "noise": "noise vs {split} (ceiling)",
}
# Settings that never tell two groups apart.
MACHINE = ("seed", "hydra", "logger", "force", "output", "trainer.devices", "trainer.accelerator", "trainer.max_images")
SYMBOLS = "†‡§¶‖"


@dataclass(frozen=True)
class Column:
    """One metric and which way it gets better."""

    metric: str
    better: str | None

    @property
    def arrow(self) -> str:
        """The direction in which the metric gets better."""
        arrows = {None: "", "lower": "↓", "higher": "↑"}
        return arrows.get(self.better, f"→ {target(self.better):.4g}")

    def badness(self, value: float) -> float:
        """Smaller is better, whatever the metric; nan where nothing says which way is up."""
        return badness(value, self.better)


@dataclass(frozen=True)
class Cell:
    """One number of a table."""

    value: float
    spread: float | None  # standard deviation over seeds; of one seed over its sets of samples, or a standard error
    seeds: tuple[int, ...] = ()
    kind: str = ""  # bits per dimension: "bound" | "exact" | "ode", or which bound it is, such as "IW-64"
    notes: tuple[str, ...] = ()  # what differs in its protocol from the rest of the column
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One model with all its seeds, its best checkpoint, what was published of it, or one reference."""

    label: str
    cells: dict[str, Cell]
    runs: tuple[RunRecord, ...] = ()
    kind: str = ""  # of a reference: a key of REFERENCES; else "best" | "published", of a model nothing
    n: int | None = None  # of a reference: how many samples it compares
    usual: dict[str, dict[str, Any]] = field(default_factory=dict)  # of a model: the protocol of each column

    @property
    def size(self) -> str:
        """How many runs a model has, or how many samples a reference compares."""
        return str(len(self.runs)) if self.runs else "" if self.n is None else f"n = {self.n:,}"

    @property
    def state(self) -> str:
        """Nothing where every run finished; else what became of those that did not."""
        unfinished = [run for run in self.runs if not run.finished]
        if len(self.runs) == 1:
            return "".join(run.state for run in unfinished)
        finished = f"{len(self.runs) - len(unfinished)} of {len(self.runs)} seeds finished"
        return "; ".join([finished, *(f"seed {run.seed} {run.state}" for run in unfinished)]) if unfinished else ""

    @property
    def brief_state(self) -> str:
        """The state without its reasons."""
        return re.split("[:;]", self.state)[0]

    @property
    def published(self) -> "Row | None":
        """What the paper of its recipe says first of the same metrics, on the same data, at the same NFE and of a model of as
        many classes, where it says of how many."""
        config, nfe = self.runs[0].config, self.cells.get("nfe")
        own = {"nfe": nfe and nfe.value, "classes": config.get("model", {}).get("classes")}
        cells: dict[str, Cell] = {}
        for entry in published(config.get("published"), self.runs[0].data):
            metric = printable(entry.get("metric"))
            if metric not in self.cells or metric in cells:
                continue
            if any(value is not None and entry.get(key, value) != value for key, value in own.items()):
                continue
            source, protocol = (printable(entry.get(key, "unknown")) for key in ("source", "protocol"))
            at = f"{entry['nfe']} NFE; " if "nfe" in entry else ""
            cells[metric] = Cell(
                entry["value"], number(entry.get("spread")), notes=(f"published: {source}; {at}{protocol}",)
            )
        return Row(f"{self.label}, as published", cells, kind="published") if cells else None

    @property
    def best(self) -> "Row | None":
        """The same of the checkpoints that were kept for their score, where these are not the last."""
        runs = [run for run in self.runs if run.best]
        if not runs:
            return None
        names = dict.fromkeys(name for run in runs for name in run.best)
        cells = {name: _mean([run.best[name] for run in runs if name in run.best]) for name in names}
        seen = sorted(n for run in runs if isinstance(n := next(iter(run.best.values())).images_seen, int))
        where = " to ".join(f"{n:,}" for n in sorted({*seen[:1], *seen[-1:]})) or "?"
        by = {
            printable(flat(m.protocol).get("checkpoint.by") or "its score") for run in runs for m in run.best.values()
        }
        note = f"chosen for {', '.join(sorted(by))} in training, which flatters it"
        noted = {}
        for name, cell in cells.items():
            measured = [run.best[name] for run in runs if name in run.best and name in self.usual]
            differ = [difference(compared(m), self.usual[name], "elsewhere") for m in measured]
            noted[name] = replace(cell, notes=(note, *dict.fromkeys(filter(None, differ))))
        return Row(f"{self.label}, best checkpoint ({where} images)", noted, kind="best")

    @property
    def images_seen(self) -> list[int]:
        """The least and the most images its runs have seen; one number where they agree."""
        seen = [run.images_seen for run in self.runs if run.images_seen is not None]
        return sorted({min(seen), max(seen)}) if seen else []


@dataclass(frozen=True)
class Table:
    """Everything known about the models of one data set, the best first."""

    data: str
    columns: tuple[Column, ...]
    references: tuple[Row, ...]
    rows: tuple[Row, ...]

    @property
    def lead(self) -> Column | None:
        """The metric that orders the table: the first Fréchet distance, else the first metric there is."""
        return next(iter(self.columns), None)

    @property
    def models(self) -> tuple[Row, ...]:
        """The rows, each with its best checkpoint and what was published below it."""
        return tuple(line for row in self.rows for line in (row, row.best, row.published) if line)

    @property
    def alarms(self) -> list[str]:
        """What training warned of, run by run."""
        runs = [(row, run) for row in self.rows for run in row.runs if run.alarm]
        return [f"⚠ {row.label}, seed {run.seed}: {run.alarm}" for row, run in runs]

    @property
    def symbols(self) -> dict[str, str]:
        """The footnotes of the table and the symbol of each, in order of appearance."""
        notes = [note for row in (*self.references, *self.models) for cell in row.cells.values() for note in cell.notes]
        return {note: SYMBOLS[i % 5] * (1 + i // 5) for i, note in enumerate(dict.fromkeys(notes))}


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


def published(entries: object, data: str) -> list[dict[str, Any]]:
    """The well-formed entries of a recipe's `published` that are of this data set, or that name none."""
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [e for e in entries if number(e.get("value")) is not None and e.get("data", data) == data]


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
        _mean(measurements),
        seeds=tuple(seeds[: len(runs)]),
        notes=tuple(
            note if len(where[note]) == len(runs) else f"seed {', '.join(map(str, where[note]))}: {note}"
            for note in where
        ),
    )


def _mean(measurements: list[Measurement]) -> Cell:
    """The mean over seeds, and their spread; of one seed that over its sets of samples, or the standard error."""
    first, *others = measurements
    values = [m.value for m in measurements]
    spread = statistics.stdev(values) if others and all(map(math.isfinite, values)) else None
    alone = first.spread if first.spread is not None else first.stderr
    kind = first.protocol.get("bound") or first.protocol.get("kind", "")
    return Cell(statistics.mean(values), spread if others else alone, kind=printable(kind))


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
