"""The tables in a terminal: as many columns as fit, the most telling first."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from genlab.report.formats import marks, number, title
from genlab.report.tables import COSTS, Column, Row, Table

TELLING = ("nfe", "ms_per_sample", "bits_per_dim")


def rendered(table: Table, width: int) -> Group:
    """One table within a width, with its footnotes, what did not finish, and which columns had no room."""
    columns, spreads = table.columns, [column for column in table.columns if column.metric not in COSTS]
    if _width(_grid(table, columns, spreads, True)) > width:
        columns, spreads = (), spreads[:1]
    lead = table.columns[:1]
    counted = _width(_grid(table, lead, spreads[:1], True)) <= width  # a number tells more than how many are behind it
    if not counted and _width(_grid(table, lead, spreads[:1], False)) > width:
        spreads = []
    for column in sorted(table.columns, key=lambda column: _importance(column, table)):
        wider = tuple(other for other in table.columns if other in (*columns, column))
        if _width(_grid(table, wider, spreads, counted)) <= width:
            columns = wider
    hidden = ([] if counted else ["seeds"]) + [c.metric for c in table.columns if c not in columns]
    lines = [f"{symbol} {note}" for note, symbol in table.symbols.items()]
    lines += [f"{row.label}: {row.state}" for row in table.rows if row.state] + table.alarms
    lines += [f"in the files only: {', '.join(hidden)}"] if hidden else []
    return Group(_grid(table, columns, spreads, counted), *(Text(f"  {line}", style="dim") for line in lines), Text(""))


def _importance(column: Column, table: Table) -> tuple[int, int]:
    """The leading metric, what samples cost and likelihood, other qualities, other costs."""
    place = table.columns.index(column)
    rank = 0 if place == 0 else 1 if column.metric in TELLING else 3 if column.metric in COSTS else 2
    return rank, place


def _grid(table: Table, columns: Sequence[Column], spreads: Sequence[Column], counted: bool) -> Grid:
    """The table with some of its columns, the spread of some of those, and how many seeds there are."""
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text(f" {table.data}", "bold"), title_justify="left")
    grid.add_column("model", max_width=24)
    if counted:
        grid.add_column("seeds", justify="right", no_wrap=True)
    for column in columns:
        grid.add_column(
            Text(title(column).replace(" ↓", "\n↓").replace(" ↑", "\n↑").replace(" →", "\n→")),
            justify="right",
            no_wrap=True,
        )
    for row in (*table.references, *table.models):
        state = f" ({row.brief_state})" if row.state else ""
        texts = [_text(row, column, table, spread=column in spreads) for column in columns]
        is_last_reference = row in table.references[-1:]
        style = "" if row.runs else "dim"
        size = [Text(row.size)] if counted else []
        grid.add_row(Text(row.label + state), *size, *texts, style=style, end_section=is_last_reference)
    return grid


def _text(row: Row, column: Column, table: Table, spread: bool) -> Text:
    """One number with what kind it is and its footnotes."""
    cell = row.cells.get(column.metric)
    if cell is None:
        return Text("–", style="dim")
    value = number(cell.value, cell.spread)
    parts = [value if spread else value.partition(" ± ")[0], cell.kind]
    return Text(" ".join(filter(None, parts)) + marks(cell, table), style="bold" if cell.best else "")


def _width(grid: Grid) -> int:
    """How many characters wide a table is where nothing limits it."""
    console = Console(width=10_000)
    return Measurement.get(console, console.options, grid).maximum
