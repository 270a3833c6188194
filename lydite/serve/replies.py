"""What a client gets: pieces of text with their log-probabilities as replies, whole or as chunks of a stream."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from lydite.engine.run import Likelihood
from lydite.engine.stream import TextStream
from lydite.engine.texts import Texts
from lydite.serve.protocol import BadRequest


class TokenLine(msgspec.Struct, frozen=True):
    """A token as `logprobs` shows it."""

    text: str
    offset: int
    """Character of the choice's text at which it begins."""
    logprob: float | None
    top: tuple[tuple[str, float], ...] = ()


class Piece(msgspec.Struct, frozen=True):
    """A stretch of one choice's text."""

    choice: int
    text: str
    tokens: tuple[TokenLine, ...] = ()
    finish: str | None = None


class Counts(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def say(self) -> dict[str, int]:
        """`usage`."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


def line(texts: Texts, token: int, offset: int, found: Likelihood | None) -> TokenLine:
    """A token with its likelihood; without one where nothing stands before it."""
    show = texts.encoder.text_of
    if found is None:
        return TokenLine(show(token), offset, None)
    return TokenLine(show(token), offset, found.logprob, tuple((show(one), number) for one, number in found.top))


def echoed(texts: Texts, ids: Sequence[int], found: Sequence[Likelihood]) -> tuple[TokenLine, ...]:
    """A prompt's tokens, the special ones in front included; `found`: likelihoods from the second token on."""
    size = len(texts.encoder.prefix)
    num_front = size if tuple(ids[:size]) == texts.encoder.prefix else 0
    stream = TextStream(texts, (), skip_special=False)
    lines = []
    for place, token in enumerate(ids):
        lines.append(line(texts, token, len(stream.sent), found[place - 1] if place else None))
        if place >= num_front:
            stream.push(token)
    return tuple(lines)


class Replies:
    """The replies to one request, in the shape of its endpoint."""

    def __init__(self, model: str, *, chat: bool, logprobs: bool) -> None:
        self.chat = chat
        self.logprobs = logprobs
        self.counts = Counts()
        kind = "chat.completion" if chat else "text_completion"
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """The reply of a request that is not streamed; one piece a choice."""
        return self._head | {"choices": [self._choice(piece) for piece in pieces], "usage": self.counts.say()}

    def first(self, choice: int) -> dict[str, Any]:
        """A chat's first chunk says whose turn it is."""
        return self._chunk([{"index": choice, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """A piece of a stream."""
        if not self.chat:
            return self._chunk([self._choice(piece)])
        delta = {"content": piece.text} if piece.text or piece.tokens else {}
        choice: dict[str, Any] = {"index": piece.choice, "delta": delta, "finish_reason": piece.finish}
        if self.logprobs and piece.tokens:
            choice["logprobs"] = self._numbers(piece)
        return self._chunk([choice])

    def last(self) -> dict[str, Any]:
        """The chunk that counts the tokens."""
        return self._chunk([]) | {"usage": self.counts.say()}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return self._head | {"object": kind, "choices": choices}

    def _choice(self, piece: Piece) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": piece.text}} if self.chat else {"text": piece.text}
        numbers = self._numbers(piece) if self.logprobs else None
        return {"index": piece.choice, **said, "logprobs": numbers, "finish_reason": piece.finish}

    def _numbers(self, piece: Piece) -> dict[str, Any]:
        if self.chat:
            content = [
                _entry(one.text, one.logprob) | {"top_logprobs": [_entry(*pair) for pair in one.top]}
                for one in piece.tokens
            ]
            return {"content": content, "refusal": None}
        return {
            "tokens": [one.text for one in piece.tokens],
            "token_logprobs": [one.logprob for one in piece.tokens],
            "top_logprobs": [_tops(one) for one in piece.tokens],
            "text_offset": [one.offset for one in piece.tokens],
        }


def _tops(one: TokenLine) -> dict[str, float] | None:
    """By text, the token itself included; of several tokens that look alike, the most likely."""
    if one.logprob is None:
        return None
    found = dict(reversed(one.top))
    if found:
        found.setdefault(one.text, one.logprob)
    return found


def _entry(text: str, logprob: float | None) -> dict[str, Any]:
    whole = None if "\ufffd" in text else list(text.encode())
    return {"token": text, "logprob": logprob, "bytes": whole}


def error(problem: BadRequest) -> dict[str, Any]:
    """An error as the protocol says it."""
    kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    return {"error": {"message": str(problem), "type": kind, "param": problem.param, "code": problem.code}}


def models(names: Sequence[str], created: int, max_tokens: int | None) -> dict[str, Any]:
    """What /v1/models says; `max_model_len` as vLLM."""
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": created, "owned_by": "lydite", "max_model_len": max_tokens}
            for name in names
        ],
    }
