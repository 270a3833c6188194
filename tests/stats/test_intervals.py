"""Closed-form intervals against published tables, scipy and the general matrix formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, stats

from lydite.stats.intervals import (
    clopper_pearson,
    cluster_index,
    clustered_stderr,
    detectable,
    satterthwaite,
    t_quantile,
    wilson,
)

# Newcombe 1998, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17:857, table I:
# (successes, n), score interval without continuity correction, Clopper-Pearson.
NEWCOMBE = [
    (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
    (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
    (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
    (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
]


@pytest.mark.parametrize(("successes", "n", "score", "exact"), NEWCOMBE)
def test_published_proportions(successes, n, score, exact):
    assert wilson(successes / n, n) == pytest.approx(score, abs=5e-5)
    assert clopper_pearson(successes, n) == pytest.approx(exact, abs=5e-5)


@given(
    st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99])
)
def test_proportions_equal_scipy(pair, level):
    successes, n = pair
    test = stats.binomtest(successes, n)
    for ours, method in ((wilson(successes / n, n, level), "wilson"), (clopper_pearson(successes, n, level), "exact")):
        theirs = test.proportion_ci(level, method=method)
        assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        assert 0 <= ours[0] <= successes / n <= ours[1] <= 1
        assert ours[0] < ours[1]


def naive_cr2(values, index):
    """CR2 of an intercept from its definition with n x n matrices; degrees of freedom of Bell and McCaffrey and of Pan
    and Wall, whichever are fewer."""
    n = len(values)
    x = np.ones((n, 1))
    hat = x @ x.T / n
    residual_maker = np.eye(n) - hat
    residuals = residual_maker @ values
    parts, columns = [], []
    for cluster in np.unique(index):
        rows = np.flatnonzero(index == cluster)
        adjust = linalg.fractional_matrix_power(np.eye(len(rows)) - hat[np.ix_(rows, rows)], -0.5).real
        parts.append(float(np.sum(adjust @ residuals[rows])) ** 2 / n**2)
        columns.append(residual_maker[rows].T @ adjust @ x[rows] / n)
    matrix = np.hstack(columns)
    eigenvalues = np.linalg.eigvalsh(matrix.T @ matrix)
    by_design = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    as_seen = 2 * sum(parts) ** 2 / (np.var(parts) * len(parts))
    return math.sqrt(sum(parts)), max(1.0, min(by_design, as_seen))


@pytest.mark.parametrize("sizes", [[5] * 6, [1, 2, 3, 10, 4], [1, 1, 1, 7], [20, 1], [1] * 9 + [2]])
def test_clustered_stderr_is_cr2_with_bell_mccaffrey_degrees(sizes):
    rng = np.random.default_rng(3)
    index = np.repeat(np.arange(len(sizes)), sizes)
    values = rng.normal(size=len(index)) + rng.normal(size=len(sizes))[index]
    assert clustered_stderr(values, index) == pytest.approx(naive_cr2(values, index), rel=1e-9)


def test_errors_in_few_clusters_leave_few_degrees_of_freedom():
    values = np.ones((50, 4))
    values[0] = 0
    values[1, 0] = 0
    assert clustered_stderr(values.ravel(), np.repeat(np.arange(50), 4))[1] < 3


def test_clusters_of_one_give_the_usual_stderr():
    values = np.array([1.0, -1.0] * 15)
    stderr, df = clustered_stderr(values, np.arange(30))
    assert stderr == pytest.approx(stats.sem(values))
    assert df == pytest.approx(29)


def test_equal_clusters_give_the_stderr_of_cluster_means():
    values = np.random.default_rng(0).normal(size=(8, 5))
    stderr, df = clustered_stderr(values.ravel(), np.repeat(np.arange(8), 5))
    assert stderr == pytest.approx(stats.sem(values.mean(axis=1)))
    assert 5 < df <= 7 + 1e-9


def test_cluster_index():
    assert cluster_index(["a", "b", None, None]) is None
    assert cluster_index([]) is None
    index = cluster_index(["a", None, "a", None, "b"])
    assert index is not None
    assert index.tolist() == [0, 1, 0, 2, 3]


def test_satterthwaite_is_welchs_for_two_samples():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 12), rng.normal(0, 4, 30)
    theirs = stats.ttest_ind(a, b, equal_var=False).df
    variances = [a.var(ddof=1) / 12, b.var(ddof=1) / 30]
    assert satterthwaite(variances, [11, 29]) == pytest.approx(theirs)
    assert satterthwaite([0.0, 0.0], [1, 1]) == math.inf


def test_detectable_difference_has_its_power():
    """Cohen 1988 / G*Power: a paired t test of effect size 0.5 reaches power 0.8 at n = 34."""
    assert detectable(1 / math.sqrt(34), 33) == pytest.approx(0.5, abs=0.005)
    # The multiplier 2.8 of Bloom 1995 for large samples.
    assert detectable(1.0, math.inf) == pytest.approx(2.80, abs=0.005)


def test_t_quantile_equals_scipy():
    assert t_quantile(0.95, 7.3) == pytest.approx(stats.t.ppf(0.975, 7.3))
    assert t_quantile(0.95, math.inf) == pytest.approx(stats.norm.ppf(0.975))
