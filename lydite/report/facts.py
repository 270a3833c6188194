"""What the page's tables hold: numbers and settings as text, ready for the template."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from lydite.report import text
from lydite.report.digest import Digest
from lydite.report.rows import Row, best, versus_chance
from lydite.types import Estimate, Run

Fact = dict[str, Any]


def result_rows(top: Sequence[Row], models: Sequence[str], anchors: dict[str, str]) -> list[Fact]:
    """The headline table: nested, a dict a row."""
    return [_result_row(row, models, anchors, 0) for row in top]


def _result_row(row: Row, models: Sequence[str], anchors: dict[str, str], depth: int) -> Fact:
    metric = row.headline
    cells = row.cells(metric)
    found = [cell.estimate for cell in cells.values()]
    weakest = max(found, key=lambda e: e.n_failed, default=None)
    return {
        "name": text.one_line(row.name),
        "label": text.one_line(row.label),
        "metric": text.one_line(metric),
        "arrow": "↑" if row.higher.get(metric, True) else "↓",
        "is_group": row.is_group,
        "tasks": len(row.leaves),
        "depth": depth,
        "anchor": anchors.get(row.name, ""),
        "cells": [_cell(cells[m].estimate if m in cells else None, row, m, found) for m in models],
        "n": f"{weakest.n:,}" if weakest else "–",
        "failed": f"{weakest.n_failed:,}" if weakest else "–",
        "chance": text.number(weakest.chance, 3) if weakest and weakest.chance is not None else "",
        "children": [_result_row(child, models, anchors, depth + 1) for child in row.children],
    }


def _cell(value: Estimate | None, row: Row, model: str, found: Sequence[Estimate]) -> Fact:
    if value is None:
        return {"value": "–", "interval": "", "state": "", "best": False, "spark": None, "signature": ""}
    places = text.decimals(found)
    state = versus_chance(value, row.higher.get(value.metric, True))
    return {
        "value": text.number(value.value, places),
        "interval": text.interval(value, places),
        "state": state,
        "best": best(row, value.metric) == model,
        "spark": _spark(value, found),
        "signature": text.one_line(value.signature),
    }


def _spark(value: Estimate, found: Sequence[Estimate]) -> Fact | None:
    """Places in 0..100 on the row's own scale: all of [0, 1] for shares, else what the row's intervals cover."""
    if value.value is None:
        return None
    numbers = [n for e in found for n in (e.value, e.chance, *(e.interval or ())) if n is not None]
    low, high = min(numbers), max(numbers)
    if all(0 <= e.value <= 1 for e in found if e.value is not None):
        low, high = 0.0, 1.0
    span = (high - low) or 1.0

    def place(number: float | None) -> float | None:
        return None if number is None else round(100 * (number - low) / span, 1)

    start, end = (place(bound) for bound in value.interval) if value.interval else (None, None)
    return {"value": place(value.value), "start": start, "end": end, "chance": place(value.chance)}


def all_estimates(top: Sequence[Row], models: Sequence[str]) -> list[Fact]:
    """Every number with its signature."""
    facts = []
    for root in top:
        for depth, row in root.walk():
            for metric in row.metrics:
                for model in models:
                    if model in row.cells(metric):
                        facts.append(_estimate(row, depth, metric, model))
    return facts


def _estimate(row: Row, depth: int, metric: str, model: str) -> Fact:
    value = row.cells(metric)[model].estimate
    places = text.decimals([value])
    return {
        "task": text.one_line(row.name),
        "is_group": row.is_group,
        "depth": depth,
        "metric": text.one_line(metric),
        "model": text.one_line(model),
        "value": text.number(value.value, places),
        "interval": text.interval(value, places),
        "method": text.one_line(value.method),
        "n": f"{value.n:,}",
        "failed": f"{value.n_failed:,}",
        "chance": text.number(value.chance, 3) if value.chance is not None else "",
        "signature": text.one_line(value.signature),
    }


# -------------------------------------------------------------------------------------- settings, speed


def model_facts(digests: Sequence[Digest]) -> list[Fact]:
    """What each model says of itself."""
    found: dict[str, Fact] = {}
    for one in digests:
        info = one.run.model
        pairs = {
            "family": info.family,
            "rule": info.rule,
            "parameters": f"{info.parameters:,}" if info.parameters else "",
            "longest sequence": f"{info.max_tokens:,} tokens" if info.max_tokens else "",
            "dtype": info.dtype or "",
            "source": info.source,
            "fingerprint": info.fingerprint,
            **{key: _plain(value) for key, value in info.settings.items()},
        }
        pairs = {text.one_line(key): text.one_line(value) for key, value in pairs.items() if value}
        found.setdefault(one.label, {"name": text.one_line(one.label), "pairs": pairs})
    return list(found.values())


def task_facts(digests: Sequence[Digest]) -> list[Fact]:
    """Version, source, licence and settings of each task."""
    found: dict[tuple[str, ...], Fact] = {}
    for one in digests:
        task = one.run.task
        settings = ", ".join(f"{key} {_plain(value)}" for key, value in sorted(task.settings.items()))
        fact = {
            "name": f"{task.name}@{task.version}",
            "view": one.run.view,
            "settings": settings,
            "source": task.source,
            "licence": task.licence,
            "fingerprint": task.fingerprint,
        }
        fact = {key: text.one_line(value) for key, value in fact.items()}
        found.setdefault(tuple(fact.values()), fact)
    return list(found.values())


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def config_facts(digests: Sequence[Digest]) -> list[Fact]:
    """The config of every run, as JSON to copy."""
    return [
        {
            "task": text.one_line(one.run.task.name),
            "model": text.one_line(one.label),
            "id": text.one_line(one.run.id),
            "json": text.clean(msgspec.json.format(msgspec.json.encode(one.run.config), indent=2).decode()),
        }
        for one in digests
    ]


def environment_facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Name and value; several values where the runs were not made in the same place."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for run in runs:
        for key, value in run.environment.items():
            found[key][value] = None
    return [(text.one_line(key), text.one_line("; ".join(values))) for key, values in found.items()]


def speed_facts(digests: Sequence[Digest], models: Sequence[str]) -> list[Fact]:
    """A total for each model, with its tasks below it."""
    facts = []
    for model in models:
        runs = [one.run for one in digests if one.label == model]
        if runs:
            tasks = [_speed(text.one_line(run.task.name), [run]) for run in runs]
            facts.append(_speed(text.one_line(model), runs) | {"tasks": tasks if len(runs) > 1 else []})
    return facts


def _speed(name: str, runs: Sequence[Run]) -> Fact:
    seconds = sum(run.timing.seconds for run in runs)
    requested = sum(run.timing.tokens_requested for run in runs)
    computed = sum(run.timing.tokens_computed for run in runs)
    generated = sum(run.timing.tokens_generated for run in runs)
    return {
        "name": name,
        "seconds": _duration(seconds),
        "load": _duration(max((run.timing.load_seconds for run in runs), default=0.0)),
        "requested": f"{requested:,}",
        "computed": f"{computed:,}",
        "generated": f"{generated:,}",
        "saved": f"{1 - computed / requested:.0%}" if 0 < computed <= requested else "–",
        "bar": round(100 * computed / requested, 1) if 0 < computed <= requested else None,
        "rate": f"{(requested + generated) / seconds:,.0f}" if seconds > 0 else "–",
        "memory": _bytes(max((run.timing.peak_memory_bytes for run in runs), default=0)),
    }


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.1f} s"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB" if count else "–"
