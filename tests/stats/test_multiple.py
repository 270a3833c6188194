"""Adjusted p-values against published examples and scipy, and letters against their definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lydite.stats import benjamini_hochberg, holm, rank_groups

# Benjamini and Hochberg 1995, section 3.1: 15 hypotheses. At 0.05 Holm finds three, their procedure four.
BH_1995 = [
    0.0001,
    0.0004,
    0.0019,
    0.0095,
    0.0201,
    0.0278,
    0.0298,
    0.0344,
    0.0459,
    0.3240,
    0.4262,
    0.5719,
    0.6528,
    0.7590,
    1.0,
]


def test_published_examples():
    assert sum(p <= 0.05 for p in holm(BH_1995)) == 3
    assert sum(p <= 0.05 for p in benjamini_hochberg(BH_1995)) == 4
    # R's p.adjust, method "holm".
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == benjamini_hochberg([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_by_definition(p_values):
    assert benjamini_hochberg(p_values) == pytest.approx(list(stats.false_discovery_control(p_values)))
    ordered = sorted(p_values)
    steps = [min(1.0, max((len(ordered) - j) * ordered[j] for j in range(i + 1))) for i in range(len(ordered))]
    adjusted = holm(p_values)
    assert sorted(adjusted) == pytest.approx(steps)
    assert all(new >= old for new, old in zip(adjusted, p_values, strict=True))


@given(st.randoms(use_true_random=False), st.lists(st.floats(0, 1), min_size=2, max_size=10))
def test_adjustment_ignores_order(random, p_values):
    places = list(range(len(p_values)))
    random.shuffle(places)
    for adjust in (holm, benjamini_hochberg):
        assert adjust([p_values[i] for i in places]) == pytest.approx([adjust(p_values)[i] for i in places])


def test_letters():
    assert rank_groups(1, []) == ["a"]
    assert rank_groups(3, []) == ["a", "a", "a"]
    assert rank_groups(3, [(0, 2)]) == ["a", "ab", "b"]
    assert rank_groups(3, [(0, 1), (0, 2), (1, 2)]) == ["a", "b", "c"]
    # Piepho 2004: overlapping groups.
    assert rank_groups(4, [(0, 2), (0, 3), (1, 3)]) == ["a", "ab", "bc", "c"]


@given(
    st.integers(1, 7).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))
    )
)
def test_letters_are_shared_exactly_by_those_not_told_apart(case):
    count, pairs = case
    different = {(min(p), max(p)) for p in pairs if p[0] != p[1]}
    letters = rank_groups(count, different)
    for i in range(count):
        assert letters[i]
        for j in range(i + 1, count):
            assert bool(set(letters[i]) & set(letters[j])) == ((i, j) not in different)
    assert letters[0].startswith("a")
