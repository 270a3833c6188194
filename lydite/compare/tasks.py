"""Runs of one task, paired sample by sample; and `compare`, which does so for all."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from pathlib import Path

import msgspec

from lydite.compare.align import SAME, Alignment, alignment, sample_key
from lydite.compare.groups import best_first, compare_groups, corrected, find_groups, pair_up, shown
from lydite.compare.records import Compared, Comparison, NotCompared
from lydite.compare.systems import Entry, common_info, find_systems, info_of, partition, setting_differences
from lydite.errors import RunError
from lydite.runs import read_samples
from lydite.stats import Difference, estimate, paired_difference
from lydite.types import Estimate, Metric, MetricInfo, Run, Score

FindMetric = Callable[[Run, str], Metric | None]
"""(run, name of one of its metrics) to the Metric with its functions, or None where the task is not known here."""


def compare(
    folders: Sequence[Path],
    find_metric: FindMetric,
    *,
    metric: str | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Pairs the runs in `folders` (OUT folders, OUT/<model> or single runs).

    metric: the metric to compare; None takes each task's headline metric. Raises RunError where there are no two
    models, or nothing that they did can be paired; the message says why.
    """
    systems, entries = find_systems(folders)
    labels = [system.label for system in systems]
    if len(systems) < 2:
        raise RunError(f"only {labels[0]} has runs in {_listed(map(str, folders))}; name a run of another model too")
    found: list[Compared] = []
    refused: list[NotCompared] = []
    statistics = _Statistics(level, resamples, seed)
    for task in dict.fromkeys(entry.run.task.name for entry in entries):
        of_task = [entry for entry in entries if entry.run.task.name == task]
        missing = tuple(label for label in labels if label not in {entry.label for entry in of_task})
        if missing:
            refused.append(NotCompared(task=task, systems=missing, reason="has no run of it"))
        sets, reasons = partition(of_task, metric)
        refused += reasons
        for comparable in sets:
            result = _compare_task(comparable, metric, find_metric, statistics)
            if isinstance(result, NotCompared):
                refused.append(result)
            else:
                found.append(result)
    if not found:
        reason = "; ".join(dict.fromkeys(f"{r.task}: {_listed(r.systems)} {r.reason}" for r in refused))
        raise RunError(f"nothing to compare: {reason}")
    groups, without = compare_groups(find_groups(entries), found, labels)
    return Comparison(
        systems=tuple(systems),
        differences=tuple(setting_differences(entries)),
        not_compared=(*refused, *without),
        tasks=tuple(corrected(found, level)),
        groups=tuple(corrected(groups, level)),
        level=level,
        seed=seed,
        resamples=resamples,
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


@dataclass(frozen=True)
class _Statistics:
    """The statistics with the settings of this comparison."""

    level: float
    resamples: int
    seed: int

    def estimate(self, metric: Metric, scores: Sequence[Score], clusters: Sequence[str | None]) -> Estimate:
        return estimate(metric, scores, clusters=clusters, level=self.level, resamples=self.resamples, seed=self.seed)

    def difference(
        self, metric: Metric, a: Sequence[Score], b: Sequence[Score], clusters: Sequence[str | None]
    ) -> Difference:
        return paired_difference(
            metric, a, b, clusters=clusters, level=self.level, resamples=self.resamples, seed=self.seed
        )


_Scores = dict[str, tuple[bytes, str | None, Score]]
"""Sample id to (digest of the sample, cluster, score)."""


def _read_scores(folder: Path, metric: str, by: Alignment) -> _Scores:
    """Keeps digests instead of samples and outputs, so that memory stays small."""
    found: _Scores = {}
    for record in read_samples(folder):
        score = next((s for s in record.scores if s.metric == metric and s.by == "auto"), None)
        if score is not None:
            key, digest = sample_key(record, by)
            if by != "id":
                key = next(name for name in (f"{key}#{number}" for number in count()) if name not in found)
                score = msgspec.structs.replace(score, sample_id=key)
            found[key] = (digest, record.sample.cluster, score)
    return found


def _compare_task(
    entries: Sequence[Entry], name: str | None, find_metric: FindMetric, statistics: _Statistics
) -> Compared | NotCompared:
    """One task for systems that can be paired."""
    run, labels = entries[0].run, tuple(entry.label for entry in entries)
    by = alignment([entry.run for entry in entries])
    info = info_of(run, name) if by == "id" else common_info([entry.run for entry in entries], name)
    if info is None:
        return NotCompared(task=run.task.name, systems=labels, reason=f"have no metric {name} there")
    tables = {entry.label: _read_scores(entry.folder, info.name, by) for entry in entries}
    first = tables[labels[0]]
    shared = sorted(
        id for id in first if all(id in table and table[id][0] == first[id][0] for table in tables.values())
    )
    if not shared:
        reason = f"share no sample with the same {SAME[by]}; evaluate them on the same data, limit and seed"
        return NotCompared(task=run.task.name, systems=labels, reason=reason)
    metric = _metric(info, find_metric(run, info.name), any(first[id][2].stats for id in shared))
    if metric is None:
        reason = f"need the definition of {info.name}@{info.version}, which is not known here; `lydite rescore` both"
        return NotCompared(task=run.task.name, systems=labels, reason=reason)
    scored = [id for id in shared if all(table[id][2].status != "error" for table in tables.values())]
    clusters = [first[id][1] for id in scored]
    columns = {label: [table[id][2] for id in scored] for label, table in tables.items()}
    estimates = {}
    for entry in entries:
        n_failed = sum(tables[entry.label][id][2].status == "error" for id in shared)
        found = statistics.estimate(metric, columns[entry.label], clusters)
        estimates[entry.label] = _signed(found, entry.run, n_failed)
    differences = {
        (a, b): statistics.difference(metric, columns[a], columns[b], clusters) for a, b in combinations(labels, 2)
    }
    ordered = best_first(estimates, metric.higher_is_better)
    return Compared(
        name=run.task.name,
        version=run.task.version,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        systems=ordered,
        estimates=tuple(estimates[label] for label in ordered),
        ranks=(),
        pairs=pair_up(differences, f"{run.task.name}@{run.task.version}", statistics.seed),
        n_shared=len(shared),
        n_unshared=len({id for table in tables.values() for id in table}) - len(shared),
    )


def _metric(info: MetricInfo, known: Metric | None, has_stats: bool) -> Metric | None:
    """The metric with its functions; a mean needs none, so its task may be unknown."""
    if known is not None and known.version == info.version:
        return known
    if has_stats:
        return None
    return Metric(name=info.name, unit=info.unit, higher_is_better=info.higher_is_better, version=info.version)


def _signed(found: Estimate, run: Run, n_failed: int) -> Estimate:
    """The estimate on the shared samples, signed like the run's own estimate."""
    own = next((e for e in run.estimates if e.metric == found.metric), None)
    parts = [
        shown(found.metric, found),
        f"{run.task.name}@{run.task.version}",
        f"n {found.n} shared",
        f"failed {n_failed}",
    ]
    # The first four parts of the run's signature are its own number; what follows is how it was made.
    parts += own.signature.split(" | ")[4:] if own else [f"{run.model.name}@{run.model.fingerprint[:7]}"]
    # Chance is an average over the scored samples, so it only carries over to the same ones.
    chance = own.chance if own and (own.n, own.n_failed) == (found.n, n_failed) else None
    return msgspec.structs.replace(found, n_failed=n_failed, chance=chance, signature=" | ".join(parts))
