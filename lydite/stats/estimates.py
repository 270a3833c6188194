"""From the Scores of one metric to one Estimate.

    proportions, all 0 or 1          wilson
    values in [0, 1] otherwise       wilson effective: Wilson at the number of samples value (1 - value) / stderr^2
    other means                      t
    samples that share a cluster     clustered wilson, clustered t: the same with a cluster-robust standard error
    corpus metrics                   bootstrap, clustered bootstrap

Contract: scores with status "error" are in `n_failed` and nowhere else; "no_answer" counts with its value. A number
that the data cannot give is None. The standard error of values that are all equal is 0, but no interval is made of it,
except for proportions, where Wilson's still has a width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lydite.stats.bootstrap import resampled_rows, resampled_sums, spread, sum_clusters
from lydite.stats.intervals import FloatArray, IntArray, Interval, cluster_index, clustered_stderr, t_quantile, wilson
from lydite.types import Estimate, Metric, Score

MAX_ROW_RESAMPLES = 2_000
"""Metrics with `finish_rows` cost a call a resample, so they get at most this many."""


def estimate(
    metric: Metric,
    scores: Sequence[Score],
    *,
    clusters: Sequence[str | None] = (),
    chance: float | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """The value of `metric` over `scores`, with its uncertainty.

    `clusters`: one for each score, or none at all. `chance` is passed on. Raises ValueError where scores are of another
    metric, lack the statistics that the metric needs, or the clusters do not fit.
    """
    if clusters and len(clusters) != len(scores):
        raise ValueError(f"{len(scores)} scores but {len(clusters)} clusters")
    if strange := {score.metric for score in scores} - {metric.name}:
        raise ValueError(f"scores of {', '.join(sorted(strange))} given to {metric.name}")
    kept = [i for i, score in enumerate(scores) if score.status != "error"]
    n_failed = len(scores) - len(kept)
    if not kept:
        return Estimate(
            metric=metric.name,
            value=None,
            stderr=None,
            interval=None,
            level=level,
            n=0,
            n_failed=n_failed,
            chance=chance,
        )
    index = cluster_index([clusters[i] for i in kept]) if clusters else None
    rows, index = canonical(rows_of(metric, [scores[i] for i in kept]), index)
    part = summary(metric, rows, index, level, resamples, seed)
    return Estimate(
        metric=metric.name,
        value=part.value,
        stderr=part.stderr,
        interval=part.interval,
        level=level,
        method=part.method,
        n=len(kept),
        n_failed=n_failed,
        num_clusters=None if index is None else int(index.max()) + 1,
        chance=chance,
    )


ROUNDING = 1e-14
"""A standard error below this share of the largest value is rounding, and counts as 0."""


@dataclass(frozen=True)
class Summary:
    """The numbers of an Estimate that need statistics."""

    value: float | None
    stderr: float | None
    interval: Interval | None
    method: str


def is_mean(metric: Metric) -> bool:
    """Whether the metric is the mean of the samples' values."""
    return metric.finish is None and metric.finish_rows is None


def rows_of(metric: Metric, scores: Sequence[Score]) -> FloatArray:
    """Values [n, 1] or statistics [n, k] of scores without errors."""
    if is_mean(metric):
        return np.asarray([[score.value] for score in scores], dtype=np.float64)
    widths = {len(score.stats) for score in scores}
    if len(widths) != 1 or 0 in widths:
        raise ValueError(f"{metric.name} needs the same number of statistics in each score, found {sorted(widths)}")
    return np.asarray([score.stats for score in scores], dtype=np.float64)


def canonical(rows: FloatArray, index: IntArray | None) -> tuple[FloatArray, IntArray | None]:
    """The same samples and clusters in an order that depends on their contents alone, so that sums round alike."""
    if index is None:
        return rows[np.lexsort(rows.T)], None
    rank = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
    contents: dict[int, list[int]] = {}
    for place in np.argsort(rank, kind="stable"):
        contents.setdefault(int(index[place]), []).append(int(rank[place]))
    numbers = np.empty(len(contents), dtype=np.int64)
    numbers[sorted(contents, key=contents.__getitem__)] = np.arange(len(contents))
    index = numbers[index]
    order = np.lexsort([index, rank])
    return rows[order], index[order]


