"""The plot of docs/benchmarks.md: how many times faster than the peer, row by row, and growth with distinct tokens."""

from pathlib import Path
from typing import Any

from speed import tables
from speed.measure import State
from speed.rows import DTYPES, Row

COLORS = {"float32": "#b8860b", "bfloat16": "#3b6ea5"}


def draw(state: State, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys(row for row, _ in tables.measured(state, (*tables.SCORING, "decode"))))
    figure = Figure(figsize=(9, max(3.2, 0.42 * len(rows) + 1.2)), dpi=140, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    _gains(left, state, rows)
    _growth(right, state)
    figure.savefig(path, metadata={"Software": None})


def _gains(axes: Any, state: State, rows: list[Row]) -> None:
    for position, dtype in enumerate(DTYPES):
        places, gains = [], []
        for number, row in enumerate(rows):
            ours, theirs = (tables.middle(tables.of(state, row.name, dtype, s), "seconds") for s in ("auto", "lm-eval"))
            gain = tables.ratio(theirs, ours)
            if gain is not None:
                places.append(number + 0.38 * (position - 0.5))
                gains.append(gain)
        bars = axes.barh(places, gains, height=0.36, color=COLORS[dtype], label=dtype)
        axes.bar_label(bars, [f"{gain:.1f}" for gain in gains], padding=3, fontsize=8)
    names = [f"{row.name.replace('_', ' ')} ({row.model})" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color="0.5", linewidth=1)
    axes.margins(x=0.12)
    axes.set_xlabel("times faster than the peer (answering alone)")
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _growth(axes: Any, state: State) -> None:
    if not tables.measured(state, ("growth",)):
        axes.set_visible(False)
        return
    for dtype in DTYPES:
        found = [
            (state.work[row.name]["positions"], seconds)
            for row, d in tables.measured(state, ("growth",))
            if d == dtype and (seconds := tables.middle(tables.of(state, row.name, d, "auto"), "seconds"))
        ]
        if found:
            axes.plot(*zip(*found, strict=True), "o-", color=COLORS[dtype], label=dtype)
            (x, y), last = found[0], found[-1][0]
            axes.plot([x, last], [y, y * last / x], "--", color=COLORS[dtype], linewidth=0.8, alpha=0.6)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("distinct token positions")
    axes.set_ylabel("seconds (dashed: linear)")
    axes.spines[["top", "right"]].set_visible(False)
