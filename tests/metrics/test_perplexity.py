"""Rates of surprise, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from lydite.metrics.perplexity import (
    BITS_PER_BYTE,
    BYTE_PERPLEXITY,
    PERPLEXITY,
    WORD_PERPLEXITY,
    num_bytes,
    num_words,
    rate_score,
)


def test_a_fair_coin_a_byte_is_one_bit():
    score = rate_score(BITS_PER_BYTE, "s", 8 * math.log(2), 8)
    assert score.value == pytest.approx(1.0)
    assert rate_score(BYTE_PERPLEXITY, "s", 8 * math.log(2), 8).value == pytest.approx(2.0)


def test_the_corpus_is_not_the_mean_of_its_documents():
    # 2 nats on 1 word and 2 nats on 3 words: exp(4 / 4) = e, while the documents' mean is (e^2 + e^(2/3)) / 2.
    scores = [rate_score(WORD_PERPLEXITY, "a", 2.0, 1), rate_score(WORD_PERPLEXITY, "b", 2.0, 3)]
    sums = np.array([score.stats for score in scores]).sum(0)
    assert WORD_PERPLEXITY.finish(sums) == pytest.approx(math.e)
    assert scores[0].value == pytest.approx(math.e**2)


def test_finish_works_on_many_resamples_at_once():
    sums = np.array([[[2.0, 1.0], [4.0, 4.0]], [[0.0, 2.0], [6.0, 3.0]]])
    assert PERPLEXITY.finish(sums) == pytest.approx(np.exp([[2.0, 1.0], [0.0, 2.0]]))
    assert BITS_PER_BYTE.finish(sums).shape == (2, 2)


@pytest.mark.parametrize(
    ("text", "words"), [("one", 1), ("one two", 2), (" one  two\n", 4), ("one\n\ntwo", 2), ("今天 很好", 2)]
)
def test_words_are_counted_as_the_field_does(text, words):
    # White space at either end adds an empty piece, as re.split leaves it.
    assert num_words(text) == words


def test_bytes_are_utf8():
    assert num_bytes("é今") == 5


def test_a_value_without_a_number_is_an_error_not_infinity():
    overflow = rate_score(WORD_PERPLEXITY, "s", 5000.0, 1)
    assert (overflow.value, overflow.status) == (None, "error")
    assert rate_score(BITS_PER_BYTE, "s", 5000.0, 1).value == pytest.approx(5000 / math.log(2))
    assert rate_score(BITS_PER_BYTE, "s", 1.0, 0).status == "error"
