"""The tree of rows that every table of results shows: groups above their members, models side by side.

    >>> top = rows(runs, groups)        # groups and tasks that no group holds, in the order of the runs
    >>> top[0].headline, top[0].cells("acc")["gemma-3-270m"].estimate.value

Contract: nothing is dropped. A task or group stands below the group that names it as a member, or else below the smallest
group that holds all of it. `best` names a model only where the numbers carry it.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lydite.types import Estimate, GroupEstimates, Run


@dataclass(frozen=True)
class Cell:
    """One model's estimate in a row, and what must be equal before two models may be ranked."""

    estimate: Estimate
    terms: tuple[str, ...]
    """Task versions, fingerprints, views and settings that the number rests on."""
    rules: frozenset[str]
    """Rules of its likelihoods; empty for null models, whose answers follow none."""


@dataclass
class Row:
    """A task or a group: metric -> model -> Cell."""

    name: str
    is_group: bool
    leaves: tuple[str, ...]
    """Names of the tasks below; for a task its own name."""
    table: dict[str, dict[str, Cell]] = field(default_factory=dict)
    higher: dict[str, bool] = field(default_factory=dict)
    """By metric: whether more is better."""
    parts: tuple[str, ...] = ()
    """Names of a group's direct members, where the run folder tells them."""
    children: list["Row"] = field(default_factory=list)
    label: str = ""
    """The name without its group's, where it begins with that: it stands below the group."""

    def __post_init__(self) -> None:
        self.label = self.label or self.name

    @property
    def metrics(self) -> list[str]:
        return list(self.table)

    @property
    def headline(self) -> str:
        """The first metric, which the task declares as its headline."""
        return next(iter(self.table), "")

    def cells(self, metric: str) -> dict[str, Cell]:
        return self.table.get(metric, {})

    def walk(self, depth: int = 0) -> Iterator[tuple[int, "Row"]]:
        """This row and all below it, with their depth."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


def label_models(runs: Sequence[Run]) -> dict[int, str]:
    """Position in `runs` to a label: the model's name, with the run's id where one name ran one task twice."""
    counts = Counter((run.model.name, run.task.name) for run in runs)
    twice = {model for (model, _), count in counts.items() if count > 1}
    return {i: f"{r.model.name} ({r.id[:6]})" if r.model.name in twice else r.model.name for i, r in enumerate(runs)}


def model_names(runs: Sequence[Run]) -> list[str]:
    """Labels of the models, each once, in the order of the runs."""
    return list(dict.fromkeys(label_models(runs).values()))


def rows(runs: Sequence[Run], groups: Sequence[GroupEstimates]) -> list[Row]:
    """The top rows; see the module's docstring."""
    tasks = _task_rows(runs)
    found = _group_rows(runs, groups, tasks)
    order = {name: position for position, name in enumerate(tasks)}
    # Small groups first; of two with the same tasks the earlier is the inner one, because groups are written inner first.
    by_size = sorted(found, key=lambda group: len(group.leaves))
    top: list[Row] = []
    for position, row in enumerate([*tasks.values(), *by_size]):
        larger = by_size[max(position - len(tasks) + 1, 0) :]
        named = (group for group in by_size if row.name in group.parts and group is not row)
        holding = (group for group in larger if set(row.leaves) <= set(group.leaves))
        parent = next(named, None) or next(holding, None)
        (parent.children if parent else top).append(row)
    for row in by_size:
        place = {name: position for position, name in enumerate(row.parts)}
        row.children.sort(key=lambda child: (place.get(child.name, len(place)), _position(child, order)))
    for row in top:
        _label(row, ())
    return sorted(top, key=lambda row: _position(row, order))


def _label(row: Row, above: tuple[str, ...]) -> None:
    """Shortens names by the longest name of a group above that they begin with."""
    for name in sorted(above, key=len, reverse=True):
        shorter = re.sub(rf"^{re.escape(name)}[-_:/. ]+(?=.)", "", row.name)
        if shorter != row.name:
            row.label = shorter
            break
    for child in row.children:
        _label(child, (*above, row.name))


def _position(row: Row, order: dict[str, int]) -> int:
    return min((order[name] for name in row.leaves if name in order), default=len(order))


