"""bench.png: prompt tokens and new tokens a second against the batch, a line a length."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lydite.bench.measure import Cell, Speeds

COLORS = ("#b8860b", "#3b6ea5", "#8c4a5b", "#4d7c4a", "#6b5b95", "#888888")


def draw(speeds: Speeds, path: Path) -> None:
    """Writes the plot; cells without a number are left out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.6), dpi=140, layout="constrained")
    left, right = figure.subplots(1, 2)
    _panel(left, speeds, lambda cell: cell.prefill, "prompt tokens a second")
    _panel(right, speeds, lambda cell: cell.decode, "new tokens a second")
    figure.suptitle(f"{speeds.model.name}, {speeds.model.dtype or speeds.model.family}", fontsize=11)
    figure.savefig(path, metadata={"Software": None})


def _panel(axes: Any, speeds: Speeds, value: Callable[[Cell], float | None], label: str) -> None:
    lengths = sorted({cell.length for cell in speeds.cells})
    for number, length in enumerate(lengths):
        points = [(c.batch, v) for c in speeds.cells if c.length == length and (v := value(c)) is not None]
        if points:
            color = COLORS[number % len(COLORS)]
            axes.plot(*zip(*points, strict=True), "o-", color=color, label=f"{length} tokens")
    batches = sorted({cell.batch for cell in speeds.cells})
    axes.set_xscale("log")
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set(xlabel="requests at a time", ylabel=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    if axes.lines:
        axes.legend(frameon=False, fontsize=9)
