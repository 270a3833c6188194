"""The difference between two models on the same samples: value, interval, p-value, what could have been detected.

    test                             p                               interval
    proportions, all 0 or 1          exact McNemar                   adjusted Wald (Bonett and Price)
    other means                      sign-flip permutation           t of the differences
    clustered                        permutation of clusters         t with the cluster-robust standard error
    corpus metrics                   approximate randomisation       paired bootstrap

Contract: a sample counts only where both models have a score. The difference is a - b whatever direction is better.
Test and interval are made by different methods, so near the border one may say what the other does not.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lydite.stats.bootstrap import resampled_rows, resampled_sums, spread, sum_clusters
from lydite.stats.estimates import (
    MAX_ROW_RESAMPLES,
    bounds,
    canonical,
    column_sums,
    is_mean,
    mean_stderr,
    rows_of,
)
from lydite.stats.intervals import FloatArray, IntArray, Interval, cluster_index, detectable, t_quantile, t_test
from lydite.stats.paired import mcnemar, paired_proportions, permutation_test, permutation_test_rows
from lydite.stats.pooling import Weighting, pool_weights, pooled_stderr, weighted_sum
from lydite.types import Metric, Record, Score

POWER = 0.8


class Difference(Record, frozen=True, kw_only=True):
    """a - b on shared samples. What cannot be known is None."""

    metric: str
    value: float | None
    stderr: float | None
    interval: Interval | None
    level: float = 0.95
    method: str = ""
    """How the interval was made."""
    p: float | None
    """Two-sided p-value of no difference."""
    test: str = ""
    """How p was made."""
    n: int
    """Samples that both models have a score for."""
    num_clusters: int | None = None
    a_only: int | None = None
    """Samples that only a got right; None where samples are not right or wrong."""
    b_only: int | None = None
    detectable: float | None = None
    """The smallest true difference that would be found with probability `power`, at one test's level."""
    power: float = POWER

    def __post_init__(self) -> None:
        numbers = (self.value, self.stderr, self.p, self.detectable, *(self.interval or ()))
        if not all(number is None or math.isfinite(number) for number in numbers):
            raise ValueError(f"Difference of {self.metric} refuses a non-finite number")


