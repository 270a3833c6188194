"""Estimates of groups of tasks, made from the estimates of their members."""

from collections.abc import Mapping, Sequence

import msgspec

import lydite
from lydite.stats import pool
from lydite.types import Estimate, Group, GroupEstimates, Run

AVERAGE = "average"
"""Name of the metric of a group whose members have no metric in common: the mean of their headline metrics."""


def leaves(name: str, groups: Mapping[str, Group]) -> list[str]:
    """Names of the leaf tasks below a task or group, in order, each once."""
    if name not in groups:
        return [name]
    found: dict[str, None] = {}
    for member in groups[name].members:
        found.update(dict.fromkeys(leaves(member, groups)))
    return list(found)


def group_estimates(model: str, runs: Mapping[str, Run], groups: Sequence[Group]) -> list[GroupEstimates]:
    """GroupEstimates of every group whose leaves are all in `runs` (task name to Run), members before the groups that hold them."""
    by_name = {group.name: group for group in groups}
    done: dict[str, tuple[Estimate, ...]] = {name: run.estimates for name, run in runs.items()}
    result = []
    for group in _inner_first(by_name):
        tasks = leaves(group.name, by_name)
        if not all(task in runs for task in tasks):
            continue
        estimates = tuple(
            _signed(pooled, group, model, [runs[task] for task in tasks])
            for pooled in _pooled(group, [done[member] for member in group.members])
        )
        done[group.name] = estimates
        result.append(
            GroupEstimates(
                model=model,
                group=group.name,
                members=tuple(tasks),
                parts=group.members,
                weighting=group.weighting,
                estimates=estimates,
            )
        )
    return result


def _inner_first(groups: Mapping[str, Group]) -> list[Group]:
    order: dict[str, Group] = {}

    def visit(name: str) -> None:
        if name in groups and name not in order:
            for member in groups[name].members:
                visit(member)
            order[name] = groups[name]

    for name in groups:
        visit(name)
    return list(order.values())


def _pooled(group: Group, members: Sequence[tuple[Estimate, ...]]) -> list[Estimate]:
    """One pooled estimate for each metric that all members share; else the mean of their headline metrics."""
    tables = [{estimate.metric: estimate for estimate in member} for member in members]
    shared = [metric for metric in tables[0] if all(metric in table for table in tables)]
    if shared and all(next(iter(table)) == next(iter(tables[0])) for table in tables):
        return [pool([table[metric] for table in tables], weighting=group.weighting) for metric in shared]
    headlines = [msgspec.structs.replace(member[0], metric=AVERAGE) for member in members]
    return [pool(headlines, weighting=group.weighting)]


def _signed(value: Estimate, group: Group, model: str, runs: Sequence[Run]) -> Estimate:
    number = "none" if value.value is None else f"{value.value:.4g}"
    if value.interval is not None:
        number += f" [{value.interval[0]:.4g}, {value.interval[1]:.4g}]"
    versions = ",".join(sorted({f"@{run.task.version}" for run in runs}))
    parts = [
        f"{value.metric} {number}",
        f"{group.name}{versions} over {len(runs)} tasks",
        f"weighting {group.weighting}",
        f"n {value.n}",
        f"failed {value.n_failed}",
        f"{model}@{runs[0].model.fingerprint[:7]}",
        f"lydite {lydite.__version__}",
    ]
    return msgspec.structs.replace(value, signature=" | ".join(parts))
