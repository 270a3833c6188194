"""The page's drawings: estimates with their intervals, calibration, and values of documents.

Each is about 360 pixels wide, so that it is read at its natural size on a phone and stands beside others on a desk.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lydite.report import text
from lydite.report.rows import versus_chance
from lydite.report.svg import INK, MUTED, PAPER, RULE, drawing, model_color
from lydite.types import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 360
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")
LABEL_ROOM = 19
"""Characters of a label that stands to the left of its row; longer ones stand above."""
MAX_DOTS = 400
FEW = 5
"""Bins of a calibration curve with fewer samples are drawn faintly."""


@dataclass(frozen=True)
class Entry:
    """One row of a forest plot: (position of the model, its estimate)."""

    label: str
    estimates: tuple[tuple[int, Estimate], ...]
    bold: bool = False


@dataclass(frozen=True)
class Bin:
    """One bin of a calibration curve."""

    confidence: float
    """Mean confidence of its samples."""
    accuracy: float
    interval: tuple[float, float]
    n: int


def forest(name: str, title: str, entries: Sequence[Entry], *, higher: bool = True) -> str:
    """Estimates with intervals, a row an entry and a line a model; hollow marks are at chance, dashes are chance."""
    models = max((len(entry.estimates) for entry in entries), default=1)
    above = any(_cells(entry.label) > LABEL_ROOM for entry in entries)
    lane = 10.0
    row = models * lane + (19.0 if above else max(10.0, 22 - models * lane))
    height, bottom = len(entries) * row, 24.0
    left = 6.0 if above else 12.0 + max((_cells(e.label) * (7.5 if e.bold else 6.7) for e in entries), default=0)

    def draw(figure: "Figure") -> None:
        axes = _axes(figure, (left, 2, WIDTH - left - 12, height), height + bottom + 2)
        axes.set_ylim(height, 0)
        axes.set_yticks([])
        _scale(axes, [estimate for entry in entries for _, estimate in entry.estimates])
        for position, entry in enumerate(entries):
            top = position * row
            if position:
                axes.axhline(top, color=RULE, linewidth=0.5)
            middle = top + (9 if above else row / 2)
            at = (0.0, middle) if above else (-7 / (WIDTH - left - 12), middle)
            weight = "bold" if entry.bold else "normal"
            label = text.cut_middle(entry.label, 54 if above else LABEL_ROOM)
            align = "left" if above else "right"
            axes.text(*at, label, transform=axes.get_yaxis_transform(), ha=align, va="center_baseline", weight=weight)
            start = top + (19 if above else (row - len(entry.estimates) * lane) / 2)
            _chances(axes, entry, top + (17 if above else 3), top + row - 3)
            for offset, (model, estimate) in enumerate(entry.estimates):
                _interval(axes, estimate, start + (offset + 0.5) * lane - (2 if above else 0), model, higher)

    return drawing(name, title, WIDTH, height + bottom + 2, draw)


def _cells(label: str) -> int:
    """Widths of Latin letters that a label takes."""
    return sum(2 if ord(character) > 0x2E80 else 1 for character in label)


def _axes(figure: "Figure", box: tuple[float, float, float, float], height: float, width: float = WIDTH) -> Any:
    """Axes at (left, top, width, height) in pixels, with an x axis and nothing else."""
    left, top, across, down = box
    axes = figure.add_axes((left / width, 1 - (top + down) / height, across / width, down / height))
    axes.patch.set_visible(False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=3, width=1, color=RULE, pad=3)
    return axes


def _scale(axes: Any, estimates: Sequence[Estimate]) -> None:
    """Limits that hold all values and chances; logarithmic where positive values, not shares, differ twentyfold."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    known = [e for e in estimates if e.value is not None]
    numbers = [number for e in known for number in (e.value, e.chance, *(e.interval or ())) if number is not None]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    if low > 0 and high > 1 and high / low > 20:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.3, high * 1.3)
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        return
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 0.1
    bounded = all(0 <= e.value <= 1 for e in known if e.value is not None)
    axes.set_xlim(
        max(low - margin, 0.0) if bounded else low - margin, min(high + margin, 1.0) if bounded else high + margin
    )
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="x", color=RULE, linewidth=0.5, zorder=0)
    axes.set_axisbelow(True)


