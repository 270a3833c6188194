"""Tests of two models on the same samples: exact McNemar and sign-flip permutation.

Contract: under the null hypothesis that the two models' answers to each sample could be exchanged, a p-value is at most
p with probability at most p. Whole clusters are exchanged where samples share one.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy import special

from lydite.stats.bootstrap import CELLS
from lydite.stats.intervals import FloatArray, IntArray, Interval, normal_quantile

TOLERANCE = 1e-9
"""Statistics that differ by less, relative to the largest possible one, are ties: rounding must not decide a test."""


def mcnemar(a_only: int, b_only: int) -> float:
    """Exact two-sided p-value that, of the samples that one model alone gets right, each is as likely as the other.

    Twice the smaller binomial tail (McNemar 1947, Psychometrika 12:153, in its exact form), 1 without such samples.
    """
    n = a_only + b_only
    return min(1.0, 2 * float(special.bdtr(min(a_only, b_only), n, 0.5))) if n else 1.0


def paired_proportions(a_only: int, b_only: int, n: int, level: float) -> tuple[Interval, float]:
    """Interval of the difference of paired proportions, and the standard error that it rests on, never 0.

    Adjusted Wald: one sample is added to each discordant count (Bonett and Price 2012, J. Educational and Behavioral
    Statistics 37:479; recommended by Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850).
    """
    a, b = (a_only + 1) / (n + 2), (b_only + 1) / (n + 2)
    stderr = float(np.sqrt((a + b - (a - b) ** 2) / (n + 2)))
    half = normal_quantile(level) * stderr
    return (max(-1.0, a - b - half), min(1.0, a - b + half)), stderr


def permutation_test(
    a: FloatArray,
    b: FloatArray,
    difference: Callable[[FloatArray, FloatArray], FloatArray],
    resamples: int,
    seed: int,
) -> float:
    """Two-sided p-value of `difference(sum of a, sum of b)` when the rows of a and b [n, k] are exchanged at random.

    All 2^n exchanges are tried where they are no more than `resamples`; else that many random ones, and the observed one
    counts as one of them: p = (c + 1) / (resamples + 1) (Phipson and Smyth 2010, SAGMB 9:39). For corpus metrics this
    is approximate randomisation (Noreen 1989; Riezler and Maxwell 2005).
    """
    moving = np.any(a != b, axis=1)
    deltas = (a - b)[moving]
    total_a, total_b = a.sum(axis=0), b.sum(axis=0)
    if not len(deltas):
        return 1.0
    exact = len(deltas) < 63 and 2 ** len(deltas) <= resamples
    swaps = _all_swaps(len(deltas)) if exact else _random_swaps(len(deltas), resamples, seed)
    observed = abs(float(difference(total_a, total_b)))
    found = [np.abs(difference(total_a - swap @ deltas, total_b + swap @ deltas)) for swap in swaps]
    return tail_share(np.concatenate(found), observed, exact)


def permutation_test_rows(
    a: FloatArray, b: FloatArray, finish: Callable[[FloatArray], float], groups: IntArray, resamples: int, seed: int
) -> float:
    """The same for metrics that are no function of a sum: `finish` takes rows [n, k]; `groups` [n] numbers the units."""
    units = int(groups.max()) + 1
    exact = units < 63 and 2**units <= resamples
    swaps = _all_swaps(units) if exact else _random_swaps(units, resamples, seed)
    observed = abs(finish(a) - finish(b))
    found = []
    for block in swaps:
        for swap in block:
            exchanged = (swap[groups] > 0)[:, None]
            found.append(abs(finish(np.where(exchanged, b, a)) - finish(np.where(exchanged, a, b))))
    return tail_share(np.asarray(found), observed, exact)


def tail_share(found: FloatArray, observed: float, exact: bool) -> float:
    """Share of the exchanged differences that are as large as the observed one; undefined ones count as large."""
    finite = found[np.isfinite(found)]
    slack = TOLERANCE * max(observed, float(finite.max(initial=0.0)))
    large = int(np.sum(finite >= observed - slack)) + len(found) - len(finite)
    return large / len(found) if exact else (large + 1) / (len(found) + 1)


def _all_swaps(n: int) -> Iterator[FloatArray]:
    numbers = np.arange(2**n, dtype=np.int64)
    block = max(1, CELLS // n)
    for start in range(0, len(numbers), block):
        yield (numbers[start : start + block, None] >> np.arange(n) & 1).astype(np.float64)


def _random_swaps(n: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    rng = np.random.default_rng(seed)
    block = max(1, CELLS // n)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        bits = np.frombuffer(rng.bytes((rows * n + 7) // 8), dtype=np.uint8)
        yield np.unpackbits(bits)[: rows * n].reshape(rows, n).astype(np.float64)
