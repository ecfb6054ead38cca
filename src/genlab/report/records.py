"""A run directory read back: everything the report knows about one run, from its files alone."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab.comparable import PER_MODEL
from genlab.errors import GenlabError, printable
from genlab.recorded import configuration


@dataclass(frozen=True)
class Reference:
    """What a metric says of samples that no model made: real ones (its floor) or noise (its ceiling)."""

    value: float
    stderr: float | None
    n: int | None


@dataclass(frozen=True)
class Measurement:
    """One line of metrics.jsonl."""

    metric: str
    value: float
    stderr: float | None
    better: str | None  # "lower" | "higher" | "closer to <value>"
    references: dict[str, Reference]
    protocol: dict[str, Any]
    spread: float | None = None  # over several sets of samples
    line: int = 0  # of the file, where its evaluation begins

    @property
    def best(self) -> bool:
        """Whether it is of the checkpoint that was kept for its score, and not of the last one."""
        return _dict(self.protocol.get("checkpoint")).get("which") == "best"

    @property
    def images_seen(self) -> object:
        """By the checkpoint that it is of."""
        return _dict(self.protocol.get("checkpoint")).get("images_seen")

    @property
    def sampled_by(self) -> dict[str, Any]:
        """The sampler, the guidance and the weights."""
        return {key: self.protocol.get(key) for key in PER_MODEL}


@dataclass(frozen=True)
class RunRecord:
    """One run: its configuration, how far it came, and every number it wrote."""

    path: Path
    data: str
    model: str
    seed: int
    config: dict[str, Any]
    status: dict[str, Any]
    history: list[dict[str, Any]]
    evaluations: dict[str, dict[str, Measurement]]  # by evaluation, the newest last

    @property
    def metrics(self) -> dict[str, Measurement]:
        """What was last measured of the run as it ended, metric by metric: by its own sampler and weights, those of its
        first evaluation, and by others only what these have not measured."""
        return self._newest(best=False)

    @property
    def best(self) -> dict[str, Measurement]:
        """The same of its best checkpoint; nothing where only the last was scored."""
        return self._newest(best=True)

    def _newest(self, best: bool) -> dict[str, Measurement]:
        of = [m for m in self.evaluations.values() if any(v.best for v in m.values()) == best]
        lines = [measurement for evaluation in of for measurement in evaluation.values()]
        lines = [m for m in lines if m.images_seen == lines[-1].images_seen]  # a run that went on is another
        first = min(lines, key=lambda m: m.line, default=None)
        own = {m.metric: m for m in lines if first is not None and m.sampled_by == first.sampled_by}
        return {m.metric: m for m in lines} | own

    @property
    def group(self) -> Path:
        """Runs of one group differ in their seed only: outputs/<data>/<model>/<hash>-s<seed>."""
        path = self.path.resolve()
        return path.with_name(re.sub(r"(?<=.)-s\d+$", "", path.name))

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.status.get("state") == "finished"

    @property
    def begun(self) -> bool:
        """Whether there is more to it than a start that failed before its first batch."""
        return self.status.get("state") != "failed" or bool(self.images_seen or self.evaluations)

    @property
    def state(self) -> str:
        """The state in words: "finished", "running, 34 %", "failed: the loss is NaN"."""
        state, why = printable(self.status.get("state", "unknown")), self.status.get("why")
        if self.finished:
            return state
        most = _count(self.status.get("max_images"))
        share = f", {100 * self.images_seen / most:.0f} %" if self.images_seen is not None and most else ""
        return f"{state}: {printable(why)}" if why else state + share

    @property
    def alarm(self) -> str:
        """Where samples or a posterior collapsed, and how diverse samples were at the worst of it; nothing where none did."""
        raised = [point for point in self.history if point.get("train/alarm") or point.get("val/alarm")]
        if not raised:
            return ""
        first, last = (f"{int(point['images_seen']):,}" for point in (raised[0], raised[-1]))
        worst = min((point["train/diversity"] for point in raised if "train/diversity" in point), default=None)
        said = "" if worst is None else f": its samples were {worst:.3g} times as far from each other as the data"
        return f"collapse alarm at {first} to {last} images ({len(raised)} points of its history){said}"

    @property
    def images_seen(self) -> int | None:
        """How many real images the run has consumed; the history is ahead of the status while a run goes on."""
        known = [_count(point.get("images_seen")) for point in (self.status, *self.history[-1:])]
        return max((seen for seen in known if seen is not None), default=None)

    @property
    def frames(self) -> list[tuple[int, Path]]:
        """The sample grids over training by images seen; final.png stands at the end."""
        stems = [path.stem for path in self.path.glob("samples/*.png") if path.stem.isdecimal()]
        grids = {int(stem): path for stem in stems if (path := self.picture(f"{stem}.png"))}
        if self.finished and (final := self.picture("final.png")):  # of one that went on it is of where it ended before
            grids[self.images_seen or max(grids, default=0)] = final
        return sorted(grids.items())

    def picture(self, name: str) -> Path | None:
        """A file of samples/, where the run wrote it; one that is still being written has no end yet."""
        path = self.path / "samples" / name
        if not path.is_file():
            return None
        content = path.read_bytes()
        if path.suffix == ".webp":
            whole = content[:4] == b"RIFF" and int.from_bytes(content[4:8], "little") + 8 == len(content)
        else:
            whole = content.endswith(b"IEND\xaeB`\x82")
        return path if whole else None


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run directories among the paths and below them, each once."""
    if not paths:
        raise GenlabError("no runs given: name run directories, or a directory that holds some, e.g. outputs/digits")
    found: dict[Path, Path] = {}
    for path in paths:
        runs = [path] if (path / "config.yaml").is_file() else _runs_below(path)
        if not runs:
            reason = "it has no config.yaml, nor has any directory below it" if path.is_dir() else "no such directory"
            raise GenlabError(f"{path} is not a run directory: {reason}")
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def read_run(path: Path) -> RunRecord:
    """Reads one run directory; whatever a run in progress has not written yet is simply not there."""
    config = configuration(path)
    data = config.get("data")
    return RunRecord(
        path=path,
        data=printable(data.get("name", "unknown") if isinstance(data, dict) else data),
        model=printable(config.get("model_name", "unknown")),
        seed=_count(config.get("seed")) or 0,
        config=config,
        status=_status(path / "status.json"),
        history=_history(path / "history.jsonl"),
        evaluations=_evaluations(path / "metrics.jsonl"),
    )


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return leaves


