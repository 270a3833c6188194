"""Tokens as servers write them, laid over the text that was sent."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lydite.models.server_tokens import Echo, EchoedTokens, lay, read_echo, score_group


def as_vllm(pieces):
    """Each token decoded alone; parts of characters become U+FFFD. Offsets count what is printed."""
    tokens = [piece.decode("utf-8", "replace") for piece in pieces]
    offsets = [0]
    for token in tokens:
        offsets.append(offsets[-1] + len(token))
    return tokens, offsets


def as_openai(pieces):
    """Parts of characters are written out as bytes."""
    tokens = []
    for piece in pieces:
        try:
            tokens.append(piece.decode())
        except UnicodeDecodeError:
            tokens.append("bytes:" + "".join(f"\\x{byte:02x}" for byte in piece))
    return tokens, [len(b"".join(pieces[:i]).decode("utf-8", "ignore")) for i in range(len(pieces) + 1)]


def as_llama_cpp_python(pieces):
    """Parts of characters are left out; offsets count the whole characters before a token."""
    tokens = [piece.decode("utf-8", "ignore") for piece in pieces]
    return tokens, [len(b"".join(pieces[:i]).decode("utf-8", "ignore")) for i in range(len(pieces) + 1)]


STYLES = {"vllm": as_vllm, "openai": as_openai, "llama": as_llama_cpp_python}


def echo_of(pieces, style, *, bos=None):
    tokens, offsets = STYLES[style](pieces)
    numbers = [-float(i + 1) for i in range(len(tokens))]
    if bos is not None:
        tokens, numbers, offsets = [bos, *tokens], [None, *numbers], [0, *offsets]
    tokens, numbers = [*tokens, " next"], [*numbers, -0.1]
    tops = [None if n is None else {"x": n} for n in numbers]
    text = b"".join(pieces).decode()
    return read_echo(EchoedTokens(tokens, numbers, tops, offsets), text, 1), text


def starts_of(pieces):
    return [sum(map(len, pieces[:i])) for i in range(len(pieces))]


def cut_up(data, cuts):
    borders = [0, *sorted(set(cuts) & set(range(1, len(data)))), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(borders)]


@settings(max_examples=80, deadline=None)
@given(
    st.text(alphabet="ab 你好é\n😀,", min_size=1, max_size=14),
    st.sets(st.integers(1, 40)),
    st.sampled_from(["vllm", "openai"]),
    st.sampled_from([None, "<s>"]),
)
def test_a_known_start_is_the_true_one_whatever_the_pieces(text, cuts, style, bos):
    """The oracle is the cut itself: bytes before each piece."""
    pieces = cut_up(text.encode(), cuts)
    echo, _ = echo_of(pieces, style, bos=bos)
    assert isinstance(echo, Echo), echo
    front = 0 if bos is None else 1
    for start, true in zip(echo.starts[front:], starts_of(pieces), strict=True):
        assert start in (None, true)
        assert start is not None or style == "vllm"
    for border in {len(text[:i].encode()) for i in range(len(text))}:
        cut, spanned = echo.cut(border)
        true = starts_of(pieces)[cut - front]
        assert true < border if spanned else true == border
        assert spanned or style == "openai" or echo.starts[cut] == border


@pytest.mark.parametrize("style", ["vllm", "openai", "llama"])
def test_characters_in_pieces(style):
    pieces = [b"A", "\u4f60".encode()[:2], "\u4f60".encode()[2:] + "\u597d".encode()[:1], "\u597d".encode()[1:], b"!"]
    echo, text = echo_of(pieces, style)
    assert text == "A你好!"
    assert isinstance(echo, Echo), echo
    assert echo.cut(len("A你好".encode())) == (4, False)
    assert echo.cut(len(b"A")) == (1, False)
    if style == "llama":
        return  # which token has the first byte of a character is not in its replies
    # The token in the middle holds parts of both characters, so the border between them lies within it.
    cut, spanned = echo.cut(len("A你".encode()))
    assert spanned
    assert cut <= 2


def test_offsets_tell_pieces_apart_where_they_agree_and_are_not_believed_where_not():
    pieces = ["你".encode()[:1], "你".encode()[1:], "好".encode()[:1], "好".encode()[1:]]
    echo, _ = echo_of(pieces, "llama")
    assert echo.cut(3) == (2, False)
    wrong = read_echo(EchoedTokens(["", "", "", "", " n"], [-1.0] * 5, [{"x": -1.0}] * 5, [0, 2, 1, 1, 2]), "你好", 1)
    assert wrong.cut(3) == (0, True)


def test_sentencepiece_tokens_without_their_space_and_with_their_own_sign():
    text = b"The capital of France is Paris"
    expected = [0, 3, 11, 14, 21, 24]
    assert lay(["The", "capital", "of", "France", "is", "Paris"], text) == expected
    assert lay(["▁The", "▁capital", "▁of", "▁France", "▁is", "▁Paris"], text) == expected
    assert lay(["<s>", " The", " capital", " of", " France", " is", " Paris"], text) == [-1, *expected]
    assert lay(["▁", "x"], "▁x".encode()) == [0, 3]


def test_tokens_of_another_text_are_refused():
    text = b"one two three"
    for tokens in (
        ["one", " two"],
        ["one", " two", " three", " four"],
        ["one", " two", " tree"],
        ["two", " three"],
        ["a", "b", "c", "d", "one", " two", " three"],
        [" three"],
    ):
        assert lay(tokens, text) is None, tokens
    assert lay(["one two", " three"], text) == [0, 7]


def test_a_long_text_in_pieces_is_laid():
    """Two thousand characters of two pieces each: the sets of positions grow to thousands."""
    pieces = [piece for _ in range(2000) for piece in ("你".encode()[:2], "你".encode()[2:])]
    pieces[2001:2001] = [b"ab"]
    tokens, _ = as_vllm([*pieces[:2000], b"ab", *pieces[2002:]])
    starts = lay(tokens, b"".join([*pieces[:2000], b"ab", *pieces[2002:]]))
    assert starts is not None
    assert starts[2000] == 3000


def test_numbers_of_a_group_start_at_one_token():
    happy, text = echo_of([b"un", b"happy"], "openai")
    tired, _ = echo_of([b"unt", b"ired"], "openai")
    assert text == "unhappy"
    first, second = score_group([happy, tired], 2)
    assert (first.tokens, first.join) == (("un", "happy"), "spanned")
    assert (second.tokens, second.join) == (("unt", "ired"), "spanned")


def test_missing_pieces_of_a_reply_are_reasons():
    good = {"tokens": ["a", "b"], "token_logprobs": [-1.0, -1.0], "top_logprobs": [{"a": -1.0}] * 2}
    assert isinstance(read_echo(EchoedTokens(**good), "a", 1), Echo)
    assert isinstance(read_echo(EchoedTokens(**good), "ab", 0), Echo)
    assert isinstance(read_echo(EchoedTokens(**good), "ab", None), Echo)
    for change in ({"tokens": None}, {"token_logprobs": None}, {"top_logprobs": None}, {"token_logprobs": [-1.0]}):
        assert re.match("the server gave", read_echo(EchoedTokens(**(good | change)), "a", 1))
    assert "no log-probabilities" in read_echo(None, "a", 1)
