"""Plain tables for a terminal: columns where they fit, else a block of lines for each row.

Contract: whatever the width, nothing is cut; a number stands whole on its line, next to its title.
"""

import shutil
import textwrap
from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

Grid = Sequence[Sequence[str]]
"""Rows of cells, the header first."""

GAP = 2


def print_grid(grid: Grid, *, names: int, right: Collection[str] = ()) -> None:
    """Prints a grid as wide as the terminal allows. `names`: so many columns, from the left, say what a row is about;
    `right`: titles of the columns that are aligned to the right."""
    width = shutil.get_terminal_size().columns
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if columns_width(grid) <= width:
        header, *body = columns(grid, right)
        console.print(Text(header, style="bold"))
        for line in body:
            console.print(Text(line))
    else:
        for line in blocks(grid, names, width):
            console.print(Text(line))


def columns_width(grid: Grid) -> int:
    """Terminal cells that the columns need."""
    widths = _widths(grid)
    return sum(widths) + GAP * (len(widths) - 1)


def columns(grid: Grid, right: Collection[str] = ()) -> list[str]:
    """A line a row."""
    widths, lines = _widths(grid), []
    for row in grid:
        cells = []
        for title, cell, width in zip(grid[0], row, widths, strict=True):
            space = " " * (width - cell_len(cell))
            cells.append(space + cell if title in right else cell + space)
        lines.append((" " * GAP).join(cells).rstrip())
    return lines


def blocks(grid: Grid, names: int, width: int) -> list[str]:
    """For each row its names, then "title value" pairs, as many on a line as fit. Rows with equal names share them."""
    titles, lines, above = grid[0], [], ""
    for row in grid[1:]:
        name = "  ".join(cell for cell in row[:names] if cell)
        if name != above and name:
            indent = " " * (len(name) - len(name.lstrip()))
            lines += textwrap.wrap(
                name.strip(),
                width,
                initial_indent=indent,
                subsequent_indent=indent,
                break_on_hyphens=False,
                break_long_words=False,
            )
        above = name
        pairs = [f"{title} {cell}".strip() for title, cell in zip(titles[names:], row[names:], strict=True) if cell]
        line = " "
        for number, pair in enumerate(pairs):
            piece = pair + ("," if number < len(pairs) - 1 else "")
            if line.strip() and cell_len(f"{line} {piece}") > width:
                lines.append(line)
                line = " "
            line = f"{line} {piece}"
        lines.append(line)
    return lines


def _widths(grid: Grid) -> list[int]:
    return [max(cell_len(row[column]) for row in grid) for column in range(len(grid[0]))]
