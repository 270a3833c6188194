"""From the Estimates of several tasks to one Estimate of their group.

The tasks are fixed strata: the group's number speaks of these tasks, not of tasks like them, so only the samples within
each task are random and the variance is sum w_i^2 se_i^2 (Cochran 1977, Sampling Techniques, section 5.4). Estimates of
different tasks are taken as independent.
"""

import math
from collections.abc import Sequence
from typing import Literal

from lydite.stats.intervals import Interval, satterthwaite, t_quantile, wilson
from lydite.types import Estimate

Weighting = Literal["samples", "tasks"]


def pool(estimates: Sequence[Estimate], *, weighting: Weighting) -> Estimate:
    """The weighted mean of `estimates` of one metric.

    weighting: "samples" weighs each by its scored samples, "tasks" weighs all alike. With "tasks" a member without a
    value leaves the group without one; with "samples" it only adds to n_failed. Chance is pooled by the same weights.
    Raises ValueError where metrics or levels differ, or there is nothing to pool.
    """
    if not estimates:
        raise ValueError("nothing to pool")
    if len({(part.metric, part.level) for part in estimates}) > 1:
        raise ValueError("only estimates of one metric and one level can be pooled")
    first, n_failed = estimates[0], sum(part.n_failed for part in estimates)
    if len(estimates) == 1:
        return first
    weights = pool_weights([part.n for part in estimates], weighting)
    parts = [(w, part) for w, part in zip(weights, estimates, strict=True) if w > 0]
    value = weighted_sum([(w, part.value) for w, part in parts])
    variances = [None if part.stderr is None else (w * part.stderr) ** 2 for w, part in parts]
    stderr, df = pooled_stderr(variances, [degrees(part) for _, part in parts])
    interval, method = None, "pooled"
    if value is not None and stderr is not None:
        interval, method = _interval(value, stderr, df, [part for _, part in parts])
    clusters = [part.num_clusters for part in estimates]
    return Estimate(
        metric=first.metric,
        value=value,
        stderr=stderr if value is not None else None,
        interval=interval,
        level=first.level,
        method=method,
        n=sum(part.n for part in estimates),
        n_failed=n_failed,
        num_clusters=None if not any(clusters) else sum(part.num_clusters or part.n for part in estimates),
        chance=weighted_sum([(w, part.chance) for w, part in parts]),
    )


def pool_weights(sizes: Sequence[int], weighting: Weighting) -> list[float]:
    """Weights that sum to one, or to zero where nothing was scored."""
    if weighting == "tasks":
        return [1 / len(sizes)] * len(sizes)
    return [size / max(sum(sizes), 1) for size in sizes]


def weighted_sum(parts: Sequence[tuple[float, float | None]]) -> float | None:
    """sum w x, or None where an x is missing or there is none."""
    values = [weight * value for weight, value in parts if value is not None]
    return math.fsum(values) if values and len(values) == len(parts) else None


def pooled_stderr(variances: Sequence[float | None], dfs: Sequence[float]) -> tuple[float | None, float]:
    """Root of the sum of variances, and Satterthwaite's degrees of freedom; None where a part has no variance."""
    known = [variance for variance in variances if variance is not None]
    if not known or len(known) < len(variances):
        return None, 0.0
    return math.sqrt(math.fsum(known)), satterthwaite(known, dfs)


def degrees(part: Estimate) -> float:
    """Degrees of freedom of an estimate's standard error."""
    return max((part.num_clusters or part.n) - 1, 1)


def _interval(value: float, stderr: float, df: float, parts: Sequence[Estimate]) -> tuple[Interval | None, str]:
    if all("wilson" in part.method for part in parts):
        units = sum(part.num_clusters or part.n for part in parts)
        effective = value * (1 - value) / stderr**2 if stderr > 0 else units
        return wilson(value, effective, parts[0].level, t_quantile(parts[0].level, df)), "pooled wilson"
    half = t_quantile(parts[0].level, df) * stderr
    return ((value - half, value + half) if stderr > 0 else None), "pooled t"
