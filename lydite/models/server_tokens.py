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
from collections.abc import Sequence
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

    A token may lack the space before it. Tokens of unknown bytes fill the gap up to the next known one.
    """
    starts: list[int | None] = []
    position = pending = 0
    plain = b"\xe2\x96\x81" in text  # U+2581 stands for a space in SentencePiece vocabularies
    for token in tokens:
        known = _bytes(token, plain)
        if known is None:
            starts.append(None if pending else position)
            pending += 1
            continue
        place = _after_gap(text, position + pending, known) if pending else _next(text, position, known)
        if place is None:
            if position or pending or len(starts) >= MAX_SPECIAL:
                return None
            starts.append(-1)
            continue
        starts.append(place[0])
        position, pending = place[1], 0
    left = len(text) - position
    return starts if (left >= pending if pending else left == 0) else None


def _next(text: bytes, position: int, known: bytes) -> tuple[int, int] | None:
    """Begin and end of a token at `position`: as it is, without a space that the text lacks (only the first token),
    or after a space that the token lacks."""
    if text.startswith(known, position):
        return position, position + len(known)
    if position == 0 and known.startswith(b" ") and len(known) > 1 and text.startswith(known[1:]):
        return 0, len(known) - 1
    if text.startswith(b" " + known, position):
        return position, position + 1 + len(known)
    return None


def _after_gap(text: bytes, earliest: int, known: bytes) -> tuple[int, int] | None:
    """The first place of a token after tokens whose bytes are not known; each of them has at least one."""
    at = text.find(known, earliest)
    return None if at < 0 else (at, at + len(known))


def _bytes(token: str, plain: bool) -> bytes | None:
    """The bytes of a token's text; None for pieces of a character whose bytes are not known."""
    if token.startswith("bytes:"):  # how OpenAI writes such pieces
        return b"".join(bytes.fromhex(pair) for pair in _ESCAPED.findall(token)) or None
    if not token or _BROKEN in token:
        return None
    if not plain:
        token = token.replace("\u2581", " ")
    return token.encode("utf-8", "surrogatepass")


def _with_offsets(starts: list[int | None], found: EchoedTokens, text: str, count: int) -> list[int | None]:
    """Fills unknown starts from the server's offsets, if those agree with every start that is known, and with the end."""
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
