"""Which drawings a set of runs asks for: families of metrics, members of groups, slices by label, calibration, documents."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lydite.report import text
from lydite.report.digest import Digest, Light
from lydite.report.plots import Bin, Entry, calibration, distribution, forest
from lydite.report.rows import Row
from lydite.stats import estimate, wilson
from lydite.types import Estimate, Metric

MANY = 4
"""So many groups and lone tasks are an overview of their own; fewer are shown with their members."""
MAX_ENTRIES = 40
MAX_PANELS = 48
MAX_LABELS = 30
NUM_BINS = 10
Digests = Mapping[str, Sequence[Digest]]
"""Task to the digests of its runs."""


@dataclass(frozen=True)
class Panel:
    """A drawing, its heading, and a line below it."""

    title: str
    svg: str
    note: str = ""


def headline_rows(top: Sequence[Row]) -> list[Row]:
    """Groups and lone tasks; where those are few, the groups' direct members too."""
    if len(top) >= MANY:
        return list(top)
    return [row for root in top for depth, row in root.walk() if depth <= 1]


def _entry(row: Row, metric: str, models: Sequence[str]) -> Entry:
    cells = row.cells(metric)
    found = tuple((i, cells[model].estimate) for i, model in enumerate(models) if model in cells)
    return Entry(text.one_line(row.label), found, row.is_group)


def _by_metric(found: Sequence[Row]) -> dict[str, list[Row]]:
    table: dict[str, list[Row]] = defaultdict(list)
    for row in found:
        if row.cells(row.headline):
            table[row.headline].append(row)
    return table


def forests(top: Sequence[Row], models: Sequence[str]) -> list[Panel]:
    """One panel a metric, because only equal metrics share an axis."""
    panels: list[Panel] = []
    for number, (metric, found) in enumerate(_by_metric(headline_rows(top)).items()):
        panels += _panels(f"forest-{number}", text.one_line(metric), metric, found, models)
    return panels


def members(top: Sequence[Row], models: Sequence[str]) -> list[Panel]:
    """A panel for every group whose members the forest does not show already."""
    shown = {row.name for row in headline_rows(top)}
    groups = [row for root in top for _, row in root.walk() if row.is_group and len(row.children) > 1]
    panels: list[Panel] = []
    for number, group in enumerate(groups):
        if all(child.name in shown for child in group.children):
            continue
        for metric, found in _by_metric(group.children).items():
            title = f"{text.one_line(group.name)}: {text.one_line(metric)}"
            panels += _panels(f"members-{number}-{len(panels)}", title, metric, found, models)
    return panels


def _panels(name: str, title: str, metric: str, found: Sequence[Row], models: Sequence[str]) -> list[Panel]:
    parts = [found[i : i + MAX_ENTRIES] for i in range(0, len(found), MAX_ENTRIES)]
    panels = []
    for number, part in enumerate(parts):
        higher = part[0].higher.get(metric, True)
        entries = [_entry(row, metric, models) for row in part]
        heading = _arrow(title, higher) + (f" ({number + 1} of {len(parts)})" if len(parts) > 1 else "")
        spoken = f"Estimates with intervals, {title}: the tables hold the same numbers."
        panels.append(Panel(heading, forest(f"{name}-{number}", spoken, entries, higher=higher)))
    return panels


def _arrow(title: str, higher: bool) -> str:
    return f"{title} {'↑' if higher else '↓'}"


# ------------------------------------------------------------------------------------------- slices


def slices(top: Sequence[Row], digests: Digests, models: Sequence[str]) -> tuple[list[Panel], int]:
    """Panels by the samples' labels (subject, language ...), and how many more there would be beyond MAX_PANELS."""
    panels: list[Panel] = []
    left_out = 0
    for row in top:
        for metric, leaves in _leaves_by_metric(row, digests).items():
            for key, table in _labels(leaves, digests).items():
                if len(panels) == MAX_PANELS:
                    left_out += 1
                    continue
                panel = _slice_panel(f"slice-{len(panels)}", row, metric, key, table, models)
                panels += [panel] if panel else []
    return panels, left_out


def _leaves_by_metric(row: Row, digests: Digests) -> dict[str, list[str]]:
    table: dict[str, list[str]] = defaultdict(list)
    for leaf in row.leaves:
        for one in digests.get(leaf, ())[:1]:
            table[one.headline].append(leaf)
    return table


Labelled = dict[str, dict[str, list[tuple[Digest, Light]]]]
"""Label to model to its samples."""


def _labels(leaves: Sequence[str], digests: Digests) -> dict[str, Labelled]:
    """By metadata key, the samples by label and model. Keys that say no more than the task or an earlier key are left out."""
    found: dict[str, Labelled] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    parts: dict[str, dict[str, set[tuple[str, str]]]] = defaultdict(lambda: defaultdict(set))
    for leaf in leaves:
        for one in digests[leaf]:
            for row in one.rows:
                for key, label in row.metadata.items():
                    found[key][label][one.label].append((one, row))
                    parts[key][label].add((leaf, row.id))
    seen = {_partition(_tasks_parts(leaves, digests))}
    chosen: dict[str, Labelled] = {}
    for key, table in found.items():
        partition = _partition(parts[key].values())
        if len(table) < 2 or partition in seen or len(table) > max(MAX_LABELS, len(leaves)):
            continue
        seen.add(partition)
        chosen[key] = table
    return chosen


