"""One Estimate from Scores: values against scipy, and what is said where there is little to say."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lydite.stats import estimate, wilson
from lydite.stats.bootstrap import spread
from lydite.types import Metric, Score
from tests.stats.helpers import ACC, F1, MEAN, PERPLEXITY, scores, stat_scores


def test_proportion():
    found = estimate(ACC, scores(ACC, [1] * 81 + [0] * 182), chance=0.25)
    assert found.value == pytest.approx(81 / 263)
    assert found.interval == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert found.stderr == pytest.approx(stats.sem([1] * 81 + [0] * 182))
    assert (found.method, found.n, found.n_failed, found.chance, found.num_clusters) == ("wilson", 263, 0, 0.25, None)


def test_failed_scores_are_counted_and_nothing_else():
    found = estimate(ACC, scores(ACC, [1, None, 0, None, None]))
    assert (found.n, found.n_failed, found.value) == (2, 3, 0.5)
    assert found.interval == wilson(0.5, 2)


def test_no_answer_counts_with_its_value():
    some = [*scores(ACC, [1, 1, 1]), Score(sample_id="9", metric="acc", value=0.0, status="no_answer")]
    assert (estimate(ACC, some).value, estimate(ACC, some).n) == (0.75, 4)


@pytest.mark.parametrize("metric", [ACC, MEAN, PERPLEXITY])
@pytest.mark.parametrize("given_scores", [[], [None, None]])
def test_nothing_scored(metric, given_scores):
    found = estimate(metric, scores(metric, given_scores), clusters=["a"] * len(given_scores))
    assert (found.value, found.stderr, found.interval) == (None, None, None)
    assert (found.n, found.n_failed) == (0, len(given_scores))


def test_one_sample():
    assert estimate(ACC, scores(ACC, [1])).interval == wilson(1.0, 1)
    for found in (
        estimate(ACC, scores(ACC, [0.5])),
        estimate(MEAN, scores(MEAN, [3])),
        estimate(PERPLEXITY, stat_scores(PERPLEXITY, [(3, 1)])),
    ):
        assert found.value is not None
        assert (found.stderr, found.interval) == (None, None)


def test_one_cluster_has_no_interval():
    found = estimate(ACC, scores(ACC, [1, 0, 1]), clusters=["p"] * 3)
    assert (found.num_clusters, found.stderr, found.interval) == (1, None, None)
    found = estimate(PERPLEXITY, stat_scores(PERPLEXITY, [(3, 1), (4, 1)]), clusters=["p"] * 2)
    assert (found.stderr, found.interval) == (None, None)


def test_equal_values_have_no_interval_of_no_width():
    assert estimate(MEAN, scores(MEAN, [2.0] * 9)).interval is None
    assert estimate(PERPLEXITY, stat_scores(PERPLEXITY, [(3, 1)] * 9)).interval is None
    for values in ([1] * 9, [0] * 9, [0.5] * 9):
        low, high = estimate(ACC, scores(ACC, values)).interval
        assert 0 <= low <= values[0] <= high <= 1
        assert high - low > 0.2
    # With clusters that are all right, a cluster counts as one sample.
    found = estimate(ACC, scores(ACC, [1] * 30), clusters=[str(i // 10) for i in range(30)])
    assert found.interval == (pytest.approx(wilson(1.0, 3, critical=stats.t.ppf(0.975, 2))[0]), 1.0)


@pytest.mark.parametrize("clusters", [None, [str(i % 10) for i in range(30)]])
@pytest.mark.parametrize("metric", [ACC, MEAN])
def test_rounding_is_no_certainty(metric, clusters):
    thirds = [1 / 3, 1 - 2 / 3, 0.1 + 0.7 / 3] * 10  # three ways to write one number
    assert len(set(thirds)) > 1
    found = estimate(metric, scores(metric, thirds), clusters=clusters)
    assert found.stderr == 0
    assert found.interval is None or found.interval[1] - found.interval[0] > 0.1
    assert (found.interval is None) == (metric is MEAN)


def test_mean_equals_scipy():
    values = np.random.default_rng(0).normal(3, 2, 40)
    found = estimate(MEAN, scores(MEAN, values), level=0.9)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert found.interval == pytest.approx((theirs.low, theirs.high))
    assert (found.stderr, found.method, found.level) == (pytest.approx(stats.sem(values)), "t", 0.9)


def test_bounds_clip_the_t_interval():
    brier = Metric(name="brier", bounds=(0.0, 2.0), higher_is_better=False)
    values = [0.0] * 19 + [0.1]
    assert estimate(brier, scores(brier, values)).interval[0] == 0.0
    free = Metric(name="brier")
    assert estimate(free, scores(free, values)).interval[0] < 0


def test_fractional_proportions_stay_in_bounds():
    found = estimate(ACC, scores(ACC, [1] * 30 + [0.5]))
    assert found.method == "wilson effective"
    assert found.value < found.interval[1] <= 1


def test_clusters_that_agree_by_luck_promise_no_more_than_independent_samples():
    """Pairs with one right and one wrong answer have almost no spread between clusters."""
    values, names = [1, 0] * 20 + [1, 1], [str(i // 2) for i in range(42)]
    found = estimate(ACC, scores(ACC, values), clusters=names)
    assert found.stderr < 0.03
    low, high = wilson(22 / 42, 42)
    assert found.interval[0] <= low < high <= found.interval[1]


def test_clusters_of_one_change_nothing():
    values = scores(ACC, [1, 0, 1, 1])
    assert estimate(ACC, values, clusters=["a", "b", None, None]) == estimate(ACC, values)


def test_bootstrap_of_a_ratio_equals_the_delta_method():
    """se(exp(R)) = exp(R) se(R), R = sum a / sum b, se(R) = sd(a - R b) / (sqrt(n) mean(b)): Cochran 1977, section 6.3."""
    rng = np.random.default_rng(2)
    units = rng.integers(50, 150, 400).astype(float)
    nats = units * 3 + rng.normal(0, 30, 400)
    found = estimate(PERPLEXITY, stat_scores(PERPLEXITY, np.stack([nats, units], axis=1)))
    ratio = nats.sum() / units.sum()
    stderr = np.exp(ratio) * np.std(nats - ratio * units, ddof=1) / np.sqrt(400) / units.mean()
    assert found.value == pytest.approx(np.exp(ratio))
    assert found.stderr == pytest.approx(stderr, rel=0.03)
    assert found.interval == pytest.approx((np.exp(ratio) - 1.96 * stderr, np.exp(ratio) + 1.96 * stderr), rel=0.01)
    assert found.method == "bootstrap"


def test_bootstrap_of_counts_equals_scipys():
    cells = np.repeat(np.eye(4), [60, 20, 30, 90], axis=0)

    def f1(*columns, axis=-1):
        hits, false, missed, _ = (np.sum(column, axis=axis) for column in columns)
        return 2 * hits / (2 * hits + false + missed)

    theirs = stats.bootstrap(
        tuple(cells.T),
        f1,
        paired=True,
        vectorized=True,
        n_resamples=9999,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    found = estimate(F1, stat_scores(F1, cells))
    assert found.stderr == pytest.approx(theirs.standard_error, rel=0.03)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval), abs=0.006)


def test_clustered_bootstrap_equals_the_clustered_stderr():
    """A mean written as a corpus metric: the bootstrap of clusters must find the same error as the formula."""
    mean = Metric(name="m", finish=lambda sums: sums[..., 0] / sums[..., 1])
    rng = np.random.default_rng(4)
    clusters = np.repeat(np.arange(80), 5)
    values = rng.normal(size=400) + rng.normal(size=80)[clusters]
    names = [f"c{c}" for c in clusters]
    boot = estimate(mean, stat_scores(mean, [(v, 1) for v in values]), clusters=names)
    plain = estimate(MEAN, scores(MEAN, values), clusters=names)
    assert boot.num_clusters == plain.num_clusters == 80
    assert (boot.method, plain.method) == ("clustered bootstrap", "clustered t")
    assert boot.stderr == pytest.approx(plain.stderr, rel=0.04)
    assert boot.interval == pytest.approx(plain.interval, abs=0.03)
    assert boot.stderr > 1.5 * estimate(mean, stat_scores(mean, [(v, 1) for v in values])).stderr


def test_percentiles_are_widened_for_small_samples():
    """Replicates that are exactly normal give Hesterberg's t quantile times sqrt(n / (n - 1))."""
    replicates = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    stderr, (low, high) = spread(replicates, 6, 0.95)
    assert stderr == pytest.approx(1, abs=1e-3)
    assert -low == pytest.approx(high)
    assert high == pytest.approx(stats.t.ppf(0.975, 5) * np.sqrt(6 / 5), rel=0.01)


