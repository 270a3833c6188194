"""What `lydite compare` prints: settings that differ, values, differences; as text, markdown, LaTeX or CSV.

Contract: a terminal's table shortens names, never numbers; the other formats shorten nothing; CSV has a line a pair
with every number in full. Systems are numbered, so that pairs fit on a line.
"""

import csv
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lydite.compare import Compared, Comparison, Pair
from lydite.report.grid import blocks
from lydite.report.text import cut_middle, number, one_line, plural, sheet_text
from lydite.types import Estimate

Grid = list[list[str]]
"""Rows of cells, the header first."""

MIN_NAME = 12


def render(found: Comparison, format: str) -> str:
    """The comparison as text that ends with a line break."""
    return FORMATS[format](found)


# --------------------------------------------------------------------------------------------- content


def _numbers(found: Comparison) -> dict[str, str]:
    """Label to the number that stands for it in tables."""
    return {system.label: str(place) for place, system in enumerate(found.systems, 1)}


def _rows(found: Comparison) -> list[Compared]:
    return [*found.groups, *found.tasks]


def verdicts(found: Comparison) -> list[str]:
    """For each pair the tasks that tell the two apart, in words."""
    numbers = _numbers(found)
    counts: dict[tuple[str, str], list[int]] = {}
    for row in found.tasks:
        for pair in row.pairs:
            ahead, behind, alike = counts.setdefault((pair.a, pair.b), [0, 0, 0])
            if not _is_significant(pair, found.level):
                alike += 1
            elif ((pair.difference.value or 0) > 0) == row.higher_is_better:
                ahead += 1
            else:
                behind += 1
            counts[pair.a, pair.b] = [ahead, behind, alike]
    return [
        f"{numbers[a]}-{numbers[b]}: {numbers[a]} is better on {ahead}, {numbers[b]} on {behind}, "
        f"and they are not told apart on {alike} of {plural(ahead + behind + alike, 'task')}"
        for (a, b), (ahead, behind, alike) in counts.items()
    ]


def systems_grid(found: Comparison) -> Grid:
    """Who is compared."""
    grid = [["", "model", "parameters", "weights", "source"]]
    for label, place in _numbers(found).items():
        model = next(system.model for system in found.systems if system.label == label)
        size = f"{model.parameters:,}" if model.parameters else "–"
        grid.append([place, one_line(label), size, one_line(model.fingerprint)[:7], one_line(model.source)])
    return grid


def remarks(found: Comparison) -> tuple[list[str], list[str]]:
    """Lines on settings that differ, and on what was not compared."""
    numbers, count = _numbers(found), len({row.name for row in found.tasks})
    differing = []
    for item in found.differences:
        sides: dict[str, list[str]] = {}
        for label, value in item.values.items():
            sides.setdefault(_value(value), []).append(numbers[label])
        where = "" if len(item.tasks) >= count else f" ({_some(item.tasks)})"
        differing.append(f"{item.key}: " + " | ".join(f"{', '.join(who)}: {v}" for v, who in sides.items()) + where)
    refused: dict[str, list[str]] = {}
    for refusal in found.not_compared:
        who = " and ".join(numbers[label] for label in refusal.systems)
        refused.setdefault(f"{who} {refusal.reason}", []).append(refusal.task)
    return [one_line(line) for line in differing], [
        f"{_some(tasks)}: {one_line(why)}" for why, tasks in refused.items()
    ]


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _some(tasks: Sequence[str]) -> str:
    names = ", ".join(tasks[:3])
    return names if len(tasks) <= 3 else f"{names} and {len(tasks) - 3} more"


def values_grid(found: Comparison, rows: Sequence[Compared]) -> Grid:
    """A line a system and row: value with interval, n, failed, letters."""
    numbers = _numbers(found)
    grid = [[_title(rows), "metric", "model", "value", "n", "failed", "rank"]]
    for row in rows:
        places = _places(row.estimates)
        name, metric = one_line(row.name), row.metric + ("" if row.higher_is_better else " ↓")
        for label, value, rank in zip(row.systems, row.estimates, row.ranks, strict=True):
            shown = _with_interval(value.value, value.interval, places)
            grid.append([name, metric, numbers[label], shown, str(value.n), str(value.n_failed), rank])
            name = metric = ""
    return grid


