"""Comparisons pooled over the tasks of a group, the correction for many tests, and rank groups."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TypeVar

import msgspec

import lydite
from lydite.compare.records import Compared, NotCompared, Pair
from lydite.compare.systems import Entry
from lydite.runs import read_groups
from lydite.stats import Difference, holm, pool, pool_differences, rank_groups
from lydite.types import Estimate, GroupEstimates

AVERAGE = "average"
"""Metric of a group whose members have no metric in common: the mean of their headline metrics, as in reports."""


def find_groups(entries: Sequence[Entry]) -> list[GroupEstimates]:
    """The groups that were reported beside any of the runs, each name once, with its most members, inner ones first."""
    outs = dict.fromkeys(out for entry in entries for out in list(entry.folder.resolve().parents)[:2])
    found: dict[str, GroupEstimates] = {}
    for group in (group for out in outs for group in read_groups(out)):
        if group.group not in found or len(group.members) > len(found[group.group].members):
            found[group.group] = group
    names = {entry.run.task.name for entry in entries}
    return sorted((group for group in found.values() if names & set(group.members)), key=lambda g: len(g.members))


def compare_groups(
    groups: Sequence[GroupEstimates], tasks: Sequence[Compared], labels: Sequence[str]
) -> tuple[list[Compared], list[NotCompared]]:
    """Each group for the largest set of systems that were compared on all its tasks, and the groups without such a set."""
    found: list[Compared] = []
    refused: list[NotCompared] = []
    by_name = {group.group: group for group in groups}
    for group in groups:
        of_group = [row for row in tasks if row.name in group.members]
        for systems in sorted({frozenset(row.systems) for row in of_group}, key=len, reverse=True):
            fitting = {row.name: row for row in of_group if systems <= set(row.systems)}
            same_direction = len({row.higher_is_better for row in fitting.values()}) == 1
            if set(fitting) == set(group.members) and same_direction:
                found.append(_pooled(group, by_name, fitting, [label for label in labels if label in systems]))
                break
        else:
            reason = "were not compared on all its tasks, or more is better on only some of them"
            refused.append(NotCompared(task=group.group, systems=tuple(labels), reason=reason))
    return found, refused


def _pooled(
    group: GroupEstimates,
    groups: Mapping[str, GroupEstimates],
    tasks: Mapping[str, Compared],
    labels: Sequence[str],
) -> Compared:
    """The group from its direct members, of which some may be groups."""
    known = group.parts and all(part in tasks or part in groups for part in group.parts)
    members = group.parts if known else group.members
    rows = [tasks[part] if part in tasks else _pooled(groups[part], groups, tasks, labels) for part in members]
    metric = rows[0].metric if len({row.metric for row in rows}) == 1 else AVERAGE
    where = f"{group.group} over {len(rows)} members, weighting {group.weighting}"
    estimates = {}
    for label in labels:
        parts = [_renamed(row.estimates[row.systems.index(label)], metric) for row in rows]
        found = pool(parts, weighting=group.weighting)
        line = [shown(metric, found), where, f"n {found.n} shared", f"failed {found.n_failed}", label]
        line.append(f"lydite {lydite.__version__}")
        estimates[label] = msgspec.structs.replace(found, signature=" | ".join(line))
    differences = {}
    for a, b in combinations(labels, 2):
        of_rows = [next(pair.difference for pair in row.pairs if (pair.a, pair.b) == (a, b)) for row in rows]
        differences[a, b] = pool_differences([_renamed(it, metric) for it in of_rows], weighting=group.weighting)
    ordered = best_first(estimates, rows[0].higher_is_better)
    return Compared(
        name=group.group,
        members=group.members,
        weighting=group.weighting,
        metric=metric,
        higher_is_better=rows[0].higher_is_better,
        systems=ordered,
        estimates=tuple(estimates[label] for label in ordered),
        ranks=(),
        pairs=pair_up(differences, where, None),
        n_shared=sum(row.n_shared for row in rows),
        n_unshared=sum(row.n_unshared for row in rows),
    )


_Number = TypeVar("_Number", Estimate, Difference)


def _renamed(number: _Number, metric: str) -> _Number:
    return msgspec.structs.replace(number, metric=metric)


def best_first(estimates: Mapping[str, Estimate], higher_is_better: bool) -> tuple[str, ...]:
    """Labels by value; those without one last."""
    sign = -1.0 if higher_is_better else 1.0

    def key(label: str) -> tuple[bool, float]:
        value = estimates[label].value
        return value is None, sign * (value or 0.0)

    return tuple(sorted(estimates, key=key))


def pair_up(differences: Mapping[tuple[str, str], Difference], where: str, seed: int | None) -> tuple[Pair, ...]:
    """Pairs with the line that lets anyone reproduce them; `corrected` completes them."""
    pairs = []
    for (a, b), found in differences.items():
        p = "none" if found.p is None else f"{found.p:.3g}"
        parts = [shown(f"{found.metric} difference", found), where, f"{a} - {b}", f"n {found.n}"]
        parts += [f"{found.level:.0%} {found.method}" if found.method else "no interval", f"{found.test} p {p}"]
        parts += [] if seed is None else [f"seed {seed}"]
        pairs.append(
            Pair(
                a=a, b=b, difference=found, p_holm=None, signature=" | ".join([*parts, f"lydite {lydite.__version__}"])
            )
        )
    return tuple(pairs)


def shown(name: str, found: Estimate | Difference) -> str:
    """A number with its interval, for signatures."""
    if found.value is None:
        return f"{name} none"
    interval = f" [{found.interval[0]:.4g}, {found.interval[1]:.4g}]" if found.interval else ""
    return f"{name} {found.value:.4g}{interval}"


def corrected(rows: Sequence[Compared], level: float) -> list[Compared]:
    """The rows with Holm's correction over all their tests together, and the letters that follow from it."""
    adjusted = iter(holm([pair.difference.p for row in rows for pair in row.pairs if pair.difference.p is not None]))
    result = []
    for row in rows:
        pairs = tuple(
            msgspec.structs.replace(pair, p_holm=None if pair.difference.p is None else next(adjusted))
            for pair in row.pairs
        )
        result.append(msgspec.structs.replace(row, pairs=pairs, ranks=_ranks(row, pairs, level)))
    return result


def _ranks(row: Compared, pairs: Sequence[Pair], level: float) -> tuple[str, ...]:
    """Letters of each system; none for those without a value."""
    valued = [label for label, e in zip(row.systems, row.estimates, strict=True) if e.value is not None]
    place = {label: number for number, label in enumerate(valued)}
    different = {
        (min(place[pair.a], place[pair.b]), max(place[pair.a], place[pair.b]))
        for pair in pairs
        if pair.p_holm is not None and pair.p_holm < 1 - level and {pair.a, pair.b} <= set(valued)
    }
    letters = rank_groups(len(valued), different)
    return tuple(letters[place[label]] if label in place else "" for label in row.systems)
