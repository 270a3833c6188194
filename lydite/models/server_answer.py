"""Requests as bodies of the OpenAI protocol, and its replies as answers; see server.py.

Contract: exactly one answer a request, as they arrive. Score requests of one sample that share a context are answered
together, because they share the token from which they are scored. What the protocol cannot say is refused, not dropped.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from lydite.engine.stops import stop_in
from lydite.errors import ModelError
from lydite.models.server_client import Client, RequestFailed
from lydite.models.server_stream import Put, stream
from lydite.models.server_tokens import Echo, EchoedTokens, read_echo, score_group
from lydite.types import (
    Completion,
    Decoding,
    Failure,
    GenerateRequest,
    ModelInfo,
    Output,
    Request,
    ScoreRequest,
    Usage,
)

COMPLETIONS, CHAT = "/completions", "/chat/completions"
MOST_STOPS = 4
"""Stop strings that the protocol takes; at the others the text is cut here."""
CHARS_PER_TOKEN = 4
"""For the limit of tokens a minute, until the server says how many there were."""
_SEED_RANGE = 2**31
"""Some servers keep seeds in 32 bits."""
_SAMPLED = ("top_p", "top_k", "min_p", "typical_p")
"""Options that only sampling obeys."""
_ALWAYS = ("repetition_penalty", "presence_penalty")
_DEFAULTS: dict[str, Any] = msgspec.to_builtins(Decoding())


class CachedTokens(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class TokenCounts(msgspec.Struct, frozen=True):
    """`usage` of a reply."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: CachedTokens | None = None


class TextChoice(msgspec.Struct, frozen=True):
    text: str
    logprobs: EchoedTokens | None = None
    finish_reason: str | None = None


class TextReply(msgspec.Struct, frozen=True):
    """What /completions answers."""

    choices: Annotated[list[TextChoice], msgspec.Meta(min_length=1)]
    usage: TokenCounts | None = None


class ChatTurn(msgspec.Struct, frozen=True):
    content: str | None = None
    refusal: str | None = None


class ChatChoice(msgspec.Struct, frozen=True):
    message: ChatTurn
    finish_reason: str | None = None


class ChatReply(msgspec.Struct, frozen=True):
    """What /chat/completions answers."""

    choices: Annotated[list[ChatChoice], msgspec.Meta(min_length=1)]
    usage: TokenCounts | None = None


