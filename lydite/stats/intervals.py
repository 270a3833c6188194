"""Intervals in closed form: Wilson and Clopper-Pearson for proportions, t for means, both also for clustered samples.

Contract: functions of plain numbers and arrays; no randomness. `level` is the nominal coverage (0.95).
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

Interval = tuple[float, float]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def normal_quantile(level: float) -> float:
    """z with P(|Z| <= z) = level."""
    return float(special.ndtri(0.5 + level / 2))


def t_quantile(level: float, df: float) -> float:
    """t with P(|T| <= t) = level for `df` degrees of freedom; infinite df gives the normal quantile."""
    return float(special.stdtrit(df, 0.5 + level / 2)) if math.isfinite(df) else normal_quantile(level)


def t_test(value: float, stderr: float, df: float) -> float:
    """Two-sided p-value of value = 0."""
    t = -abs(value) / stderr
    return float(2 * (special.stdtr(df, t) if math.isfinite(df) else special.ndtr(t)))


def wilson(proportion: float, n: float, level: float = 0.95, critical: float | None = None) -> Interval:
    """Wilson's score interval for a proportion of `n` samples (Wilson 1927, JASA 22:209, there for the normal quantile).

    `n` may be an effective number of samples and `critical` a t quantile, as for clustered samples (Dean and Pagano
    2015, J. Survey Statistics and Methodology 3:484). Ends lie in [0, 1], and the interval always has a width.
    """
    z = normal_quantile(level) if critical is None else critical
    share = z * z / n
    middle = (proportion + share / 2) / (1 + share)
    half = z / (1 + share) * math.sqrt(proportion * (1 - proportion) / n + share / (4 * n))
    # At 0 and 1 one end is the proportion itself; rounding must not move it.
    low = 0.0 if proportion <= 0 else max(0.0, middle - half)
    high = 1.0 if proportion >= 1 else min(1.0, middle + half)
    return low, high


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """The exact binomial interval (Clopper and Pearson 1934, Biometrika 26:404): covers at least `level`, often more."""
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(special.betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(special.betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def cluster_index(clusters: Sequence[str | None]) -> IntArray | None:
    """Numbers of the clusters, [n]; a sample without a cluster is one of its own.

    None where no two samples share a cluster, so that they count as independent.
    """
    names: dict[object, int] = {}
    index = [names.setdefault(i if name is None else name, len(names)) for i, name in enumerate(clusters)]
    return np.asarray(index, dtype=np.int64) if len(names) < len(index) else None


def clustered_stderr(values: FloatArray, index: IntArray) -> tuple[float, float]:
    """Standard error of the mean of `values` [n] in clusters `index` [n], and its degrees of freedom.

    The cluster-robust variance CR2 with the degrees of freedom of Bell and McCaffrey (2002, Survey Methodology 28:169;
    Imbens and Kolesar 2016, REStat 98:701), which for a mean have a closed form. With clusters of size m_g, shares
    f_g = m_g / n and sums of residuals e_g:

        variance = sum_g q_g / n^2,   q_g = e_g^2 / (1 - f_g)
        df       = n^2 / (sum_g m_g^2 + sum_{g != h} a_g a_h / n^2),   a_g = m_g^2 / (1 - f_g)

    Clusters of equal size give the usual factor G / (G - 1) and G - 1 degrees of freedom; unequal ones fewer. Where the
    q_g themselves vary more than those of normal data, the variance is known less well, and the degrees of freedom are
    2 (sum q_g)^2 / sum (q_g - mean q)^2 if that is smaller (Pan and Wall 2002, Statistics in Medicine 21:1429): this is
    what holds the coverage of accuracies near 1 whose few errors sit in few clusters. At least two clusters are needed.
    """
    n = len(values)
    sizes = np.bincount(index).astype(np.float64)
    assert len(sizes) > 1, "one cluster says nothing of the spread between clusters"
    shares = sizes / n
    parts = np.bincount(index, weights=values - values.mean()) ** 2 / (1 - shares)
    total = float(np.sum(parts))
    weights = sizes**2 / (1 - shares)
    between = float(np.sum(weights)) ** 2 - float(np.sum(weights**2))
    by_design = n**2 / (float(np.sum(sizes**2)) + between / n**2)
    spread = float(np.sum((parts - parts.mean()) ** 2))
    as_seen = 2 * total**2 / spread if spread > 0 else math.inf
    return math.sqrt(total) / n, max(1.0, min(by_design, as_seen))


def satterthwaite(variances: Sequence[float], dfs: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent variance estimates (Satterthwaite 1946, Biometrics Bulletin 2:110)."""
    total = math.fsum(variances)
    spread = math.fsum(v * v / df for v, df in zip(variances, dfs, strict=True) if v > 0)
    return total * total / spread if spread > 0 else math.inf


def detectable(stderr: float, df: float, level: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided test at 1 - level finds with probability `power`.

    (t_{1 - alpha/2} + t_power) standard errors (Bloom 1995, Evaluation Review 19:547; Miller 2024, arXiv:2411.00640).
    """
    return (t_quantile(level, df) + t_quantile(2 * power - 1, df)) * stderr