def pairs_grid(found: Comparison, rows: Sequence[Compared]) -> Grid:
    """A line a pair and row: difference with interval, p-values, discordant counts, smallest detectable difference."""
    numbers = _numbers(found)
    grid = [[_title(rows), "pair", "difference", "p", "Holm p", "only", "detects"]]
    for row in rows:
        places, name = _places(row.estimates), one_line(row.name)
        for pair in row.pairs:
            it = pair.difference
            only = f"{it.a_only}/{it.b_only}" if it.a_only is not None else ""
            star = "*" if _is_significant(pair, found.level) else ""
            grid.append(
                [
                    name,
                    f"{numbers[pair.a]}-{numbers[pair.b]}",
                    _with_interval(it.value, it.interval, places, sign="+"),
                    _p(it.p),
                    _p(pair.p_holm) + star,
                    only,
                    number(it.detectable, places),
                ]
            )
            name = ""
    return grid


def _title(rows: Sequence[Compared]) -> str:
    return "group" if rows and rows[0].members else "task"


def grids(found: Comparison) -> list[Grid]:
    """All tables of numbers: groups before tasks, values before differences."""
    kinds = [rows for rows in (found.groups, found.tasks) if rows]
    return [values_grid(found, rows) for rows in kinds] + [pairs_grid(found, rows) for rows in kinds]


def _places(estimates: Sequence[Estimate]) -> int:
    """Decimals: three below 1, else two digits of the narrowest interval."""
    values = [abs(e.value) for e in estimates if e.value is not None]
    widths = [e.interval[1] - e.interval[0] for e in estimates if e.interval]
    if not values or max(values) <= 1 or not widths:
        return 3
    return min(max(1 - math.floor(math.log10(min(widths) / 2)), 0), 3)


def _with_interval(value: float | None, interval: tuple[float, float] | None, places: int, sign: str = "") -> str:
    shown = (sign if value is not None and value > 0 else "") + number(value, places)
    return f"{shown} [{number(interval[0], places)}, {number(interval[1], places)}]" if interval else shown


def _p(p: float | None) -> str:
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _is_significant(pair: Pair, level: float) -> bool:
    return pair.p_holm is not None and pair.p_holm < 1 - level


def caption(found: Comparison) -> list[str]:
    """What the columns mean, in a few lines."""
    power = next(pair.difference.power for row in found.tasks for pair in row.pairs)
    tests = sum(pair.p_holm is not None for row in found.tasks for pair in row.pairs)
    unshared = [row for row in found.tasks if row.n_unshared]
    lines = [
        f"[..]: {found.level:.0%} interval; values are on the samples that all models share and none failed on",
        "rank: models that share a letter are not told apart" + ("; ↓: less is better" if _any_lower(found) else ""),
        f"difference: first minus second; p: no difference; Holm p: corrected over {tests} tests of tasks, groups apart",
        f"*: Holm p below {1 - found.level:.2g}; only: samples that one model alone gets right",
        f"detects: the smallest true difference that one test finds with probability {power:.0%}",
    ]
    if unshared:
        left = sum(row.n_unshared for row in unshared)
        lines.append(
            f"{left:,} samples are not in all runs and were left out ({_some([row.name for row in unshared])})"
        )
    return lines


def _any_lower(found: Comparison) -> bool:
    return any(not row.higher_is_better for row in found.tasks)


# --------------------------------------------------------------------------------------------- formats


def as_table(found: Comparison) -> str:
    """For a terminal: as wide as it is."""
    width = shutil.get_terminal_size().columns
    file = StringIO()
    console = Console(file=file, width=width, highlight=False, markup=False)
    _print_grid(console, systems_grid(found), width, shrink=(4, 1))
    differing, refused = remarks(found)
    for title, lines in (("settings that differ", differing), ("not compared", refused)):
        if lines:
            console.print(f"\n{title}")
        for line in lines:
            console.print(Text(f"  {line}"))
    if not differing:
        console.print("\nno setting differs")
    for grid in grids(found):
        console.print()
        _print_grid(console, grid, width, shrink=(0,))
    console.print()
    for line in [*caption(found), "", *verdicts(found)]:
        console.print(Text(line))
    return "\n".join(line.rstrip() for line in file.getvalue().split("\n"))


def _print_grid(console: Console, grid: Grid, width: int, shrink: Sequence[int]) -> None:
    """Names in the columns `shrink` lose their middles, in this order, until the table fits."""
    widths = [max(cell_len(row[column]) for row in grid) for column in range(len(grid[0]))]
    for column in shrink:
        excess = sum(widths) + 2 * (len(widths) - 1) - width
        widths[column] = max(min(widths[column], MIN_NAME), widths[column] - max(excess, 0))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for header in grid[0]:
        table.add_column(Text(header), no_wrap=True, justify="right" if header in RIGHT else "left")
    for row in grid[1:]:
        table.add_row(*(Text(_fit(cell, widths[i])) if i in shrink else Text(cell) for i, cell in enumerate(row)))
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        console.print(table)
    else:
        for line in blocks(grid, 1, width):
            console.print(Text(line), soft_wrap=True)


