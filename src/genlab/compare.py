"""genlab compare: runs side by side in one report.

usage: genlab compare RUN... [out=DIR]

RUN is a run directory (outputs/digits/ddpm/1a2b3c-s0) or any directory that holds some (outputs/digits).
DIR is where the report goes, outputs/report unless given:

  index.html                        the page: tables, samples over training, figures; opens from disk
  report.csv report.md report.json  the tables; the JSON holds every seed and every protocol
  samples.png curves.png cost.png   samples side by side, learning curves, quality against cost
  denoising.png                     the error of denoised images by noise level, of models that denoise

Runs whose configurations differ in their seed only make one row: mean and standard deviation over seeds.
A report needs files only, so it can be made of runs in progress and of runs from another machine. Runs whose configuration
is damaged are left out, aloud, as are those in a directory that failed before their first batch.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genlab.errors import GenlabError
from genlab.printing import say
from genlab.report.formats import markdown, to_csv, to_json
from genlab.report.grouping import build
from genlab.report.records import RunRecord, find_runs, read_run
from genlab.report.tables import Table

OUT = Path("outputs/report")


@dataclass(frozen=True)
class Report:
    """A comparison that has been written."""

    tables: list[Table]
    out: Path

    def show(self) -> None:
        """Prints the tables as wide as the terminal is, or 100 columns where the output is no terminal."""
        from rich.console import Console

        from genlab.report.terminal import rendered

        console = Console(highlight=False)
        width = console.width if console.is_terminal else 100
        console.width = width
        for table in self.tables:
            console.print(rendered(table, width))
        console.print(
            f" report: {self.out / 'index.html'} (the numbers: report.csv, report.json)", markup=False, soft_wrap=True
        )


def compare(paths: Sequence[Path], out: Path = OUT) -> Report:
    """Reads the runs at or below the paths and writes their report."""
    from genlab.report.figures import cost, curves, denoising  # here, because matplotlib would slow --help down
    from genlab.report.grids import side_by_side
    from genlab.report.page import page

    tables = build(_read(paths))
    _write(out, {})
    plots = {
        t.data: {draw.__name__: (draw(t), draw(t, dark=True)) for draw in (curves, denoising, cost)} for t in tables
    }
    pictures = {}
    for table in tables:
        suffix = "" if len(tables) == 1 else "-" + re.sub(r"[^\w.]+", "-", table.data)
        drawn = {"samples": side_by_side(table)} | {stem: light for stem, (light, _) in plots[table.data].items()}
        pictures[table.data] = {f"{stem}{suffix}.png": picture for stem, picture in drawn.items() if picture}
    texts = {
        "report.csv": to_csv(tables),
        "report.json": to_json(tables),
        "report.md": markdown(tables, {data: list(named) for data, named in pictures.items()}),
        "index.html": page(tables, plots),
    }
    files = {name: picture for named in pictures.values() for name, picture in named.items()}
    _write(out, files | {name: text.encode() for name, text in texts.items()})
    return Report(tables, out)


def _read(paths: Sequence[Path]) -> list[RunRecord]:
    """The runs at or below the paths, without those that are damaged, and of those below without starts that failed before
    their first batch; what is left out is told, unless nothing else is there."""
    runs, damaged = [], []
    for path in find_runs(paths):
        try:
            runs.append(read_run(path))
        except GenlabError as error:
            damaged.append(error)
    if not runs:
        raise damaged[0]
    for error in damaged:
        print(f"genlab: left out: {error}", file=sys.stderr)
    named = {path.resolve() for path in paths}
    begun = [run for run in runs if run.begun or run.path.resolve() in named] or runs
    if n := len(runs) - len(begun):
        print(f"genlab: left out: {n} {'runs' if n > 1 else 'run'} that failed before the first batch", file=sys.stderr)
    return begun


def _write(out: Path, files: dict[str, bytes]) -> None:
    """Writes the files of the report."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
    except OSError as error:
        raise GenlabError(
            f"cannot write the report to {out}: {error.strerror}; choose another place with out=DIR"
        ) from error


def _parsed(arguments: Sequence[str]) -> tuple[list[Path], Path]:
    """The runs and the place of the report that a command line names."""
    paths, out = [], OUT
    for argument in arguments:
        if argument.startswith("out="):
            out = Path(argument.removeprefix("out="))
        elif not Path(argument).exists() and (argument.startswith("-") or "=" in argument):
            raise GenlabError(f"compare does not know {argument!r}: its only option is out=DIR")
        else:
            paths.append(Path(argument))
    return paths, out


def main(argv: Sequence[str] | None = None) -> int:
    """The verb: returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        say((__doc__ or "").strip())
        return 0
    try:
        paths, out = _parsed(arguments)
        compare(paths, out).show()
    except GenlabError as error:
        print(f"genlab: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
