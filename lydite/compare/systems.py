"""Which models the named folders hold, in which settings their runs differ, and which runs cannot be paired at all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lydite.compare.records import NotCompared, SettingDifference, System
from lydite.runs import LOGGED_BY, find_runs, read_run
from lydite.types import MetricInfo, Run


@dataclass(frozen=True)
class Entry:
    """One run of one system."""

    label: str
    folder: Path
    run: Run


def find_systems(folders: Sequence[Path]) -> tuple[list[System], list[Entry]]:
    """The models, in the order in which they were named, and all their runs."""
    named = {leaf.resolve(): leaf for folder in folders for leaf in find_runs(folder)}
    runs = {leaf: read_run(leaf) for leaf in named.values()}
    groups: dict[tuple[str, ...], list[Path]] = {}
    for leaf, run in runs.items():
        key: tuple[str, ...] = (str(leaf.resolve().parent), run.model.name)
        # Runs that lie in one folder are one model's, unless two of them are of the same task.
        if any(runs[other].task.name == run.task.name for other in groups.get(key, ())):
            key = (*key, leaf.name)
        groups.setdefault(key, []).append(leaf)
    leaves = list(groups.values())
    labels = _labels([(runs[group[0]].model.name, group[0]) for group in leaves])
    systems = [
        System(
            label=label,
            model=runs[group[0]].model,
            folders={runs[leaf].task.name: str(leaf) for leaf in group},
        )
        for label, group in zip(labels, leaves, strict=True)
    ]
    entries = [Entry(label, leaf, runs[leaf]) for label, group in zip(labels, leaves, strict=True) for leaf in group]
    return systems, entries


def _labels(named: Sequence[tuple[str, Path]]) -> list[str]:
    """Model names; where two are equal, with the shortest part of the path that tells them apart."""
    views = (lambda leaf: leaf.resolve().parents[1].name, lambda leaf: str(leaf.parent), str)
    labels = []
    for name, leaf in named:
        twins = [other for twin, other in named if twin == name and other != leaf]
        telling = [view(leaf) for view in views if view(leaf) not in {view(twin) for twin in twins}]
        labels.append(f"{name} ({telling[0]})" if twins else name)
    return labels


# ------------------------------------------------------------------------------------------- settings

IDENTITY = ("model.name", "model.fingerprint", "model.source", "model.parameters")
"""What makes a model another one; its System says it."""


def settings(run: Run) -> dict[str, Any]:
    """Everything about a run that could matter to its numbers, as dotted keys."""
    model, task = msgspec.to_builtins(run.model), msgspec.to_builtins(run.task)
    task["metrics"] = {info.name: msgspec.to_builtins(info) for info in run.task.metrics}
    config = {key: value for key, value in run.config.items() if key not in ("model", "task", "view")}
    # The command is there for --from; what it says of the run stands in the config already.
    where = {key: value for key, value in run.environment.items() if key != "command"}
    rest = {"n_samples": run.n_samples, "status": run.status, "environment": where}
    return dict(_flat({"model": model, "task": task, "view": run.view, **config, **rest}, ""))


def _flat(value: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        elif key != "type":
            yield f"{prefix}{key}", inner


def setting_differences(entries: Sequence[Entry]) -> list[SettingDifference]:
    """Every setting that differs between the runs of any task; equal differences of several tasks are one."""
    found: dict[str, SettingDifference] = {}
    for task in dict.fromkeys(entry.run.task.name for entry in entries):
        tables = {entry.label: settings(entry.run) for entry in entries if entry.run.task.name == task}
        for key in dict.fromkeys(key for table in tables.values() for key in table):
            values = {label: table.get(key) for label, table in tables.items()}
            distinct = {msgspec.json.encode(value, order="sorted") for value in values.values()}
            unfinished = key == "status" and set(values.values()) != {"done"}
            if key in IDENTITY or (len(distinct) == 1 and not unfinished):
                continue
            name = msgspec.json.encode([key, values], order="sorted").decode()
            tasks = found[name].tasks if name in found else ()
            found[name] = SettingDifference(key=key, values=values, tasks=(*tasks, task))
    return list(found.values())


# ---------------------------------------------------------------------------------------- what can be paired


def partition(entries: Sequence[Entry], metric: str | None) -> tuple[list[list[Entry]], list[NotCompared]]:
    """Runs of one task in sets of two or more within which all can be paired, and why the others cannot."""
    sets: list[list[Entry]] = []
    told: dict[tuple[str, str], str] = {}
    # Null models answer by no rule that could be unlike another's, so they come last and join every set.
    ordered = sorted(entries, key=lambda entry: entry.run.model.family == "null")
    for entry in ordered:
        fitting = []
        for members in sets:
            reason = obstacle(members[0].run, entry.run, metric)
            if reason is None:
                fitting.append(members)
            else:
                told[members[0].label, entry.label] = reason
        if entry.run.model.family != "null":
            fitting = fitting[:1]
        for members in fitting:
            members.append(entry)
        if not fitting:
            sets.append([entry])
    task = entries[0].run.task.name
    refused = [NotCompared(task=task, systems=pair, reason=reason) for pair, reason in told.items()]
    places = {entry.label: place for place, entry in enumerate(entries)}
    return [sorted(members, key=lambda e: places[e.label]) for members in sets if len(members) > 1], refused


def obstacle(a: Run, b: Run, metric: str | None) -> str | None:
    """Why two runs of a task cannot be paired, or None."""
    if a.view == b.view == "score" and a.model.rule != b.model.rule and "null" not in (a.model.family, b.model.family):
        return f"score by the rules {a.model.rule} and {b.model.rule}, whose likelihoods cannot be ranked together"
    if LOGGED_BY in a.environment or LOGGED_BY in b.environment:
        # Samples of logs are paired by their content, and versions of other systems are no versions of ours.
        return None if common_info([a, b], metric) else f"have no {metric or 'metric'} in common"
    if a.task.version != b.task.version:
        return f"ran versions {a.task.version} and {b.task.version} of the task; evaluate both with one version"
    if a.task.fingerprint != b.task.fingerprint:
        return "ran the task with other data or templates (its fingerprint differs); evaluate both with the same"
    infos = [info_of(run, metric) for run in (a, b)]
    if infos[0] != infos[1]:
        names = [f"{info.name}@{info.version}" if info else f"no {metric or 'metric'}" for info in infos]
        return f"have {names[0]} and {names[1]}; choose a shared --metric, or `lydite rescore` both"
    return None


def common_info(runs: Sequence[Run], metric: str | None) -> MetricInfo | None:
    """The metric of that name that all runs have; without a name the first run's first that all have."""
    tables = [{info.name: info for info in run.task.metrics} for run in runs]
    for name, info in tables[0].items():
        found = [table.get(name) for table in tables]
        same = {(other.higher_is_better, other.unit) if other else None for other in found}
        if metric in (None, name) and None not in same and len({pair[0] for pair in same if pair}) == 1:
            return info if len(same) == 1 else msgspec.structs.replace(info, unit="")
    return None


def info_of(run: Run, metric: str | None) -> MetricInfo | None:
    """The metric of that name; without a name the headline metric."""
    return next((info for info in run.task.metrics if metric in (None, info.name)), None)