RIGHT = {"n", "failed", "p", "Holm p", "only", "detects", "parameters"}


def _fit(name: str, width: int) -> str:
    """`name` in at most `width` terminal cells."""
    shown = name
    for characters in range(len(name), 0, -1):
        shown = cut_middle(name, characters)
        if cell_len(shown) <= width:
            break
    return shown


def as_markdown(found: Comparison) -> str:
    """Pipe tables and lists."""

    def cell(value: str) -> str:
        return re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", value)

    def table(grid: Grid) -> str:
        rows = ["| " + " | ".join(map(cell, row)) + " |" for row in grid]
        return "\n".join([rows[0], "|" + " --- |" * len(grid[0]), *rows[1:]])

    def bullets(title: str, lines: Sequence[str]) -> list[str]:
        return [title + "\n\n" + "\n".join(f"- {cell(line)}" for line in lines)] if lines else []

    differing, refused = remarks(found)
    parts = [table(systems_grid(found)), *bullets("Settings that differ:", differing)]
    parts += bullets("Not compared:", refused)
    parts += [*map(table, grids(found)), *bullets("Reading:", caption(found)), *bullets("In short:", verdicts(found))]
    parts += bullets("Signatures:", _signatures(found))
    return "\n\n".join(parts) + "\n"


def _signatures(found: Comparison) -> list[str]:
    rows = _rows(found)
    signed = [[e.signature for e in row.estimates] + [pair.signature for pair in row.pairs] for row in rows]
    return [one_line(line) for lines in signed for line in lines]


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", "–": "--",
    "↓": r"$\downarrow$", "*": "$^*$",
}  # fmt: skip


def as_latex(found: Comparison) -> str:
    """Booktabs tabulars; remarks and signatures stand above them as comments."""

    def cell(value: str) -> str:
        escaped = "".join(_LATEX.get(character, character) for character in value)
        return f"{{{escaped}}}" if escaped.startswith("[") else escaped

    def tabular(grid: Grid) -> list[str]:
        columns = "".join("r" if header in RIGHT else "l" for header in grid[0])
        rows = [" & ".join(map(cell, row)) + r" \\" for row in grid]
        return [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}"]  # fmt: skip

    differing, refused = remarks(found)
    who = [" ".join(row[:2]) for row in systems_grid(found)[1:]]
    remarked = [*who, *differing, *refused, *caption(found), *verdicts(found), *_signatures(found)]
    comments = "\n".join(["% needs \\usepackage{booktabs}", *(f"% {line}" for line in remarked)])
    return "\n\n".join([comments, *("\n".join(tabular(grid)) for grid in grids(found))]) + "\n"


CSV_COLUMNS = (
    "kind", "name", "metric", "higher_is_better", "a", "b", "value_a", "low_a", "high_a", "value_b", "low_b", "high_b",
    "difference", "low", "high", "level", "stderr", "method", "p", "test", "p_holm", "a_only", "b_only", "detectable",
    "power", "n", "n_failed_a", "n_failed_b", "n_shared", "n_unshared", "rank_a", "rank_b", "signature",
)  # fmt: skip


def as_csv(found: Comparison) -> str:
    """One line a pair, in full precision; an empty field is a missing number."""
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in _rows(found):
        estimates = dict(zip(row.systems, row.estimates, strict=True))
        ranks = dict(zip(row.systems, row.ranks, strict=True))
        for pair in row.pairs:
            it, a, b = pair.difference, estimates[pair.a], estimates[pair.b]
            writer.writerow(
                [
                    "group" if row.members else "task", sheet_text(row.name), sheet_text(row.metric),
                    int(row.higher_is_better), sheet_text(pair.a), sheet_text(pair.b), a.value, *(a.interval or (None, None)), b.value,
                    *(b.interval or (None, None)), it.value, *(it.interval or (None, None)), it.level, it.stderr,
                    it.method, it.p, it.test, pair.p_holm, it.a_only, it.b_only, it.detectable, it.power, it.n,
                    a.n_failed, b.n_failed, row.n_shared, row.n_unshared, ranks[pair.a], ranks[pair.b],
                    sheet_text(pair.signature),
                ]
            )  # fmt: skip
    return file.getvalue()


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "table": as_table,
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
}
