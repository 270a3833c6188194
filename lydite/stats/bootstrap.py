"""The bootstrap, from summed statistics: resamples of samples (or whole clusters) without scoring anything again.

A corpus metric is a function of the sum of per-sample statistics. A resample draws samples with replacement, so its
sum is `counts @ rows`; counts are drawn in blocks that fit a fixed memory, and equal rows are drawn together. For the
few metrics that are no function of a sum, the counts are weights.

The interval is the percentile interval, widened for small samples (Hesterberg 2015, The American Statistician 69:371):
its tails are taken at the t quantile times sqrt(n / (n - 1)) instead of the normal quantile. Simulated at 60 and 200
samples, it covered 93 to 96% for perplexities over documents of very unequal length, F1 and Matthews correlation alike
(at 20 perplexities 94%); BCa (Efron 1987, JASA 82:171) covered 94 to 97% of the latter two but only 87 to 92% of the
perplexities, because it trusts a skewness estimated from the few long documents.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy import special

from lydite.stats.intervals import FloatArray, IntArray, Interval, t_quantile

Finish = Callable[[FloatArray], FloatArray]

CELLS = 1 << 21
"""Numbers in one block of counts: 16 MiB."""
MAX_UNDEFINED = 0.05
"""A larger share of resamples on which the metric is undefined leaves no interval."""


def sum_clusters(rows: FloatArray, index: IntArray) -> FloatArray:
    """Sums of `rows` [n, k] within clusters `index` [n]: [G, k]."""
    return np.stack([np.bincount(index, weights=column) for column in rows.T], axis=1)


def counts(size: int, resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """How often each of `size` units is drawn, [block, size] until `resamples` rows have been given."""
    block = max(1, CELLS // size)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, size, size=(rows, size), dtype=np.int64)
        drawn += (np.arange(rows) * size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)


def resampled_sums(rows: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Sums [resamples, k] of `rows` [n, k] drawn with replacement; the order of the rows does not matter."""
    rng = np.random.default_rng(seed)
    n = len(rows)
    distinct, times = np.unique(rows, axis=0, return_counts=True)
    if len(distinct) <= n // 8:
        block = max(1, CELLS // len(distinct))
        sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
        parts = [rng.multinomial(n, times / n, size=size).astype(np.float64) @ distinct for size in sizes]
    else:
        ordered = np.repeat(distinct, times, axis=0)
        parts = [block @ ordered for block in counts(n, resamples, rng)]
    return np.concatenate(parts)


def spread(replicates: FloatArray, n: int, level: float) -> tuple[float | None, Interval | None]:
    """Standard error and interval from the metric's values on resamples of `n` units.

    Neither where the metric is undefined on too many resamples; no interval where all resamples agree.
    """
    assert n > 1, "one unit resampled is itself"
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < (1 - MAX_UNDEFINED) * len(replicates):
        return None, None
    stderr = float(np.std(defined, ddof=1))
    tail = float(special.ndtr(-t_quantile(level, n - 1) * np.sqrt(n / (n - 1))))
    low, high = (float(end) for end in np.quantile(defined, [tail, 1 - tail]))
    return stderr, ((low, high) if low < high else None)


def resampled_rows(
    rows: FloatArray,
    finish: Callable[[FloatArray, FloatArray], float],
    index: IntArray | None,
    resamples: int,
    seed: int,
) -> FloatArray:
    """Values [resamples] of `finish(rows, weights)`; samples of a cluster share their weight. One call a resample."""
    rng = np.random.default_rng(seed)
    size = len(rows) if index is None else int(index.max()) + 1
    values = []
    for block in counts(size, resamples, rng):
        for weights in block if index is None else block[:, index]:
            values.append(finish(rows, weights))
    return np.asarray(values, dtype=np.float64)
