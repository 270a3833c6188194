"""Requests of the protocol as texts of the decoder, and the decoder's tokens as replies; no sockets here."""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from queue import Empty, SimpleQueue
from typing import Any

from lydite.engine.live import Events, Live, Ticket, Token
from lydite.engine.run import Likelihood
from lydite.engine.stops import has_stop
from lydite.engine.stream import TextStream
from lydite.engine.texts import Prompt
from lydite.errors import LyditeError
from lydite.serve.protocol import (
    MOST_PROMPTS,
    BadRequest,
    ChatAsked,
    TextAsked,
    decoding_of,
    num_top,
    seed_of,
)
from lydite.serve.replies import Piece, Replies, TokenLine, echoed, line, models
from lydite.types import Completion, Decoding, Failure, GenerateRequest, ModelInfo

_LOOK = 0.25
"""Seconds between two looks at whether the client is still there."""
MOST_OPEN = 1024
"""Texts that may run or wait; more are told to come again."""
Alive = Callable[[], bool]


class Gone(Exception):
    """The client has closed its connection."""


class Service:
    """Answers for one model. `defaults`: decoding options for what a request leaves out."""

    def __init__(self, live: Live, info: ModelInfo, defaults: Mapping[str, Any]) -> None:
        self.live = live
        self.info = info
        self.defaults = defaults
        self.texts = live.generator.texts
        self._created = int(time.time())
        self._lock = threading.Lock()
        """Some tokenizers cannot be used by two threads at a time."""

    def models(self) -> dict[str, Any]:
        """The one model."""
        return models([self.info.name], self._created, self.info.max_tokens)

    def whole(self, asked: TextAsked | ChatAsked, is_alive: Alive) -> dict[str, Any]:
        """The reply to a request that is not streamed."""
        job = self._job(asked)
        found: dict[int, list[Piece]] = {}
        for piece in job.pieces(is_alive):
            found.setdefault(piece.choice, []).append(piece)
        joined = [
            Piece(
                choice=choice,
                text="".join(piece.text for piece in pieces),
                tokens=tuple(token for piece in pieces for token in piece.tokens),
                finish=pieces[-1].finish,
            )
            for choice, pieces in sorted(found.items())
        ]
        return job.replies.whole(joined)

    def stream(self, asked: TextAsked | ChatAsked, is_alive: Alive) -> Generator[dict[str, Any], None, None]:
        """The chunks of a streamed reply; BadRequest before the first one if the request cannot be done."""
        job = self._job(asked)
        begun: set[int] = set()
        for piece in job.pieces(is_alive):
            if job.replies.chat and piece.choice not in begun:
                begun.add(piece.choice)
                yield job.replies.first(piece.choice)
            yield job.replies.chunk(piece)
        if asked.stream_options is not None and asked.stream_options.include_usage:
            yield job.replies.last()

    def _job(self, asked: TextAsked | ChatAsked) -> "_Job":
        if asked.model not in ("", self.info.name, self.info.source):
            raise BadRequest(
                f"the model {asked.model!r} is not here; this server has {self.info.name}",
                param="model",
                code="model_not_found",
                status=404,
            )
        with self._lock:
            prompts, shown = self._prompts(asked)
        if self.live.num_open + len(prompts) * asked.n > MOST_OPEN:
            raise BadRequest("too many texts are waiting; ask again later", code="overloaded", status=503)
        return _Job(self, asked, prompts, shown)

    def _prompts(self, asked: TextAsked | ChatAsked) -> tuple[list[list[int]], list[str]]:
        """The prompts as tokens, and as text."""
        encoder = self.texts.encoder
        if isinstance(asked, ChatAsked):
            try:
                text = encoder.render(asked.turns())
            except LyditeError as error:
                raise BadRequest(str(error), param="messages") from error
            return encoder.prompt_ids([text]), [text]
        given = asked.prompt
        numbers = [one for one in given if isinstance(one, int)]
        many: Sequence[str | int | list[int]] = [given] if isinstance(given, str) else [numbers] if numbers else given
        if 0 < len(numbers) < len(given):
            raise BadRequest("prompt mixes tokens with texts or lists", param="prompt")
        if not 0 < len(many) <= MOST_PROMPTS:
            raise BadRequest(f"prompt must hold 1 to {MOST_PROMPTS} prompts, not {len(many)}", param="prompt")
        ids, shown = [], []
        for one in many:
            if isinstance(one, str):
                ids += encoder.prompt_ids([one])
                shown.append(one)
            else:
                assert isinstance(one, list)
                self._check_ids(one)
                ids.append(one or list(encoder.lead))
                shown.append(encoder.decode(one, skip_special=True))
        return ids, shown

    def _check_ids(self, ids: Sequence[int]) -> None:
        size = len(self.texts.encoder.tokenizer)
        if ids and not 0 <= min(ids) <= max(ids) < size:
            raise BadRequest(f"prompt holds a token outside of the model's {size}", param="prompt")

    def check_likelihoods(self, decoding: Decoding) -> None:
        """BadRequest where single tokens have none."""
        if not self.live.generator.scorer.can_decode or decoding.num_beams > 1:
            raise BadRequest(
                "this model, as it is served here, gives no logprobs of new tokens; leave logprobs out",
                param="logprobs",
                code="unsupported",
            )

    def decoding(self, asked: TextAsked | ChatAsked, num_prompt: int, *, next_is_known: bool) -> Decoding:
        """The options for a prompt of so many tokens, if both fit into the model."""
        longest = self.info.max_tokens
        decoding = decoding_of(asked, self.defaults, None if longest is None else longest - num_prompt)
        new = 0 if next_is_known else decoding.max_new_tokens
        if longest is not None and num_prompt + new > longest:
            raise BadRequest(
                f"this model holds {longest} tokens, and {num_prompt + new} were asked for: {num_prompt} in the prompt and "
                f"{new} to be generated; shorten one of them",
                param="messages" if isinstance(asked, ChatAsked) else "prompt",
                code="context_length_exceeded",
            )
        return decoding


