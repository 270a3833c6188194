"""Statistics of summaries, by hand from the definitions of Newsroom (Grusky et al. 2018)."""

import random

import numpy as np
import pytest

from lydite.metrics.summary import COMPRESSION, describe, fragments
from lydite.metrics.words import words_of

ARTICLE = "the old mill by the river burned down on monday . nobody was hurt"


def naive_fragments(article, summary):
    """Figure 3 of the paper, word for word."""
    found, i = [], 0
    while i < len(summary):
        best, j = 0, 0
        while j < len(article):
            if summary[i] == article[j]:
                length = 0
                while (
                    i + length < len(summary)
                    and j + length < len(article)
                    and summary[i + length] == article[j + length]
                ):
                    length += 1
                best = max(best, length)
                j += length
            else:
                j += 1
        if best:
            found.append(best)
        i += max(best, 1)
    return found


def test_by_hand():
    found = describe(ARTICLE, "The old mill burned down. Nobody died.", words_of("en"))
    # 13 words to 7; fragments: the old mill (3), burned down (2), nobody (1); died is new.
    assert found["compression"] == (pytest.approx(13 / 7), (13.0, 7.0))
    assert found["coverage"][0] == pytest.approx(6 / 7)
    assert found["density"][0] == pytest.approx((9 + 4 + 1) / 7)
    assert found["novel_1"][0] == pytest.approx(1 / 7)
    # Of the six bigrams, "mill burned", "down nobody" (the article has "down on") and "nobody died" are new.
    assert found["novel_2"][0] == pytest.approx(3 / 6)
    assert found["repetition"][0] == 0.0


def test_repetition_and_chinese():
    assert describe("x", "a b c a b c a", words_of("en"))["repetition"][0] == pytest.approx(1 - 3 / 5)
    found = describe("磨坊昨天着火了", "磨坊着火", words_of("zh"))
    assert found["coverage"][0] == 1.0
    assert found["density"][0] == pytest.approx((4 + 4) / 4)


def test_nothing_said():
    found = describe(ARTICLE, " .. ", words_of("en"))
    assert {value for value, _ in found.values()} == {0.0}
    assert np.isnan(COMPRESSION.finish(np.array([13.0, 0.0])))
    assert COMPRESSION.finish(np.array([[26.0, 7.0], [1.0, 2.0]])).tolist() == [26 / 7, 0.5]


def test_fragments_are_the_longest_runs():
    rng = random.Random(2)
    for _ in range(300):
        article, summary = rng.choices("abc", k=rng.randrange(25)), rng.choices("abcd", k=rng.randrange(12))
        ours, theirs = fragments(article, summary), naive_fragments(article, summary)
        # The figure moves past a run in the article, so it may miss a longer one that starts inside.
        assert sum(ours) == sum(theirs)
        assert max(ours, default=0) >= max(theirs, default=0)
