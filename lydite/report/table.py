"""The table of results for a terminal, and the same as markdown, LaTeX or CSV.

    print(tables(runs, groups))                        # fits the terminal; colour where it is one
    tables(runs, groups, format="csv", all=True)       # every number in full

One table holds all models: a row a task or group, groups above their members. A terminal's table shortens names, never
numbers: it takes the fullest form of the intervals that fits, breaks the models over several tables, and where even one
model does not fit gives each row a block of lines. The other formats shorten nothing.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lydite.report import text
from lydite.report.export import as_csv, as_latex, as_markdown
from lydite.report.grid import blocks
from lydite.report.rows import Row, best, comparable, model_names, rows, versus_chance
from lydite.types import Estimate, GroupEstimates, Run

Format = Literal["table", "markdown", "latex", "csv"]
GOLD = "yellow"
MIN_NAME = 14
NOTHING = Estimate(metric="", value=None, stderr=None, interval=None, n=0, n_failed=0)


def tables(
    runs: Sequence[Run],
    groups: Sequence[GroupEstimates] = (),
    *,
    format: Format = "table",
    width: int | None = None,
    all: bool = False,
    color: bool | None = None,
) -> str:
    """The results of `runs` as text that ends with a line break.

    By default the groups, their direct members and the tasks without a group, each with its headline metric; `all`
    shows every member and every metric. CSV always holds everything, one line a model and number. `width` (default:
    the terminal's) and `color` (default: whether standard output is a terminal and NO_COLOR is unset) concern "table".
    """
    top = rows(runs, groups)
    models = model_names(runs)
    if format == "csv":
        return as_csv(list(lines(top, all=True)), models)
    chosen = list(lines(top, all=all))
    if format == "markdown":
        return as_markdown(chosen, models)
    if format == "latex":
        return as_latex(chosen, models)
    if color is None:
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return _screen(chosen, models, width or shutil.get_terminal_size().columns, color)


@dataclass(frozen=True)
class Line:
    """One line of a table: a row, its depth in the tree and one of its metrics."""

    row: Row
    depth: int
    metric: str

    def estimates(self, models: Sequence[str]) -> list[Estimate | None]:
        cells = self.row.cells(self.metric)
        return [cells[model].estimate if model in cells else None for model in models]


def lines(top: Sequence[Row], all: bool) -> Iterator[Line]:
    """The lines to show, in order."""
    for root in top:
        for depth, row in root.walk():
            if all or depth <= 1:
                for metric in row.metrics if all else [row.headline]:
                    yield Line(row, depth, metric)


# -------------------------------------------------------------------------------------------- screen

Style = Callable[[Estimate, int], str]


def _full(value: Estimate, places: int) -> str:
    return f"{text.number(value.value, places)} {text.interval(value, places)}".rstrip()


def _no_zero(shown: str) -> str:
    """0.250 as .250."""
    return re.sub(r"(?<!\d)0\.", ".", shown)


def _tight(value: Estimate, places: int) -> str:
    return _no_zero(_full(value, places)).replace(", ", " ")


def _plus_minus(value: Estimate, places: int) -> str:
    return f"{text.number(value.value, places)} {_no_zero(text.half_width(value, places))}".rstrip()


STYLES: tuple[Style, ...] = (_full, _tight, _plus_minus)


def _screen(chosen: Sequence[Line], models: Sequence[str], width: int, color: bool) -> str:
    file = StringIO()
    console = Console(file=file, width=width, force_terminal=color, no_color=not color, highlight=False, markup=False)
    fit = _fit(chosen, models, width)
    style = fit[0] if fit else _full
    if fit is None:
        for shown in blocks(_grid(chosen, models), 2, width):
            console.print(Text(shown), soft_wrap=True)
    else:
        for start in range(0, max(len(models), 1), fit[1]):
            console.print(_table(chosen, models, models[start : start + fit[1]], style, width))
    console.print(Text(_caption(chosen, models, style), style="dim"))
    return "\n".join(line.rstrip() for line in file.getvalue().split("\n"))


def _fit(chosen: Sequence[Line], models: Sequence[str], width: int) -> tuple[Style, int] | None:
    """The fullest style that shows all models side by side, and how many models one table takes; None: not even one."""
    for style in STYLES:
        if _fixed_width(chosen, models, models, style) + MIN_NAME <= width:
            return style, max(len(models), 1)
    for count in range(len(models) - 1, 0, -1):
        for style in STYLES:
            if all(
                _fixed_width(chosen, models, models[i : i + count], style) + MIN_NAME <= width
                for i in range(0, len(models), count)
            ):
                return style, count
    return None


def _grid(chosen: Sequence[Line], models: Sequence[str]) -> list[list[str]]:
    """Everything in full: name, metric, one column a model, n, failed, chance."""
    columns = _columns(chosen, models, models, _full)
    for model, column in zip(models, columns[1:-3], strict=True):
        column[0] = text.one_line(model)
    names = ["task", *("  " * line.depth + text.one_line(line.row.label) for line in chosen)]
    return [list(row) for row in zip(names, *columns, strict=True)]


def _columns(chosen: Sequence[Line], models: Sequence[str], block: Sequence[str], style: Style) -> list[list[str]]:
    """All columns but the name's, as text: metric, one a model, n, failed, chance. The first entry is the header."""
    metrics = ["metric"] + [text.cut_middle(text.one_line(line.metric), 14) for line in chosen]
    columns = [metrics]
    for model in block:
        place = models.index(model)
        column = [""]
        for line in chosen:
            found = line.estimates(models)
            value = found[place]
            mark = "*" if len(models) > 1 and best(line.row, line.metric) == model else ""
            shown = style(value, text.decimals(e for e in found if e)) if value else "–"
            head, _, rest = shown.partition(" ")
            column.append(f"{head}{mark or ' ' * (len(models) > 1)} {rest}".rstrip(" ") if rest else head + mark)
        columns.append(column)
    for header, get in TAIL:
        columns.append([header] + [get(_weakest(line.estimates(models))) for line in chosen])
    return columns


TAIL: tuple[tuple[str, Callable[[Estimate], str]], ...] = (
    ("n", lambda e: str(e.n)),
    ("failed", lambda e: str(e.n_failed)),
    ("chance", lambda e: "" if e.chance is None else text.number(e.chance, 3)),
)


def _weakest(found: Sequence[Estimate | None]) -> Estimate:
    """The estimate with the most failures: its n and failed stand for the row."""
    return max((e for e in found if e), key=lambda e: e.n_failed, default=NOTHING)


def _fixed_width(chosen: Sequence[Line], models: Sequence[str], block: Sequence[str], style: Style) -> int:
    """Characters that all columns but the name's need, gaps included."""
    columns = _columns(chosen, models, block, style)
    return sum(max(map(cell_len, column)) + 2 for column in columns)


def _table(chosen: Sequence[Line], models: Sequence[str], block: Sequence[str], style: Style, width: int) -> Table:
    columns = _columns(chosen, models, block, style)
    names = ["  " * line.depth + text.one_line(line.row.label) for line in chosen]
    room = max(width - _fixed_width(chosen, models, block, style), MIN_NAME)
    names = [_shorten(name, room) for name in names]
    result = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    result.add_column(Text("task"), no_wrap=True, header_style="bold")
    result.add_column(Text("metric"), no_wrap=True, header_style="bold")
    for model, column in zip(block, columns[1:-3], strict=True):
        header = _fold(text.one_line(model), max(map(len, column), default=6))
        result.add_column(Text(header), no_wrap=True, header_style="bold")
    for header in ("n", "failed", "chance"):
        result.add_column(Text(header), no_wrap=True, justify="right", header_style="bold")
    for position, line in enumerate(chosen):
        cells = [Text(names[position], style="bold" if line.row.is_group else ""), Text(columns[0][position + 1])]
        for model, column in zip(block, columns[1:-3], strict=True):
            cells.append(_value_cell(line, models, model, column[position + 1]))
        failed = columns[-2][position + 1]
        cells.append(Text(columns[-3][position + 1]))
        cells.append(Text(failed, style="" if failed == "0" else "bold red"))
        cells.append(Text(columns[-1][position + 1], style="dim"))
        result.add_row(*cells)
    return result


def _value_cell(line: Line, models: Sequence[str], model: str, shown: str) -> Text:
    cell = line.row.cells(line.metric).get(model)
    if cell is None:
        return Text(shown, style="dim")
    if len(models) > 1 and best(line.row, line.metric) == model:
        return Text(shown, style=f"bold {GOLD}")
    at_chance = versus_chance(cell.estimate, line.row.higher.get(line.metric, True))
    return Text(shown, style={"at": "dim", "below": "red"}.get(at_chance, ""))


def _shorten(name: str, room: int) -> str:
    """`name` in at most `room` terminal cells."""
    for width in range(min(len(name), room), 1, -1):
        shorter = text.cut_middle(name, width)
        if cell_len(shorter) <= room:
            return shorter
    return name[:1]


def _fold(header: str, room: int) -> str:
    """A long model name over several lines, broken after a sign where one is near."""
    parts = []
    while cell_len(header) > room:
        at = room
        while cell_len(header[:at]) > room:
            at -= 1
        sign = max(header.rfind(mark, 0, at) for mark in "-_/. ")
        at = sign + 1 if sign > 0 else max(at, 1)
        parts.append(header[:at])
        header = header[at:]
    return "\n".join([*parts, header])


def _caption(chosen: Sequence[Line], models: Sequence[str], style: Style) -> str:
    found = [e for line in chosen for e in line.estimates(models) if e]
    level = "/".join(sorted({f"{e.level:.0%}" for e in found if e.interval})) or "95%"
    parts = ["[..]" if style in (_full, _tight) else "±", f": {level} interval"]
    if style is _plus_minus:
        parts.append(" (its longer arm)")
    if len(models) > 1 and any(e.n_failed for e in found):
        parts.append("; n and failed: of the model with most failures")
    if any(versus_chance(e) == "at" for e in found):
        parts.append("; dim: at chance")
    if not all(comparable(line.row.cells(line.metric).values()) for line in chosen):
        parts.append("; rows judged on different terms are not ranked")
    if any(best(line.row, line.metric) for line in chosen):
        parts.append("; *: best, by more than the uncertainty")
    return "".join(parts) if found else "no estimates yet"
