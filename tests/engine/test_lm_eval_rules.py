"""Joins, cuts and windows by lm-evaluation-harness's rules, worked out by hand from its definitions; the comparison with
the thing itself is tests/lm_eval."""

import pytest

from lydite.engine.parity import LmEvalEncoder
from lydite.engine.tokens import Encoded
from lydite.types import Failure, ScoreRequest
from tests.tiny import tiny_tokenizer


def encoder(*, bos=False, max_tokens=128, add_bos_token=None):
    return LmEvalEncoder(tiny_tokenizer(bos=bos), max_tokens=max_tokens, add_bos_token=add_bos_token)


def encode(one, context, continuation, window="none"):
    request = ScoreRequest(sample_id="a", index=0, context=context, continuation=continuation, window=window)
    [answer] = one.encode([request])
    return answer


def ids(one, text, special=False):
    return one.tokenizer(text, add_special_tokens=special)["input_ids"]


@pytest.mark.parametrize("bos", [False, True])
def test_the_continuation_is_what_the_whole_has_more(bos):
    one = encoder(bos=bos)
    context, continuation = "The ca", "t sat on the mat"
    whole, before = ids(one, context + continuation, True), ids(one, context, True)
    assert whole[: len(before)] != before  # a token spans the join
    answer = encode(one, context, continuation)
    [window] = answer.windows
    assert window.ids.tolist() == before + whole[len(before) :]
    assert window.first == len(before)
    assert answer.join == "spanned"


def test_white_space_at_the_end_of_a_context_goes_to_the_continuation():
    one = encoder()
    left, right = encode(one, "The cat ", "sat"), encode(one, "The cat", " sat")
    assert left.windows[0].ids.tolist() == right.windows[0].ids.tolist()
    assert left.windows[0].first == right.windows[0].first


def test_an_empty_context_is_the_leading_token_which_is_not_scored_twice():
    one = encoder(bos=True)
    [window] = encode(one, "", "The cat").windows
    assert window.ids.tolist() == [0, *ids(one, "The cat")]
    assert window.first == 1
    [window] = encode(one, "", "<s>The cat").windows
    assert window.ids.tolist() == [0, *ids(one, "The cat")]
    assert window.first == 1


def test_a_cut_from_the_left_takes_bos_away():
    one = encoder(bos=True, max_tokens=6)
    tokens = ids(one, "The quick brown fox jumps over the lazy dog", True)
    answer = encode(one, "The quick brown fox jumps over the lazy", " dog")
    [window] = answer.windows
    assert window.ids.tolist() == tokens[-7:]
    assert answer.num_truncated == len(tokens) - 7


def test_whole_documents_predict_bos_from_bos_and_fill_the_last_window_up():
    one = encoder(bos=True, max_tokens=6)
    tokens = ids(one, "The quick brown fox jumps over the lazy dog", True)
    answer = encode(one, "", "The quick brown fox jumps over the lazy dog", "disjoint")
    first, *_, last = answer.windows
    assert first.ids.tolist() == [0, *tokens[:6]]
    assert (first.first, tokens[0]) == (1, 0)
    assert last.ids.tolist() == tokens[-7:]
    assert [t for w in answer.windows for t in w.ids[w.first :].tolist()] == tokens  # each token once


@pytest.mark.parametrize(("context", "continuation"), [("The cat", ""), ("", ""), ("The ca", "t"), (" ", "x")])
def test_what_they_stop_at_is_a_failure(context, continuation):
    assert isinstance(encode(encoder(), context, continuation), Failure)


def test_add_bos_token_stands_for_all_special_tokens():
    with_it, without = encoder(bos=True, add_bos_token=True), encoder(bos=True, add_bos_token=False)
    assert encode(with_it, "The cat", " sat").windows[0].ids[0] == 0
    assert encode(without, "The cat", " sat").windows[0].ids[0] != 0
    assert with_it.prompt_ids(["The cat", "<s>The cat"]) == [[0, *ids(with_it, "The cat")]] * 2
    assert without.prompt_ids(["The cat"]) == [ids(without, "The cat")]


def test_other_windows_are_refused_and_settings_say_whose_rules():
    one = encoder()
    assert isinstance(encode(one, "", "The cat", "max_context"), Failure)
    assert isinstance(encode(one, "", "The cat"), Encoded)
    assert one.settings["rules"] == "lm_eval"
