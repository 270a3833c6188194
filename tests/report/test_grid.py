"""Plain tables: no screen is so narrow that something is cut."""

import pytest
from rich.cells import cell_len

from lydite.report.grid import blocks, columns, columns_width, print_grid

GRID = [
    ["model", "task", "before", "now"],
    ["a-model-with-a-name", "算术", "0.1234", "-0.5678"],
    ["a-model-with-a-name", "算术", "12.5", ""],
]


def test_columns_align_in_terminal_cells():
    lines = columns(GRID, right=("before", "now"))
    assert lines == [
        "model                task  before      now",
        "a-model-with-a-name  算术  0.1234  -0.5678",
        "a-model-with-a-name  算术    12.5",
    ]
    assert columns_width(GRID) == max(map(cell_len, lines))


@pytest.mark.parametrize("width", [1, 15, 26, 30])
def test_blocks_keep_every_cell_whole(width):
    lines = blocks(GRID, 2, width)
    assert [line for line in lines if line.startswith("a-model")] == (
        ["a-model-with-a-name  算术"] if width >= 23 else ["a-model-with-a-name"]
    )
    for pair in ("before 0.1234", "now -0.5678", "before 12.5"):
        assert sum(pair in line for line in lines) == 1
    assert "now" not in lines[-1]
    if width > 20:
        assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [41, 42])
def test_the_screen_decides(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    print_grid(GRID, names=2, right=("before", "now"))
    assert capsys.readouterr().out.startswith("model  " if width == 42 else "a-model")
