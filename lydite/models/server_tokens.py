"""A server's echoed tokens laid over the text that was sent, and cut at the border of context and continuation.

The protocol gives tokens as texts and their offsets in characters, and servers differ in both: a BOS that is or is not
in the list, tokens without their leading space, pieces of a character that show as U+FFFD or as nothing, offsets that
count those signs. So offsets are believed only where they agree with the tokens, and a list of tokens that does not
spell the text that was sent is refused, never scored.

The rule of the join is that of engine/tokens.py: scoring starts at the border; if a token spans it, at the last token
border before it that is known, the same one for all requests of a sample that share a context; then `join` is `spanned`.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lydite.types import Failure, LogProbs

ZERO = -9999.0
"""What vLLM writes for a probability of zero."""
MAX_SPECIAL = 3
"""Special tokens that a server may put in front of a text."""
_BROKEN = "\ufffd"
_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")


class EchoedTokens(msgspec.Struct, frozen=True):
    """`logprobs` of an answer to /completions."""

    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int] | None = None


@dataclass(frozen=True)
class Echo:
    """The tokens of one text that was sent; what the server generated after it is left out."""

    tokens: tuple[str, ...]
    starts: tuple[int | None, ...]
    """Byte of the text at which each token begins; None: within a stretch that could not be told apart; -1: a special
    token in front."""
    logprobs: tuple[float | None, ...]
    tops: tuple[dict[str, float] | None, ...]

    def most_likely(self, border: int) -> list[bool]:
        """For each token that begins at or after a border in bytes, whether no other was more likely."""
        rows = zip(self.starts, self.logprobs, self.tops, strict=True)
        return [
            logprob >= max(top.values())
            for start, logprob, top in rows
            if start is not None and start >= border and logprob is not None and top
        ]

    def cut(self, border: int) -> tuple[int, bool]:
        """The first token to be scored for a border in bytes, and whether it begins before the border."""
        exact = next((i for i, start in enumerate(self.starts) if start == border), None)
        if exact is not None:
            return exact, False
        before = max((start for start in self.starts if start is not None and 0 <= start < border), default=None)
        return (len(self.tokens), False) if before is None else (self.starts.index(before), True)


def read_echo(found: EchoedTokens | None, text: str, num_generated: int | None) -> Echo | str:
    """The tokens of `text`, or the reason why they cannot be had."""
    if found is None or found.tokens is None or found.token_logprobs is None:
        return "the server gave no log-probabilities"
    if found.top_logprobs is None:
        return "the server gave no top log-probabilities, so it is not known whether a token was the most likely one"
    sizes = {len(found.tokens), len(found.token_logprobs), len(found.top_logprobs)}
    if len(sizes) > 1:
        return (
            f"the server gave {len(found.tokens)} tokens, {len(found.token_logprobs)} log-probabilities and "
            f"{len(found.top_logprobs)} top log-probabilities"
        )
    total = len(found.tokens)
    data = text.encode("utf-8", "surrogatepass")
    # The one generated token is listed last, unless it was the end of the text.
    likely = 1 if num_generated is None else num_generated
    for count in dict.fromkeys((total - likely, total, total - 1)):
        starts = lay(found.tokens[:count], data) if count > 0 else None
        if starts is not None:
            starts = _with_offsets(starts, found, text, count)
            return Echo(
                tuple(found.tokens[:count]),
                tuple(starts),
                tuple(found.token_logprobs[:count]),
                tuple(found.top_logprobs[:count]),
            )
    return "the server's tokens do not spell the text that was sent (no echo, or a text that it cut or changed)"


def lay(tokens: Sequence[str], text: bytes) -> list[int | None] | None:
    """The byte at which each token begins; None where the tokens do not spell the text.

    All ways to lay the tokens over the text are followed at once, as sets of positions in the bits of an integer. A start
    is known if it is the same in all of them. Up to MAX_SPECIAL tokens in front may be special ones: -1.
    """
    for num_special in range(min(MAX_SPECIAL, len(tokens)) + 1):
        starts = _lay(tokens[num_special:], text)
        if starts is not None:
            return [-1] * num_special + starts
    return None


def _lay(tokens: Sequence[str], text: bytes) -> list[int | None] | None:
    high = _high_bytes(text)
    steps = [
        (number, piece) for number, token in enumerate(tokens) for piece in _pieces(token, b"\xe2\x96\x81" in text)
    ]
    reached = [1]  # before each step: bit p is set if the pieces before it can end at byte p
    for _, piece in steps:
        reached.append(_after(reached[-1], piece, text, high))
        if not reached[-1]:
            return None
    places = reached[-1] & (1 << len(text))
    if not places:
        return None
    starts: list[int | None] = [None] * len(tokens)
    for at in range(len(steps) - 1, -1, -1):
        number, piece = steps[at]
        places = _before(places, piece, text, high, reached[at])
        starts[number] = places.bit_length() - 1 if places.bit_count() == 1 else None
    return starts


_Piece = bytes | None
"""A part of a token: its bytes, or None for one to three bytes of a character that is not whole."""


def _pieces(token: str, plain: bool) -> list[_Piece]:
    """A token as parts; `plain`: the text has U+2581 of its own, which else stands for a space (SentencePiece)."""
    if token.startswith("bytes:"):  # how OpenAI writes parts of characters
        return [b"".join(bytes.fromhex(pair) for pair in _ESCAPED.findall(token))]
    if not token:
        return [None]
    token = token if plain else token.replace("\u2581", " ")
    found: list[_Piece] = []
    for number, part in enumerate(token.split(_BROKEN)):
        found += [None] if number else []
        found += [part.encode("utf-8", "surrogatepass")] if part else []
    return found


def _high_bytes(text: bytes) -> int:
    """Positions of the bytes that are no ASCII, as bits."""
    return int("0" + "".join("1" if byte > 127 else "0" for byte in reversed(text)), 2)


def _after(places: int, piece: _Piece, text: bytes, high: int) -> int:
    """Where a piece can end that begins at one of `places`."""
    if piece is None:
        one = (places & high) << 1
        two = (one & high) << 1
        return one | two | (two & high) << 1
    found = 0
    for place in _bits(places):
        for end in _ends(place, piece, text):
            found |= 1 << end
    return found


def _before(places: int, piece: _Piece, text: bytes, high: int, reached: int) -> int:
    """Those of the `reached` places from which a piece can end at one of `places`."""
    if piece is None:
        one = (places >> 1) & high
        two = (one >> 1) & high
        return (one | two | (two >> 1) & high) & reached
    found = 0
    for place in _bits(reached):
        if any(places >> end & 1 for end in _ends(place, piece, text)):
            found |= 1 << place
    return found


def _ends(place: int, piece: bytes, text: bytes) -> list[int]:
    """Where these bytes can end that begin at `place`: as they are, after a space that the token lacks (SentencePiece
    tokens that were decoded one by one), or, at the beginning, without a space that the text lacks."""
    found = [place + len(piece)] if text.startswith(piece, place) else []
    if text.startswith(b" " + piece, place):
        found.append(place + 1 + len(piece))
    if place == 0 and piece.startswith(b" ") and len(piece) > 1 and text.startswith(piece[1:]):
        found.append(len(piece) - 1)
    return found


def _bits(places: int) -> Iterator[int]:
    while places:
        low = places & -places
        yield low.bit_length() - 1
        places ^= low


def _with_offsets(starts: list[int | None], found: EchoedTokens, text: str, count: int) -> list[int | None]:
    """Fills unknown starts from the server's offsets, if those agree with every start that is known, and with the end.

    A token with the end of one character and the beginning of another counts as ending between them.
    """
    offsets = found.text_offset
    if None not in starts or offsets is None or len(offsets) <= count or offsets[count] != len(text):
        return starts
    chars = offsets[:count]
    if chars != sorted(chars) or min(chars) < 0 or max(chars) > len(text):
        return starts
    at = {char: len(text[:char].encode("utf-8", "surrogatepass")) for char in set(chars)}
    places = [at[char] for char in chars]
    agree = all(start in (None, -1, place) for start, place in zip(starts, places, strict=True))
    return [-1 if s == -1 else place for s, place in zip(starts, places, strict=True)] if agree else starts


def score_group(echoes: Sequence[Echo], border: int) -> list[LogProbs | Failure]:
    """One answer a request, for requests of one sample that share their context; `border` is its length in bytes."""
    cuts = [echo.cut(border) for echo in echoes]
    first = min(cut for cut, _ in cuts)
    for place in range(first):
        if len({echo.tokens[place] for echo in echoes}) > 1:
            first = place
            break
    return [_score(echo, first, cut, spanned) for echo, (cut, spanned) in zip(echoes, cuts, strict=True)]


def _score(echo: Echo, first: int, own: int, spanned: bool) -> LogProbs | Failure:
    if own >= len(echo.tokens):
        return Failure(reason="the continuation has no tokens of its own")
    logprobs: list[float] = []
    greedy = True
    for logprob, top in zip(echo.logprobs[first:], echo.tops[first:], strict=True):
        if logprob is None:
            return Failure(
                reason="the server gave no log-probability of the first token, because it puts no BOS before a text; "
                "--set lead=TOKEN puts one before an empty context"
            )
        if not top:
            return Failure(reason="the server gave no top log-probability of a token that is scored")
        if not math.isfinite(logprob) or logprob <= ZERO:
            return Failure(reason="zero probability")
        if logprob > 1e-3:
            return Failure(reason=f"the server gave the log-probability {logprob}, which is above 0")
        logprobs.append(logprob)
        greedy = greedy and logprob >= max(top.values())
    return LogProbs(
        tokens=echo.tokens[first:],
        logprobs=tuple(logprobs),
        greedy=greedy,
        rule="causal",
        join="spanned" if spanned or first < own else "clean",
    )


def all_zero(echo: Echo) -> bool:
    """Whether the numbers are placeholders: no model is certain of every token of an ordinary sentence."""
    numbers: list[Any] = [logprob for logprob in echo.logprobs if logprob is not None]
    return not numbers or all(number == 0 for number in numbers)
