"""Groups of tasks: fixed strata."""

import math

import msgspec
import numpy as np
import pytest
from scipy import stats

from lydite.stats import estimate, pool
from lydite.types import Estimate
from tests.stats.helpers import ACC, MEAN, scores


def task(value, stderr, n, **changes):
    return Estimate(
        **({"metric": "acc", "value": value, "stderr": stderr, "interval": None, "n": n, "n_failed": 0} | changes)
    )


def test_weightings():
    parts = [task(0.9, 0.03, 100, n_failed=2, chance=0.5), task(0.5, 0.04, 300, chance=0.25)]
    by_sample = pool(parts, weighting="samples")
    assert by_sample.value == pytest.approx((90 + 150) / 400)
    assert by_sample.stderr == pytest.approx(math.hypot(0.25 * 0.03, 0.75 * 0.04))
    assert (by_sample.n, by_sample.n_failed) == (400, 2)
    assert by_sample.chance == pytest.approx(0.3125)
    by_task = pool(parts, weighting="tasks")
    assert by_task.value == pytest.approx(0.7)
    assert by_task.stderr == pytest.approx(math.hypot(0.03, 0.04) / 2)
    assert by_task.chance == pytest.approx(0.375)


def test_two_strata_give_welchs_interval():
    """The mean of two tasks, doubled, with one sign changed is a difference of means: scipy's Welch interval."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 15), rng.normal(2, 3, 25)
    found = pool([estimate(MEAN, scores(MEAN, a)), estimate(MEAN, scores(MEAN, -b))], weighting="tasks")
    theirs = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (2 * found.interval[0], 2 * found.interval[1]) == pytest.approx((theirs.low, theirs.high))
    assert found.method == "pooled t"


def test_pooled_samples_have_no_more_error_than_one_heap():
    """Strata remove the spread between tasks and nothing else."""
    rng = np.random.default_rng(1)
    tasks = [rng.random(200) < p for p in (0.95, 0.9, 0.5, 0.2)]
    pooled = pool([estimate(ACC, scores(ACC, t)) for t in tasks], weighting="samples")
    heap = estimate(ACC, scores(ACC, np.concatenate(tasks)))
    assert pooled.value == pytest.approx(heap.value)
    assert 0.5 * heap.stderr < pooled.stderr < heap.stderr
    assert pooled.method == "pooled wilson"


def test_perfect_tasks_keep_a_width():
    parts = [estimate(ACC, scores(ACC, [1] * 50)) for _ in range(4)]
    low, high = pool(parts, weighting="tasks").interval
    assert high == 1
    assert low == pytest.approx(stats.binomtest(200, 200).proportion_ci(method="wilson").low)


def test_a_task_without_a_value():
    lost = task(None, None, 0, n_failed=10)
    parts = [task(0.9, 0.03, 100), task(0.7, 0.03, 100), lost]
    assert pool(parts, weighting="tasks").value is None
    by_sample = pool(parts, weighting="samples")
    assert by_sample.value == pytest.approx(0.8)
    assert (by_sample.n, by_sample.n_failed) == (200, 10)
    assert by_sample.stderr is not None
    nothing = pool([lost, lost], weighting="samples")
    assert (nothing.value, nothing.stderr, nothing.interval, nothing.n_failed) == (None, None, None, 20)


def test_a_task_without_an_error_leaves_the_group_without_one():
    found = pool([task(0.9, 0.03, 100), task(1.0, None, 1)], weighting="samples")
    assert found.value == pytest.approx(91 / 101)
    assert (found.stderr, found.interval) == (None, None)


def test_chance_is_unknown_where_a_members_is():
    assert pool([task(0.9, 0.1, 10, chance=0.5), task(0.9, 0.1, 10)], weighting="samples").chance is None


def test_pooled_groups_pool_again():
    parts = [task(p, 0.02, 100) for p in (0.9, 0.8, 0.7, 0.6)]
    inner = [pool(parts[:2], weighting="samples"), pool(parts[2:], weighting="samples")]
    twice, once = pool(inner, weighting="samples"), pool(parts, weighting="samples")
    assert twice.value == pytest.approx(once.value)
    assert twice.stderr == pytest.approx(once.stderr)


def test_order_and_one_member():
    parts = [task(0.9, 0.02, 10), task(0.4, 0.1, 30), task(0.1, 0.3, 7)]
    assert pool(parts, weighting="samples") == pool(parts[::-1], weighting="samples")
    assert pool(parts[:1], weighting="tasks") == parts[0]


def test_what_cannot_be_pooled_is_refused():
    with pytest.raises(ValueError, match="nothing"):
        pool([], weighting="tasks")
    with pytest.raises(ValueError, match="one metric"):
        pool([task(0.9, 0.1, 3), msgspec.structs.replace(task(0.9, 0.1, 3), metric="f1")], weighting="tasks")