def _tasks_parts(leaves: Sequence[str], digests: Digests) -> list[set[tuple[str, str]]]:
    return [{(leaf, row.id) for one in digests[leaf] for row in one.rows} for leaf in leaves]


def _partition(parts: Iterable[set[tuple[str, str]]]) -> frozenset[frozenset[tuple[str, str]]]:
    return frozenset(frozenset(part) for part in parts)


def _slice_panel(name: str, row: Row, metric: str, key: str, table: Labelled, models: Sequence[str]) -> Panel | None:
    labels = sorted(table, key=_natural)[:MAX_ENTRIES]
    entries = []
    for label in labels:
        found = [
            (i, _slice_estimate(metric, table[label][model])) for i, model in enumerate(models) if table[label][model]
        ]
        entries.append(Entry(text.one_line(label), tuple((i, e) for i, e in found if e)))
    if not any(entry.estimates for entry in entries):
        return None
    higher = row.higher.get(metric, True)
    title = f"{text.one_line(row.name)}: {text.one_line(metric)} by {text.one_line(key)}"
    return Panel(_arrow(title, higher), forest(name, f"Estimates with intervals, {title}", entries, higher=higher))


def _slice_estimate(metric: str, samples: Sequence[tuple[Digest, Light]]) -> Estimate | None:
    """The mean of a slice; None for metrics that are no mean, which the folder alone cannot finish."""
    scores = [light.score for _, light in samples if light.score is not None]
    if not scores or any(score.stats for score in scores):
        return None
    info = next((m for one, _ in samples for m in one.run.task.metrics if m.name == metric), None)
    kept = [(one.run.task.name, light) for one, light in samples if light.score is not None]
    clusters = [f"{task}\x1f{light.cluster}" if light.cluster else None for task, light in kept]
    return estimate(
        Metric(name=metric, unit=info.unit if info else ""), scores, clusters=clusters if any(clusters) else ()
    )


def _natural(label: str) -> list[tuple[int, int, str]]:
    """Sorts "grade 10" after "grade 9"."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", label)]


# ------------------------------------------------------------------------------ calibration, documents


def bins(rows: Sequence[Light]) -> list[Bin]:
    """Samples in NUM_BINS equal ranges of confidence; empty ranges are left out."""
    table: dict[int, list[Light]] = defaultdict(list)
    for row in rows:
        if row.confidence is not None and row.credit is not None:
            table[min(int(row.confidence * NUM_BINS), NUM_BINS - 1)].append(row)
    found = []
    for _, part in sorted(table.items()):
        n = len(part)
        accuracy = math.fsum(row.credit or 0.0 for row in part) / n
        confidence = math.fsum(row.confidence or 0.0 for row in part) / n
        found.append(Bin(confidence, accuracy, wilson(accuracy, n), n))
    return found


def expected_calibration_error(found: Sequence[Bin]) -> float | None:
    """sum over bins of n_b / n |accuracy_b - confidence_b| (Guo et al. 2017, equation 3)."""
    n = sum(one.n for one in found)
    return math.fsum(one.n / n * abs(one.accuracy - one.confidence) for one in found) if n else None


def calibrations(top: Sequence[Row], digests: Digests, models: Sequence[str]) -> list[Panel]:
    """A panel for every group or task with choices, all its tasks together."""
    shown = headline_rows(top)
    within = {child.name for row in shown for child in row.children}
    split = [row for row in shown if not any(child in shown for child in row.children)] if within else shown
    panels: list[Panel] = []
    for number, row in enumerate(split[:MAX_PANELS]):
        curves, notes = [], []
        for position, model in enumerate(models):
            rows = [
                light
                for leaf in row.leaves
                for one in digests.get(leaf, ())
                if one.label == model
                for light in one.rows
            ]
            found = bins(rows)
            error = expected_calibration_error(found)
            if error is not None:
                curves.append((position, found))
                notes.append(f"{text.one_line(model)} {error:.3f}")
        if curves:
            title = text.one_line(row.name)
            svg = calibration(f"calibration-{number}", f"Calibration on {title}: ECE {', '.join(notes)}", curves)
            panels.append(Panel(title, svg, "ECE " + ", ".join(notes)))
    return panels


def documents(digests: Digests, models: Sequence[str]) -> list[Panel]:
    """A panel for every task that scores whole documents."""
    panels = []
    for number, (task, found) in enumerate(digests.items()):
        columns = []
        for one in found:
            values = [row.bits_per_byte for row in one.rows if row.bits_per_byte is not None]
            if values:
                columns.append((models.index(one.label), values))
        if columns:
            title = text.one_line(task)
            spoken = f"Bits per byte of each document of {title}, by model"
            svg = distribution(f"documents-{number}", spoken, columns, "bits per byte")
            counts = text.plural(max(len(values) for _, values in columns), "document")
            panels.append(Panel(title, svg, f"{counts}; less is better; line: median, bar: middle half"))
    return panels