Reply = TypeVar("Reply", TextReply, ChatReply)


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How this server wants to be asked."""

    model: str
    chat: bool = False
    """Plain prompts go as one user message, because there are no completions."""
    length_name: str = "max_tokens"
    """What /chat/completions calls max_new_tokens."""
    greedy: bool = True
    """Whether it takes temperature 0."""
    lead: str = ""
    extra_body: dict[str, Any] = {}


def score_body(dialect: Dialect, text: str) -> dict[str, Any]:
    """Asks for the echo of a text with its log-probabilities; one token is generated because some servers must."""
    asked = {"model": dialect.model, "prompt": text, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    return asked | dialect.extra_body


def generate_body(dialect: Dialect, request: GenerateRequest) -> dict[str, Any]:
    """A GenerateRequest as the protocol says it; ModelError for what it cannot say."""
    decoding = request.decoding
    _refuse_unknown(decoding)
    body: dict[str, Any] = {"model": dialect.model}
    if uses_chat(dialect, request):
        turns = [(m.role, m.content) for m in request.messages] or [("user", request.prompt)]
        body["messages"] = [{"role": role, "content": content} for role, content in turns]
        body[dialect.length_name] = decoding.max_new_tokens
    else:
        body["prompt"] = request.prompt or dialect.lead
        body["max_tokens"] = decoding.max_new_tokens
    body |= _sampling(decoding, request.seed, dialect)
    if decoding.stop_strings:
        body["stop"] = list(decoding.stop_strings[:MOST_STOPS])
    return body | dialect.extra_body


def uses_chat(dialect: Dialect, request: GenerateRequest) -> bool:
    """Whether the request goes to /chat/completions, where the server applies its own template."""
    return dialect.chat or bool(request.messages)


def _sampling(decoding: Decoding, seed: int, dialect: Dialect) -> dict[str, Any]:
    """Options beyond the defaults, by name: vLLM, SGLang and llama.cpp know more than OpenAI, and a server that does not
    know one refuses it."""
    changed = {
        name: value
        for name, value in msgspec.to_builtins(decoding).items()
        if name in (*_SAMPLED, *_ALWAYS) and value != _DEFAULTS[name]
    }
    if decoding.do_sample:
        return changed | {"temperature": decoding.temperature, "seed": seed % _SEED_RANGE}
    greedy = {"temperature": 0} if dialect.greedy else {}
    return {name: value for name, value in changed.items() if name in _ALWAYS} | greedy


def _refuse_unknown(decoding: Decoding) -> None:
    """ModelError for an option that has no name in the protocol."""
    said = {
        *_SAMPLED,
        *_ALWAYS,
        "max_new_tokens",
        "stop_strings",
        "one_line",
        "do_sample",
        "temperature",
        "length_penalty",
    }
    for name, value in msgspec.to_builtins(decoding).items():
        if name not in said and value != _DEFAULTS[name]:
            raise ModelError(f"a server cannot be asked for {name}={value}; leave that option out")


def read_text(text: str, finish: str | None, num_tokens: int, decoding: Decoding) -> Completion | Failure:
    """A generated text, cut before what ends it."""
    end = stop_in(text, decoding)
    if end is not None:
        return Completion(text=text[:end], num_tokens=num_tokens, finish="stop")
    if finish == "stop":
        return Completion(text=text, num_tokens=num_tokens, finish="stop")
    if finish == "length":
        return Completion(text=text, num_tokens=num_tokens, finish="length")
    return Failure(reason=f"the server ended the text for another reason: {finish or 'it gave none'}")


class _Group:
    """Score requests of one sample with one context."""

    def __init__(self, size: int, border: int) -> None:
        self.border = border
        self.missing = size
        self.echoes: dict[int, Echo] = {}


class ServerModel:
    """Answers ScoreRequests (where the server echoes log-probabilities) and GenerateRequests."""

    def __init__(
        self, info: ModelInfo, client: Client, dialect: Dialect, *, num_concurrent: int, patience: int | None = None
    ) -> None:
        self.info = info
        self.usage = Usage()
        self._client = client
        self._dialect = dialect
        self._num_concurrent = num_concurrent
        self._patience = patience or max(10, 2 * num_concurrent)
        self._lost = 0
        """Requests in a row that the server could not be brought to answer."""

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one (position, output) for each request, as they arrive. ModelError where none can be answered."""
        if any(isinstance(request, ScoreRequest) and request.messages for request in requests):
            raise ModelError(
                "a server applies its chat template by itself, so the continuation of messages cannot be scored there; "
                "leave --chat out, or choose --set view=generate"
            )
        for request in requests:  # what cannot be said is refused before anything is sent
            if isinstance(request, GenerateRequest):
                generate_body(self._dialect, request)

        def produce(put: Put[tuple[int, Output]]) -> Coroutine[Any, Any, None]:
            return self._answer_all(requests, put)

        yield from stream(produce)

    async def _answer_all(self, requests: Sequence[Request], put: Put[tuple[int, Output]]) -> None:
        groups = self._groups(requests)
        waiting = iter(enumerate(requests))

        async def work() -> None:
            for position, request in waiting:  # one iterator for all: each takes the next
                if isinstance(request, GenerateRequest):
                    put((position, await self._generate(request)))
                elif isinstance(request, ScoreRequest) and "score" in self.info.can:
                    for answer in await self._score(position, request, groups[position]):
                        put(answer)
                else:
                    put((position, Failure(reason=f"this server cannot answer a {type(request).__name__}")))

        async with self._client, asyncio.TaskGroup() as tasks:
            for _ in range(min(self._num_concurrent, len(requests))):
                tasks.create_task(work())

    def _text(self, request: ScoreRequest) -> tuple[str, int]:
        """The text to send, and the length in bytes of its context."""
        context = request.context or self._dialect.lead
        return context + request.continuation, len(context.encode("utf-8", "surrogatepass"))

    def _groups(self, requests: Sequence[Request]) -> dict[int, _Group]:
        members: dict[tuple[str, str], list[int]] = {}
        for position, request in enumerate(requests):
            if isinstance(request, ScoreRequest):
                members.setdefault((request.sample_id, request.context), []).append(position)
        found = {}
        for positions in members.values():
            first = requests[positions[0]]
            assert isinstance(first, ScoreRequest)
            group = _Group(len(positions), self._text(first)[1])
            found.update(dict.fromkeys(positions, group))
        return found

    async def _score(self, position: int, request: ScoreRequest, group: _Group) -> list[tuple[int, Output]]:
        """What can be said now: a failure of this request, and the group's scores once its last echo is here."""
        said: list[tuple[int, Output]] = []
        echo = await self._echo(request)
        if isinstance(echo, Echo):
            group.echoes[position] = echo
        else:
            said.append((position, echo))
        group.missing -= 1
        if group.missing == 0 and group.echoes:
            said += zip(group.echoes, score_group(list(group.echoes.values()), group.border), strict=True)
        return said

    async def _echo(self, request: ScoreRequest) -> Echo | Failure:
        if not request.continuation:
            return Failure(reason="the continuation is empty")
        text, _ = self._text(request)
        reply = await self._ask(COMPLETIONS, score_body(self._dialect, text), TextReply, len(text), 1)
        if isinstance(reply, Failure):
            return reply
        found = read_echo(reply.choices[0].logprobs, text, reply.usage.completion_tokens if reply.usage else None)
        return Failure(reason=found) if isinstance(found, str) else found

    async def _generate(self, request: GenerateRequest) -> Output:
        body, decoding = generate_body(self._dialect, request), request.decoding
        size = len(request.prompt) + sum(len(message.content) for message in request.messages)
        if not uses_chat(self._dialect, request):
            reply = await self._ask(COMPLETIONS, body, TextReply, size, decoding.max_new_tokens)
            if isinstance(reply, Failure):
                return reply
            text, finish, usage = reply.choices[0].text, reply.choices[0].finish_reason, reply.usage
        else:
            answer = await self._ask(CHAT, body, ChatReply, size, decoding.max_new_tokens)
            if isinstance(answer, Failure):
                return answer
            turn, finish = answer.choices[0].message, answer.choices[0].finish_reason
            text, usage = turn.content or turn.refusal or "", answer.usage
        count = (usage.completion_tokens if usage else None) or 0
        self.usage.tokens_generated += count
        return read_text(text, finish, count, decoding)

    async def _ask(
        self, path: str, body: dict[str, Any], as_type: type[Reply], size: int, max_new_tokens: int
    ) -> Reply | Failure:
        """One reply, counted; a Failure where there is none."""
        estimated = size // CHARS_PER_TOKEN + max_new_tokens
        try:
            reply = await self._client.post(path, body, as_type, num_tokens=estimated)
        except RequestFailed as error:
            if error.status in (404, 405):
                raise ModelError(
                    f"{self._client.url} does not offer {path} for {self._dialect.model} ({error.reason})"
                    + ("; leave --chat out" if path == CHAT and not self._dialect.chat else "")
                ) from error
            self._lost = self._lost + 1 if error.transient else 0
            if self._lost >= self._patience:
                raise ModelError(
                    f"{self._client.url} did not answer the last {self._lost} requests ({error.reason}); "
                    "when it is back, the same command continues"
                ) from error
            return Failure(reason=error.reason, transient=error.transient)
        self._lost = 0
        counts = reply.usage or TokenCounts()
        asked = counts.prompt_tokens or 0
        kept = counts.prompt_tokens_details.cached_tokens if counts.prompt_tokens_details else 0
        self.usage.tokens_requested += asked
        self.usage.tokens_computed += max(0, asked - (kept or 0))
        if asked:
            self._client.limiter.correct(estimated, asked + (counts.completion_tokens or 0))
        return reply