class _Writing:
    """One choice on its way."""

    def __init__(self, service: Service, choice: int, ids: Sequence[int], decoding: Decoding, offset: int) -> None:
        self._texts = service.texts
        self.choice = choice
        self._stream = TextStream(service.texts, ids, decoding)
        self._offset = offset

    def piece(self, token: Token) -> Piece | None:
        """What the token adds; None where that is nothing yet."""
        offset = self._offset + len(self._stream.sent)
        text = self._stream.push(token.id)
        tokens: tuple[TokenLine, ...] = ()
        if token.likelihood is not None and token.id not in self._texts.eos:
            tokens = (line(self._texts, token.id, offset, token.likelihood),)
        return Piece(self.choice, text, tokens) if text or tokens else None

    def last(self, answer: Completion) -> Piece:
        """What was held back, and why the text ends."""
        return Piece(self.choice, self._stream.rest(answer.text), (), answer.finish)


class _Job:
    """One request: its prompts, each continued `n` times."""

    def __init__(
        self, service: Service, asked: TextAsked | ChatAsked, prompts: Sequence[list[int]], shown: Sequence[str]
    ) -> None:
        self.service = service
        self.asked = asked
        self.prompts = prompts
        self.shown = shown
        self.num_top = num_top(asked)
        self.echo = isinstance(asked, TextAsked) and asked.echo
        wanted = asked.max_tokens if isinstance(asked, TextAsked) else None
        probe = decoding_of(asked, service.defaults, None)
        self.scores = self.echo and self.num_top is not None
        plain = not probe.do_sample and not probe.is_constrained and not has_stop(probe)
        plain = plain and probe.repetition_penalty == 1 and probe.presence_penalty == 0 and asked.n == 1
        self.next_is_known = self.echo and (wanted == 0 or (wanted == 1 and self.scores and plain))
        """The prompt's own pass says all that is asked for."""
        if self.num_top is not None and not self.next_is_known:
            service.check_likelihoods(probe)
        self.decodings = [service.decoding(asked, len(ids), next_is_known=self.next_is_known) for ids in prompts]
        self.replies = Replies(service.info.name, chat=isinstance(asked, ChatAsked), logprobs=self.num_top is not None)
        self.replies.counts.prompt_tokens = sum(len(ids) for ids in prompts)

    def pieces(self, is_alive: Alive) -> Iterator[Piece]:
        """Pieces of all choices as they come; the last of each has a `finish`."""
        if self.echo:
            heads = self._heads(is_alive)
            if self.next_is_known:
                yield from heads
                return
            yield from [Piece(piece.choice, piece.text, piece.tokens) for piece in heads]
        events: Events = SimpleQueue()
        writing: dict[Ticket, _Writing] = {}
        seed = seed_of(self.asked)
        for number, (ids, decoding) in enumerate(zip(self.prompts, self.decodings, strict=True)):
            for copy in range(self.asked.n):
                request = GenerateRequest(sample_id=f"{number}", index=copy, decoding=decoding, seed=seed)
                ticket = self.service.live.submit(ids, request, num_top=self.num_top, events=events)
                offset = len(self.shown[number]) if self.echo else 0
                writing[ticket] = _Writing(self.service, number * self.asked.n + copy, ids, decoding, offset)
        try:
            yield from self._follow(events, writing, is_alive)
        finally:
            for ticket in writing:
                ticket.cancel()

    def _follow(self, events: Events, writing: dict[Ticket, _Writing], is_alive: Alive) -> Iterator[Piece]:
        missing, looked = len(writing), time.monotonic()
        while missing:
            try:
                ticket, event = events.get(timeout=_LOOK)
            except Empty:
                event = None
            if time.monotonic() - looked >= _LOOK:
                looked = time.monotonic()
                if not is_alive():
                    raise Gone
            if isinstance(event, Token):
                piece = writing[ticket].piece(event)
                if piece is not None:
                    yield piece
            elif isinstance(event, Failure):
                raise _failed(event, ticket.request.decoding)
            elif event is not None:
                missing -= 1
                self.replies.counts.completion_tokens += event.num_tokens
                yield writing[ticket].last(event)

    def _heads(self, is_alive: Alive) -> list[Piece]:
        """The prompts themselves, with log-probabilities where asked for, and the next token where that is all."""
        if not self.scores:
            return [
                Piece(number * self.asked.n + copy, self.shown[number], (), "length")
                for number in range(len(self.prompts))
                for copy in range(self.asked.n)
            ]
        asked = [self.service.live.echo(ids, max(1, self.num_top or 0)) for ids in self.prompts]
        pieces = []
        for number, (ids, answer) in enumerate(zip(self.prompts, asked, strict=True)):
            try:
                found = answer.result()
            except (RuntimeError, CancelledError) as error:
                raise BadRequest(f"the decoder failed: {type(error).__name__}", status=500) from error
            if not is_alive():
                raise Gone
            if found is None:
                raise BadRequest("not a number among the model's log-probabilities", status=500)
            pieces += self._head(number, ids, found)
        return pieces

    def _head(self, number: int, ids: list[int], found: Sequence[Likelihood]) -> list[Piece]:
        texts, shown = self.service.texts, self.shown[number]
        tokens, text, finish = echoed(texts, ids, found), shown, "length"
        if self.next_is_known and self.asked.max_tokens == 1:
            token = found[-1].top[0][0]
            # Listed even where it ends the text, as vLLM does: lm-evaluation-harness takes the last one off unseen.
            tokens += (line(texts, token, len(shown), found[-1]),)
            self.replies.counts.completion_tokens += 1
            if token in texts.eos:
                finish = "stop"
            else:
                text += texts.text(Prompt(number, ids, 0), [token], skip_special=True)
        if not self.num_top:
            tokens = tuple(TokenLine(one.text, one.offset, one.logprob) for one in tokens)
        return [Piece(number * self.asked.n + copy, text, tokens, finish) for copy in range(self.asked.n)]


def _failed(failure: Failure, decoding: Decoding) -> BadRequest:
    """A form that cannot be used is the client's mistake; everything else is ours."""
    if failure.transient:
        return BadRequest(failure.reason, code="closed", status=503)
    return BadRequest(failure.reason, status=400 if decoding.is_constrained else 500)
