"""What a table says: one row per model, one column per metric, footnotes where protocols differ."""

import math
import re
import statistics
from dataclasses import dataclass, field, replace
from typing import Any

from genlab.better import badness, target
from genlab.errors import printable
from genlab.report.protocols import compared, difference
from genlab.report.records import Measurement, RunRecord, flat, number

COSTS = ("nfe", "ms_per_sample", "train_images_per_second", "parameters")
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
    kind: str = ""  # of a reference: one of checks.FLOORS; else "best" | "published", of a model nothing
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
        cells = {name: mean([run.best[name] for run in runs if name in run.best]) for name in names}
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


def published(entries: object, data: str) -> list[dict[str, Any]]:
    """The well-formed entries of a recipe's `published` that are of this data set, or that name none."""
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [e for e in entries if number(e.get("value")) is not None and e.get("data", data) == data]


def mean(measurements: list[Measurement]) -> Cell:
    """The mean over seeds, and their spread; of one seed that over its sets of samples, or the standard error."""
    first, *others = measurements
    values = [m.value for m in measurements]
    spread = statistics.stdev(values) if others and all(map(math.isfinite, values)) else None
    alone = first.spread if first.spread is not None else first.stderr
    kind = first.protocol.get("bound") or first.protocol.get("kind", "")
    return Cell(statistics.mean(values), spread if others else alone, kind=printable(kind))