def _chances(axes: Any, entry: Entry, top: float, bottom: float) -> None:
    for chance in sorted({round(e.chance, 4) for _, e in entry.estimates if e.chance is not None}):
        axes.plot([chance, chance], [top, bottom], color=MUTED, linewidth=1.2, dashes=(2, 2))


def _interval(axes: Any, estimate: Estimate, y: float, model: int, higher: bool) -> None:
    if estimate.value is None:
        return
    color = model_color(model)
    if estimate.interval:
        axes.plot(estimate.interval, [y, y], color=color, linewidth=2, solid_capstyle="round")
    hollow = versus_chance(estimate, higher) == "at"
    face = PAPER if hollow else color
    marker = MARKERS[model % len(MARKERS)]
    axes.plot(
        [estimate.value],
        [y],
        marker,
        color=color,
        markerfacecolor=face,
        markersize=6,
        markeredgewidth=1.4,
        clip_on=False,
    )


def calibration(name: str, title: str, curves: Sequence[tuple[int, Sequence[Bin]]]) -> str:
    """Accuracy against confidence with 95% intervals; the dashed line is perfect calibration."""
    height = 284.0

    def draw(figure: "Figure") -> None:
        axes = _axes(figure, (46, 6, WIDTH - 62, height - 50), height)
        axes.spines["left"].set_visible(True)
        axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="confidence", ylabel="share that is right")
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, dashes=(3, 3))
        axes.grid(color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
        for model, bins in curves:
            color, largest = model_color(model), max((b.n for b in bins), default=1)
            solid = [b for b in bins if b.n >= FEW]
            axes.plot([b.confidence for b in solid], [b.accuracy for b in solid], color=color, linewidth=1, alpha=0.6)
            for one in bins:
                style = {
                    "color": color,
                    "alpha": 1.0 if one.n >= FEW else 0.3,
                    "solid_capstyle": "round",
                    "clip_on": False,
                }
                axes.plot([one.confidence] * 2, one.interval, linewidth=1.6, **style)
                size = 3.5 + 4.5 * math.sqrt(one.n / largest)
                axes.plot([one.confidence], [one.accuracy], MARKERS[model % len(MARKERS)], markersize=size, **style)

    return drawing(name, title, WIDTH, height, draw)


def distribution(name: str, title: str, columns: Sequence[tuple[int, Sequence[float]]], label: str) -> str:
    """A dot a document, with the median as a line and the middle half as a bar; a lane a model."""
    lane = 52.0
    height = lane * len(columns) + 42

    def draw(figure: "Figure") -> None:
        axes = _axes(figure, (10, 2, WIDTH - 22, lane * len(columns)), height)
        axes.set(ylim=(lane * len(columns), 0), yticks=[], xlabel=label)
        axes.grid(axis="x", color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
        for position, (model, values) in enumerate(columns):
            top, color, ordered = position * lane, model_color(model), sorted(values)
            shown = ordered[:: math.ceil(len(ordered) / MAX_DOTS)] if ordered else []
            heights = [top + 8 + 26 * ((i * 0.618034) % 1) for i in range(len(shown))]
            axes.plot(
                shown, heights, MARKERS[model % len(MARKERS)], color=color, markersize=3.4, alpha=0.65, linestyle=""
            )
            if ordered:
                low, middle, high = (ordered[min(int(len(ordered) * q), len(ordered) - 1)] for q in (0.25, 0.5, 0.75))
                axes.plot([low, high], [top + 43] * 2, color=color, linewidth=4, solid_capstyle="butt")
                axes.plot([middle] * 2, [top + 5, top + 47], color=INK, linewidth=1.4)

    return drawing(name, title, WIDTH, height, draw)