def summary(
    metric: Metric, rows: FloatArray, index: IntArray | None, level: float, resamples: int, seed: int
) -> Summary:
    """Value, standard error and interval of rows in canonical order."""
    if is_mean(metric):
        return _mean(metric, rows[:, 0], index, level)
    replicates = None
    if metric.finish is not None:
        value = float(metric.finish(column_sums(rows)))
        units = rows if index is None else sum_clusters(rows, index)
        if len(units) > 1:
            replicates = np.asarray(metric.finish(resampled_sums(units, resamples, seed)), dtype=np.float64)
    else:
        assert metric.finish_rows is not None
        value = float(metric.finish_rows(rows, np.ones(len(rows))))
        units = rows if index is None else sum_clusters(rows, index)
        if len(units) > 1:
            replicates = resampled_rows(rows, metric.finish_rows, index, min(resamples, MAX_ROW_RESAMPLES), seed)
    method = "bootstrap" if index is None else "clustered bootstrap"
    if not math.isfinite(value):
        return Summary(None, None, None, method)
    stderr, interval = (None, None) if replicates is None else spread(replicates, len(units), level)
    return Summary(value, stderr, interval, method)


def column_sums(rows: FloatArray) -> FloatArray:
    """Sums of the columns, correctly rounded."""
    return np.asarray([math.fsum(column) for column in rows.T], dtype=np.float64)


def bounds(metric: Metric) -> tuple[float, float] | None:
    """The least and the largest value that a sample may have."""
    return (0.0, 1.0) if metric.bounds is None and metric.unit == "proportion" else metric.bounds


def mean_stderr(values: FloatArray, index: IntArray | None) -> tuple[float | None, float]:
    """Standard error of the mean and its degrees of freedom; None where one sample or one cluster is all there is."""
    n = len(values) if index is None else int(index.max()) + 1
    if n < 2:
        return None, 0.0
    if index is None:
        stderr, df = float(np.std(values, ddof=1)) / math.sqrt(n), n - 1.0
    else:
        stderr, df = clustered_stderr(values, index)
    # Equal values like a third leave a rest of rounding, which would pass for near certainty.
    return (stderr if stderr > ROUNDING * float(np.abs(values).max()) else 0.0), df


def _mean(metric: Metric, values: FloatArray, index: IntArray | None, level: float) -> Summary:
    n, value = len(values), math.fsum(values) / len(values)
    stderr, df = mean_stderr(values, index)
    limits = bounds(metric)
    within = limits is not None and limits[0] <= values.min() and values.max() <= limits[1]
    if limits == (0.0, 1.0) and within:
        binary = bool(np.all((values == 0) | (values == 1)))
        return _proportion(value, stderr, df, index, level, n, binary)
    method = "t" if index is None else "clustered t"
    if not stderr:
        return Summary(value, stderr, None, method)
    half = t_quantile(level, df) * stderr
    low, high = value - half, value + half
    if limits is not None and within:
        low, high = max(low, limits[0]), min(high, limits[1])
    return Summary(value, stderr, (low, high), method)


def _proportion(
    value: float, stderr: float | None, df: float, index: IntArray | None, level: float, n: int, binary: bool
) -> Summary:
    """Wilson's interval, at an effective number of samples where they are clustered or not all 0 or 1.

    Measured against the t interval in simulations (20 to 200 samples or 10 to 100 clusters, values up to 0.97): 94 to
    97% where t falls to 60 to 90% near the bounds. A sample counts for no more than one of an independent proportion,
    and where every cluster is all right or all wrong, a cluster counts as one sample.
    """
    if index is None and binary:
        return Summary(value, stderr, wilson(value, n, level), "wilson")
    method = "wilson effective" if index is None else "clustered wilson"
    if stderr is None:
        return Summary(value, None, None, method)
    units = n if index is None else int(index.max()) + 1
    if stderr > 0:
        effective = value * (1 - value) / stderr**2
        effective = min(effective, n) if binary else effective
    else:
        effective = n if 0 < value < 1 else units
    critical = t_quantile(level, df)
    return Summary(value, stderr, wilson(value, effective, level, critical), method)