def paired_difference(
    metric: Metric,
    a: Sequence[Score],
    b: Sequence[Score],
    *,
    clusters: Sequence[str | None] = (),
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """`metric` of `a` minus that of `b`, whose scores belong to the same samples in the same order.

    Samples with an error on either side are left out. Raises ValueError where the scores cannot be paired.
    """
    if len(a) != len(b) or any(x.sample_id != y.sample_id for x, y in zip(a, b, strict=True)):
        raise ValueError("paired scores must be of the same samples in the same order")
    if clusters and len(clusters) != len(a):
        raise ValueError(f"{len(a)} scores but {len(clusters)} clusters")
    kept = [i for i in range(len(a)) if "error" not in (a[i].status, b[i].status)]
    if not kept:
        return Difference(metric=metric.name, value=None, stderr=None, interval=None, level=level, p=None, n=0)
    index = cluster_index([clusters[i] for i in kept]) if clusters else None
    rows_a, rows_b = rows_of(metric, [a[i] for i in kept]), rows_of(metric, [b[i] for i in kept])
    both, index = canonical(np.concatenate([rows_a, rows_b], axis=1), index)
    width = rows_a.shape[1]
    rows_a, rows_b = both[:, :width], both[:, width:]
    if not is_mean(metric):
        return _corpus(metric, rows_a, rows_b, index, level, resamples, seed)
    if index is None and bounds(metric) == (0.0, 1.0) and bool(np.all((both == 0) | (both == 1))):
        return _proportions(metric, rows_a[:, 0], rows_b[:, 0], level)
    return _means(metric, rows_a, rows_b, index, level, resamples, seed)


def _proportions(metric: Metric, a: FloatArray, b: FloatArray, level: float) -> Difference:
    n, a_only, b_only = len(a), int(np.sum(a > b)), int(np.sum(b > a))
    interval, adjusted = paired_proportions(a_only, b_only, n, level)
    return Difference(
        metric=metric.name,
        value=(a_only - b_only) / n,
        stderr=mean_stderr(a - b, None)[0],
        interval=interval,
        level=level,
        method="adjusted wald",
        p=mcnemar(a_only, b_only),
        test="mcnemar",
        n=n,
        a_only=a_only,
        b_only=b_only,
        detectable=detectable(adjusted, math.inf, level, POWER),
    )


def _means(
    metric: Metric, a: FloatArray, b: FloatArray, index: IntArray | None, level: float, resamples: int, seed: int
) -> Difference:
    n, deltas = len(a), (a - b)[:, 0]
    stderr, df = mean_stderr(deltas, index)
    value = math.fsum(deltas) / n
    limits = bounds(metric) or (-math.inf, math.inf)
    widest = limits[1] - limits[0]
    half = t_quantile(level, df) * stderr if stderr else None
    units_a, units_b = (a, b) if index is None else (sum_clusters(a, index), sum_clusters(b, index))
    p = None
    if len(units_a) > 1:
        p = permutation_test(units_a, units_b, lambda x, y: (x - y)[..., 0], resamples, seed)
    binary = bool(np.all((np.abs(deltas) == 1) | (deltas == 0))) and bounds(metric) == (0.0, 1.0)
    return Difference(
        metric=metric.name,
        value=value,
        stderr=stderr,
        interval=None if half is None else (max(value - half, -widest), min(value + half, widest)),
        level=level,
        method="t" if index is None else "clustered t",
        p=p,
        test="permutation" if index is None else "clustered permutation",
        n=n,
        num_clusters=None if index is None else len(units_a),
        a_only=int(np.sum(deltas > 0)) if binary else None,
        b_only=int(np.sum(deltas < 0)) if binary else None,
        detectable=detectable(stderr, df, level, POWER) if stderr else None,
    )


def _corpus(
    metric: Metric, a: FloatArray, b: FloatArray, index: IntArray | None, level: float, resamples: int, seed: int
) -> Difference:
    if metric.finish is not None:
        value, p, replicates = _of_sums(metric, a, b, index, resamples, seed)
    else:
        value, p, replicates = _of_rows(metric, a, b, index, min(resamples, MAX_ROW_RESAMPLES), seed)
    prefix = "" if index is None else "clustered "
    units = len(a) if index is None else int(index.max()) + 1
    stderr, interval = spread(replicates, units, level) if units > 1 else (None, None)
    defined = math.isfinite(value)
    return Difference(
        metric=metric.name,
        value=value if defined else None,
        stderr=stderr if defined else None,
        interval=interval if defined else None,
        level=level,
        method=prefix + "paired bootstrap",
        p=p if defined and units > 1 else None,
        test=prefix + "permutation",
        n=len(a),
        num_clusters=None if index is None else units,
        detectable=detectable(stderr, units - 1, level, POWER) if stderr and defined else None,
    )


_Parts = tuple[float, float, npt.NDArray[np.float64]]


def _of_sums(metric: Metric, a: FloatArray, b: FloatArray, index: IntArray | None, resamples: int, seed: int) -> _Parts:
    """Difference, p-value and bootstrap replicates of a metric that is a function of summed statistics."""
    finish, width = metric.finish, a.shape[1]
    assert finish is not None

    def difference(x: FloatArray, y: FloatArray) -> FloatArray:
        return np.asarray(finish(x) - finish(y), dtype=np.float64)

    value = float(difference(column_sums(a), column_sums(b)))
    if index is not None:
        a, b = sum_clusters(a, index), sum_clusters(b, index)
    p = permutation_test(a, b, difference, resamples, seed)
    sums = resampled_sums(np.concatenate([a, b], axis=1), resamples, seed)
    return value, p, difference(sums[:, :width], sums[:, width:])


def _of_rows(metric: Metric, a: FloatArray, b: FloatArray, index: IntArray | None, resamples: int, seed: int) -> _Parts:
    """The same for a metric that needs all rows."""
    finish, width = metric.finish_rows, a.shape[1]
    assert finish is not None
    ones = np.ones(len(a))
    units = np.arange(len(a), dtype=np.int64) if index is None else index
    value = finish(a, ones) - finish(b, ones)
    p = permutation_test_rows(a, b, lambda rows: finish(rows, ones), units, resamples, seed)
    both = np.concatenate([a, b], axis=1)
    replicates = resampled_rows(
        both,
        lambda rows, weights: finish(rows[:, :width], weights) - finish(rows[:, width:], weights),
        index,
        resamples,
        seed,
    )
    return float(value), p, replicates


def pool_differences(differences: Sequence[Difference], *, weighting: Weighting) -> Difference:
    """The weighted mean difference over tasks, which are fixed strata as in `pool`.

    t interval and t test; where every sample counts alike and each is right or wrong, exact McNemar of the summed counts,
    which holds whatever the tasks' difficulty.
    """
    if not differences:
        raise ValueError("nothing to pool")
    if len({(part.metric, part.level, part.power) for part in differences}) > 1:
        raise ValueError("only differences of one metric, level and power can be pooled")
    first, n = differences[0], sum(part.n for part in differences)
    if len(differences) == 1:
        return first
    weights = pool_weights([part.n for part in differences], weighting)
    parts = [(w, part) for w, part in zip(weights, differences, strict=True) if w > 0]
    value = weighted_sum([(w, part.value) for w, part in parts])
    variances = [None if part.stderr is None else (w * part.stderr) ** 2 for w, part in parts]
    stderr, df = pooled_stderr(variances, [max((part.num_clusters or part.n) - 1, 1) for _, part in parts])
    sums = [[part.a_only for part in differences], [part.b_only for part in differences]]
    a_only, b_only = (None if None in counts else sum(count or 0 for count in counts) for counts in sums)
    binary = weighting == "samples" and all(part.test == "mcnemar" for _, part in parts)
    interval, limit, p = None, None, None
    if value is not None and stderr:
        half = t_quantile(first.level, df) * stderr
        interval, limit = (value - half, value + half), detectable(stderr, df, first.level, first.power)
        p = t_test(value, stderr, df)
    elif value == 0 and stderr == 0:
        p = 1.0
    if binary and a_only is not None and b_only is not None and n:
        p = mcnemar(a_only, b_only)
        if interval is None:
            interval, adjusted = paired_proportions(a_only, b_only, n, first.level)
            limit = detectable(adjusted, math.inf, first.level, first.power)
    return Difference(
        metric=first.metric,
        value=value,
        stderr=stderr if value is not None else None,
        interval=interval,
        level=first.level,
        method="pooled t",
        p=p,
        test="mcnemar" if binary else "pooled t",
        n=n,
        a_only=a_only,
        b_only=b_only,
        detectable=limit,
        power=first.power,
    )