def _runs_below(root: Path) -> list[Path]:
    """Every run directory below a directory, in order of path."""
    return sorted(p.parent for p in root.rglob("config.yaml") if p.with_name("status.json").is_file())


def _status(path: Path) -> dict[str, Any]:
    """status.json; an unknown state where there is none yet."""
    status = next(_objects(path.read_text(encoding="utf-8", errors="replace")), None) if path.is_file() else None
    return status or {"state": "unknown", "why": "no readable status.json"}


def _history(path: Path) -> list[dict[str, Any]]:
    """The logged points in order; what a resumed run repeated replaces what it had logged before."""
    points: list[dict[str, Any]] = []
    for point in _lines(path):
        if (seen := _count(point.get("images_seen"))) is None:
            continue
        while points and points[-1]["images_seen"] > seen:
            points.pop()
        points.append({key: n for key, value in point.items() if (n := number(value)) is not None})
    return points


def _evaluations(path: Path) -> dict[str, dict[str, Measurement]]:
    """The measurements by evaluation, the one written last at the end."""
    evaluations: dict[str, dict[str, Measurement]] = {}
    for i, line in enumerate(_lines(path)):
        if (value := number(line.get("value"))) is None:
            continue
        name, evaluation = printable(line.get("metric")), str(line.get("evaluation"))
        measurement = Measurement(
            metric=name,
            value=value,
            stderr=_error(line.get("stderr")),
            better=printable(line["better"]) if line.get("better") else None,
            references=_references(_dict(line.get("references"))),
            protocol=_dict(line.get("protocol")),
            spread=number(line.get("spread")),
            line=min([i, *(m.line for m in evaluations.get(evaluation, {}).values())]),
        )
        evaluations[evaluation] = evaluations.pop(evaluation, {}) | {name: measurement}
    return evaluations


def _references(lines: dict[str, Any]) -> dict[str, Reference]:
    """The reference rows of a metric that hold a value."""
    read = {kind: (number(_dict(line).get("value")), _dict(line)) for kind, line in lines.items()}
    return {
        kind: Reference(value, _error(line.get("stderr")), _count(line.get("n")))
        for kind, (value, line) in read.items()
        if value is not None
    }


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, which another process may be writing."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            yield from _objects(line)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The one object a text holds; nothing where it was cut off in the middle."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict):
        yield value


def number(value: object) -> float | None:
    """A number as it is, anything else, and what no float holds, as nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or (isinstance(value, int) and abs(value) > 1e300):
        return None
    return value


def _error(value: object) -> float | None:
    """A standard error, which is not below 0."""
    error = number(value)
    return None if error is not None and error < 0 else error


def _count(value: object) -> int | None:
    """A number of things; nothing where it is none."""
    n = number(value)
    return int(n) if n is not None and math.isfinite(n) else None


def _dict(value: object) -> dict[str, Any]:
    """A mapping as it is, anything else as an empty one."""
    return value if isinstance(value, dict) else {}
