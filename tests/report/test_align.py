"""Characters that a vocabulary splits over tokens are read as characters."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lydite.report.align import BROKEN, stretches
from lydite.types import LogProbs


def byte_tokens(text, cuts):
    """The text cut at byte positions, each piece decoded alone, as a byte-level tokenizer's tokens are."""
    data = text.encode()
    borders = [0, *sorted({cut % len(data) for cut in cuts} - {0}), len(data)] if data else [0]
    return tuple(data[a:b].decode("utf-8", "replace") for a, b in pairwise(borders))


def answer(tokens):
    logprobs = tuple(-1.0 - i / 8 for i in range(len(tokens)))
    return LogProbs(tokens=tokens, logprobs=logprobs, greedy=False, rule="causal")


def test_readable_tokens_stay_as_they_are():
    output = answer((" The", " sky", "."))
    assert stretches(output, "another text") == [(" The", -1.0, 1), (" sky", -1.125, 1), (".", -1.25, 1)]


def test_a_split_character_is_one_stretch():
    output = answer(byte_tokens("有石头。", [3, 4, 5, 6, 8, 9]))
    assert output.tokens == ("有", BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, "。")
    assert stretches(output, "有石头。") == [
        ("有", -1.0, 1),
        ("石头", -1.125 - 1.25 - 1.375 - 1.5 - 1.625, 5),
        ("。", -1.75, 1),
    ]


def test_a_readable_character_that_comes_again():
    text = "石大头大"
    output = answer(byte_tokens(text, [1, 2, 3, 6, 7, 8, 9]))
    assert [stretch[0] for stretch in stretches(output, text)] == ["石", "大", "头", "大"]


def test_a_space_that_the_tokenizer_left_out():
    assert [stretch[0] for stretch in stretches(answer(("A", BROKEN, BROKEN)), " A石")] == [" A", "石"]


def test_scoring_that_began_before_the_border():
    output = answer((BROKEN, BROKEN, "头", "x"))
    assert [stretch[0] for stretch in stretches(output, "头x", "大石")] == ["石", "头", "x"]
    assert BROKEN in stretches(output, "头x")[0][0]


def test_tokens_of_another_text_are_left_alone():
    output = answer((BROKEN, "x", BROKEN))
    assert [stretch[0] for stretch in stretches(output, "no such letter")] == [BROKEN, "x", BROKEN]
    assert [stretch[0] for stretch in stretches(output, "石x")] == [BROKEN, "x", BROKEN]  # nothing left for the last


@given(st.text(alphabet="ab 石头大。é😀", min_size=1, max_size=12), st.lists(st.integers(0, 60), max_size=20))
def test_nothing_is_lost(text, cuts):
    output = answer(byte_tokens(text, cuts))
    found = stretches(output, text)
    assert math.isclose(sum(logprob for _, logprob, _ in found), output.total)
    assert sum(count for _, _, count in found) == len(output.tokens)
    if found != [(t, p, 1) for t, p in zip(output.tokens, output.logprobs, strict=True)] or BROKEN not in "".join(
        output.tokens
    ):
        assert "".join(piece for piece, _, _ in found) == text