def _task_rows(runs: Sequence[Run]) -> dict[str, Row]:
    labels = label_models(runs)
    found: dict[str, Row] = {}
    for position, run in enumerate(runs):
        row = found.setdefault(run.task.name, Row(run.task.name, False, (run.task.name,)))
        row.higher.update({metric.name: metric.higher_is_better for metric in run.task.metrics})
        for metric in run.task.metrics:
            row.table.setdefault(metric.name, {})
        for estimate in run.estimates:
            row.table.setdefault(estimate.metric, {})[labels[position]] = Cell(estimate, terms(run), rules(run))
    return found


def _group_rows(runs: Sequence[Run], groups: Sequence[GroupEstimates], tasks: dict[str, Row]) -> list[Row]:
    by_key = {(run.model.name, run.task.name): run for run in runs}
    found: dict[str, Row] = {}
    for group in groups:
        row = found.setdefault(group.group, Row(group.group, True, group.members, parts=group.parts))
        below = [by_key[group.model, name] for name in group.members if (group.model, name) in by_key]
        carried = (*tuple(term for run in below for term in terms(run)), group.weighting, *group.members, *group.parts)
        for estimate in group.estimates:
            cell = Cell(estimate, carried, frozenset().union(*map(rules, below)))
            row.table.setdefault(estimate.metric, {})[group.model] = cell
            metrics = [tasks[name].higher for name in group.members if name in tasks]
            row.higher[estimate.metric] = all(higher.get(estimate.metric, True) for higher in metrics)
    return list(found.values())


def terms(run: Run) -> tuple[str, ...]:
    """What must be equal before two runs of a task may be ranked against each other."""
    task = run.task
    settings = ",".join(f"{key}={value}" for key, value in sorted(task.settings.items()))
    options = [str(run.config.get(key)) for key in ("limit", "seed", "decoding")]
    return (f"{task.name}@{task.version}", task.fingerprint, run.view, settings, *options)


def rules(run: Run) -> frozenset[str]:
    """The rule of the run's likelihoods, where it has one: pseudo-likelihoods are never ranked against likelihoods."""
    return frozenset([run.model.rule]) if run.view == "score" and run.model.family != "null" else frozenset()


def comparable(cells: Iterable[Cell]) -> bool:
    """Whether the numbers rest on the same terms and on likelihoods of one rule."""
    found = list(cells)
    return len({cell.terms for cell in found}) <= 1 and len({cell.rules for cell in found if cell.rules}) <= 1


def leader(row: Row, metric: str) -> str | None:
    """The model with the best value, where all are ranked on the same terms and one stands alone at the top."""
    cells = {model: cell for model, cell in row.cells(metric).items() if cell.estimate.value is not None}
    if len(cells) < 2 or not comparable(cells.values()):
        return None
    sign = 1.0 if row.higher.get(metric, True) else -1.0
    ordered = sorted(cells, key=lambda model: -sign * (cells[model].estimate.value or 0.0))
    first, second = cells[ordered[0]].estimate.value, cells[ordered[1]].estimate.value
    return ordered[0] if first != second else None


def best(row: Row, metric: str) -> str | None:
    """The leader, where its difference to every other model is larger than the uncertainty of that difference.

    The difference of independent estimates: |a - b| > 1.96 sqrt(se_a^2 + se_b^2). Models that saw the same samples are
    paired more sharply by `lydite compare`; this rule errs on the side of naming nobody.
    """
    name = leader(row, metric)
    if name is None:
        return None
    first = row.cells(metric)[name].estimate
    others = [cell.estimate for model, cell in row.cells(metric).items() if model != name]
    return name if all(_apart(first, other) for other in others if other.value is not None) else None


def _apart(one: Estimate, other: Estimate) -> bool:
    errors = [_stderr(one), _stderr(other)]
    if one.value is None or other.value is None or None in errors:
        return False
    return abs(one.value - other.value) > 1.96 * math.hypot(*(error or 0.0 for error in errors))


def _stderr(estimate: Estimate) -> float | None:
    """The standard error, never below a quarter of the interval: a proportion of 0 or 1 has none, its interval has."""
    if estimate.interval is None:
        return None
    return max(estimate.stderr or 0.0, (estimate.interval[1] - estimate.interval[0]) / 4)


def versus_chance(estimate: Estimate, higher: bool = True) -> str:
    """ "at", "above" or "below" chance by the interval; "" where chance or the interval is unknown. Above is better."""
    if estimate.chance is None or estimate.interval is None:
        return ""
    low, high = estimate.interval
    if low <= estimate.chance <= high:
        return "at"
    return "above" if (low > estimate.chance) == higher else "below"
