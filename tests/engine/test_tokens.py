"""Joins, BOS and windows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lydite.engine.tokens import Encoded, Encoder, disjoint, slide
from lydite.errors import ModelError
from lydite.types import Failure, Message, ScoreRequest
from tests.tiny import TEXTS, tiny_tokenizer

PLAIN = tiny_tokenizer(chat=True)
WITH_BOS = tiny_tokenizer(bos=True, chat=True)


def encoder(tokenizer: PreTrainedTokenizerFast = PLAIN, max_tokens: int | None = None, **more: bool) -> Encoder:
    return Encoder(tokenizer, max_tokens=max_tokens, **more)


def ask(context: str, *continuations: str, window: str = "none") -> list[ScoreRequest]:
    return [
        ScoreRequest(sample_id="s", index=i, context=context, continuation=c, window=window)
        for i, c in enumerate(continuations)
    ]


def one(encoder: Encoder, context: str, continuation: str, window: str = "none") -> Encoded:
    (answer,) = encoder.encode(ask(context, continuation, window=window))
    assert isinstance(answer, Encoded)
    return answer


def plain_ids(text: str) -> list[int]:
    return list(PLAIN(text, add_special_tokens=False)["input_ids"])


def scored_text(answer: Encoded) -> str:
    return PLAIN.decode([int(token) for window in answer.windows for token in window.ids[window.first :]])


# ------------------------------------------------------------------------------------------- the join


def test_a_clean_join_is_the_tokenization_of_the_whole_text() -> None:
    answer = one(encoder(), "The cat sat on", " the mat.")
    assert answer.windows[0].ids.tolist() == plain_ids("The cat sat on the mat.")
    assert answer.windows[0].first == len(plain_ids("The cat sat on"))
    assert answer.join == "clean"
    assert scored_text(answer) == " the mat."


def test_a_token_across_the_join_is_scored_whole() -> None:
    assert " the" in [PLAIN.decode([t]) for t in plain_ids("on the")]
    answer = one(encoder(), "The cat sat on th", "e mat.")
    assert answer.join == "spanned"
    assert scored_text(answer) == " the mat."


def test_a_trailing_space_follows_the_same_rule() -> None:
    answer = one(encoder(), "The cat sat on ", "the mat.")
    assert answer.join == "spanned"
    assert scored_text(answer) == " the mat."


def test_all_choices_start_at_the_same_border() -> None:
    """ "xyz" joins cleanly after " t", "he mat" does not: both must be scored from before the " t"."""
    clean, spanned = encoder().encode(ask("sat on t", "xyz", "he mat"))
    assert isinstance(clean, Encoded)
    assert isinstance(spanned, Encoded)
    assert one(encoder(), "sat on t", "xyz").join == "clean"
    assert clean.windows[0].first == spanned.windows[0].first
    assert np.array_equal(
        clean.windows[0].ids[: clean.windows[0].first], spanned.windows[0].ids[: spanned.windows[0].first]
    )
    assert (clean.join, spanned.join) == ("spanned", "spanned")
    assert scored_text(clean) == " txyz"


def test_other_samples_do_not_share_the_border() -> None:
    requests = ask("sat on t", "xyz", "he mat")
    other = ScoreRequest(sample_id="other", index=1, context="sat on t", continuation="he mat")
    clean, _ = encoder().encode([requests[0], other])
    assert isinstance(clean, Encoded)
    assert clean.join == "clean"


def test_the_whole_context_may_be_part_of_one_token() -> None:
    answer = one(encoder(), "Th", "e cat")
    assert answer.windows[0].ids[0].tolist() == PLAIN.bos_token_id  # something must stand before the first scored token
    assert scored_text(answer) == "The cat"


WORDS = st.sampled_from(
    sorted({piece for text in TEXTS for piece in text.split()} | {" ", "  ", "\n", "é", "象", "🙂"})
)
TEXT = st.lists(st.tuples(WORDS, st.sampled_from([" ", "", "\n"])), max_size=6).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)


@settings(max_examples=200, deadline=None)
@given(TEXT, st.lists(TEXT.filter(bool), min_size=1, max_size=4), st.booleans())
def test_every_choice_is_scored_from_one_border_and_never_empty(context: str, choices: list[str], bos: bool) -> None:
    tokenizer = WITH_BOS if bos else PLAIN
    answers = encoder(tokenizer).encode(ask(context, *choices))
    starts = set()
    for choice, answer in zip(choices, answers, strict=True):
        assert isinstance(answer, Encoded)
        (window,) = answer.windows
        ids = window.ids.tolist()
        before, scored = ids[: window.first], ids[window.first :]
        assert before
        assert scored
        starts.add(tuple(before))
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert text == context + choice
        assert before.count(0) == (1 if bos or (len(before) == 1 and before[0] == 0) else 0)
        assert answer.join == "spanned" or tokenizer.decode(scored) == choice or "\ufffd" in tokenizer.decode(scored)
    assert len(starts) == 1
    if len(choices) == 1:  # no later border lies within the context
        one_more = tokenizer.decode(ids[: window.first + 1], skip_special_tokens=True)
        assert "\ufffd" in one_more or len(one_more) > len(context)


def test_an_empty_continuation_is_a_failure() -> None:
    (answer,) = encoder().encode(ask("The cat", ""))
    assert answer == Failure(reason="the continuation is empty")


# ------------------------------------------------------------------------------------------------ BOS


def test_bos_stands_in_front_exactly_once() -> None:
    enc = encoder(WITH_BOS)
    assert enc.settings["bos"] == "<s>"
    for context in ("The cat", "<s>The cat"):
        window = one(enc, context, " sat").windows[0]
        assert window.ids.tolist() == [0, *plain_ids("The cat sat")]
        assert window.first == len(window.ids) - len(plain_ids(" sat"))


def test_without_bos_nothing_stands_in_front_of_a_context() -> None:
    enc = encoder()
    assert enc.settings["bos"] == "none (<s> before an empty context)"
    assert one(enc, "The cat", " sat").windows[0].ids.tolist() == plain_ids("The cat sat")


@pytest.mark.parametrize("tokenizer", [PLAIN, WITH_BOS])
def test_an_empty_context_is_scored_from_the_first_token_on(tokenizer: PreTrainedTokenizerFast) -> None:
    window = one(encoder(tokenizer), "", "The cat").windows[0]
    assert window.ids.tolist() == [0, *plain_ids("The cat")]
    assert window.first == 1


def test_a_text_with_its_own_bos_and_no_context_is_not_scored_on_it() -> None:
    window = one(encoder(WITH_BOS), "", "<s>The cat").windows[0]
    assert window.ids.tolist() == [0, *plain_ids("The cat")]
    assert window.first == 1


def test_the_family_may_ask_for_bos() -> None:
    assert one(encoder(wants_bos=True), "The cat", " sat").windows[0].ids[0].tolist() == 0


def test_eos_leads_where_there_is_no_bos() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = None
    assert one(encoder(tokenizer), "", "The cat").windows[0].ids[0].tolist() == tokenizer.eos_token_id


def test_nothing_leads_where_there_is_neither() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    (answer,) = encoder(tokenizer).encode(ask("", "The cat"))
    assert isinstance(answer, Failure)
    assert "neither BOS nor EOS" in answer.reason


# ----------------------------------------------------------------------------------------------- chat


def test_messages_go_through_the_template_with_one_bos() -> None:
    messages = (Message(role="user", content="The cat?"),)
    request = ScoreRequest(sample_id="s", index=0, messages=messages, continuation="The mat")
    for tokenizer in (PLAIN, WITH_BOS):
        (answer,) = encoder(tokenizer).encode([request])
        assert isinstance(answer, Encoded)
        text = "<s>user\nThe cat?</s>\n<s>assistant\n"
        assert answer.windows[0].ids.tolist() == plain_ids(text + "The mat")
        assert scored_text(answer) == "The mat"


def test_a_missing_template_is_one_clear_line() -> None:
    request = ScoreRequest(sample_id="s", index=0, messages=(Message(role="user", content="x"),), continuation="y")
    with pytest.raises(ModelError, match="no chat template"):
        encoder(tiny_tokenizer()).encode([request])


def test_a_template_that_refuses_is_one_clear_line() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no system turns') }}"
    request = ScoreRequest(sample_id="s", index=0, messages=(Message(role="system", content="x"),), continuation="y")
    with pytest.raises(ModelError, match="no system turns"):
        encoder(tokenizer).encode([request])


# -------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("tokenizer", [PLAIN, WITH_BOS])
def test_a_long_context_is_cut_from_the_left(tokenizer: PreTrainedTokenizerFast) -> None:
    context = "The cat sat on the mat. " * 10
    answer = one(encoder(tokenizer, max_tokens=20), context, "The end")
    (window,) = answer.windows
    whole = one(encoder(tokenizer), context, "The end").windows[0]
    assert len(window.ids) == 21
    assert answer.num_truncated == len(whole.ids) - 21
    fixed = 1 if tokenizer is WITH_BOS else 0
    assert window.ids[:fixed].tolist() == [0] * fixed
    assert window.ids[fixed:].tolist() == whole.ids[len(whole.ids) - 21 + fixed :].tolist()
    assert window.ids[window.first :].tolist() == whole.ids[whole.first :].tolist()


def test_a_continuation_longer_than_the_model_is_a_failure_that_names_lengths() -> None:
    text = "The cat sat on the mat. " * 10
    (answer,) = encoder(max_tokens=20).encode(ask("So:", text))
    assert isinstance(answer, Failure)
    assert str(len(plain_ids("So:" + text)) - len(plain_ids("So:"))) in answer.reason
    assert "20" in answer.reason


def test_what_just_fits_is_not_cut() -> None:
    ids = plain_ids("The cat sat on the mat.")
    answer = one(encoder(max_tokens=len(ids) - 1), "The cat sat on", " the mat.")
    assert answer.windows[0].ids.tolist() == ids
    assert answer.num_truncated == 0


@pytest.mark.parametrize("kind", ["max_context", "disjoint"])
@pytest.mark.parametrize("tokenizer", [PLAIN, WITH_BOS])
def test_windows_score_every_token_of_a_document_once(tokenizer: PreTrainedTokenizerFast, kind: str) -> None:
    text = "\n".join(TEXTS) * 3
    answer = one(encoder(tokenizer, max_tokens=24), "", text, window=kind)
    assert len(answer.windows) > 3
    scored = [int(token) for window in answer.windows for token in window.ids[window.first :]]
    assert scored == plain_ids(text)
    for window in answer.windows:
        assert len(window.ids) - 1 <= 24
        assert window.first >= 1
        if tokenizer is WITH_BOS:
            assert window.ids[0].tolist() == 0
            assert 0 not in window.ids[1:].tolist()
    if kind == "max_context":
        assert all(window.first >= 12 for window in answer.windows[1:])


@given(st.integers(1, 200), st.integers(1, 200), st.integers(2, 50))
def test_spans_tile_what_is_scored(length: int, start: int, room: int) -> None:
    start = min(start, length - 1)
    for cut in (slide, disjoint):
        spans = cut(length, start, room)
        assert [i for _, first, end in spans for i in range(first, end)] == list(range(start, length))
        for begin, first, end in spans:
            assert 0 <= begin <= first < end <= length
            assert end - begin <= room
            assert begin < first or start == 0
    for begin, first, _ in slide(length, start, room)[1:]:
        assert first - begin >= room - room // 2


def test_tokenizers_without_offsets_are_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Encoder(Slow(), max_tokens=None)  # type: ignore[arg-type]