def test_rows_metric_equals_its_twin_of_sums():
    twin = Metric(name="perplexity", finish_rows=lambda rows, weights: float(PERPLEXITY.finish(weights @ rows)))
    rng = np.random.default_rng(5)
    rows = stat_scores(PERPLEXITY, np.stack([rng.normal(300, 20, 100), np.full(100, 100.0)], axis=1))
    clusters = [str(i // 4) for i in range(100)]
    for names in ((), clusters):
        a, b = estimate(twin, rows, clusters=names), estimate(PERPLEXITY, rows, clusters=names)
        assert a.value == pytest.approx(b.value)
        assert a.stderr == pytest.approx(b.stderr, rel=0.08)
        assert a.interval == pytest.approx(b.interval, rel=0.02)


def test_metric_that_is_undefined_on_many_resamples_has_no_interval():
    ratio = Metric(
        name="r",
        finish=lambda sums: np.divide(
            sums[..., 0], sums[..., 1], where=sums[..., 1] > 0, out=np.full(np.shape(sums[..., 1]), np.nan)
        ),
    )
    rows = stat_scores(ratio, [(1, 1)] + [(0, 0)] * 20)
    found = estimate(ratio, rows)
    assert (found.value, found.stderr, found.interval) == (1.0, None, None)
    assert estimate(ratio, rows[1:]).value is None


ROWS = st.lists(
    st.tuples(st.floats(0, 50), st.integers(1, 40), st.sampled_from(["a", "b", "c", "d", None])),
    min_size=2,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_order_of_the_samples_does_not_matter(rows, random):
    """To the last bit: sums are correctly rounded or taken in an order that depends on the values alone."""
    shuffled = list(rows)
    random.shuffle(shuffled)
    for metric in (MEAN, PERPLEXITY):
        results = []
        for table in (rows, shuffled):
            given_scores = stat_scores(metric, [row[:2] for row in table])
            given_scores = [
                msgspec.structs.replace(score, value=row[0]) for score, row in zip(given_scores, table, strict=True)
            ]
            results.append(estimate(metric, given_scores, clusters=[row[2] for row in table], resamples=50))
        assert results[0] == results[1]


def test_seed_decides_the_bootstrap():
    rows = stat_scores(PERPLEXITY, np.random.default_rng(0).uniform(1, 2, (50, 2)))
    assert estimate(PERPLEXITY, rows, seed=1, resamples=200) == estimate(PERPLEXITY, rows, seed=1, resamples=200)
    assert estimate(PERPLEXITY, rows, seed=1, resamples=200) != estimate(PERPLEXITY, rows, seed=2, resamples=200)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="clusters"):
        estimate(ACC, scores(ACC, [1, 0]), clusters=["a"])
    with pytest.raises(ValueError, match="mean"):
        estimate(ACC, scores(MEAN, [1, 0]))
    with pytest.raises(ValueError, match="statistics"):
        estimate(PERPLEXITY, scores(PERPLEXITY, [1, 0]))
