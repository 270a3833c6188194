"""Models behind a server that speaks the OpenAI protocol: vLLM, SGLang, llama.cpp, `transformers serve`, OpenAI ...

    openai:MODEL                             api.openai.com, or what OPENAI_BASE_URL names; key in OPENAI_API_KEY
    http://HOST[:PORT][/PATH][#MODEL]        any other, https alike. No PATH means /v1; without #MODEL the server must
                                             have exactly one model. Its key, where it asks for one, in LYDITE_API_KEY

Loading asks the server a few short questions: which models it has, whether it echoes a prompt with log-probabilities,
and, if it has no completions, whether it chats. `info.can` is what came out: no echo, no ScoreRequests.

Contract: log-probabilities are the server's own, by the rule `causal`, laid over the text that was sent
(server_tokens.py); a request that finally fails is a Failure, never an answer. The fingerprint is of the address and the
model's name: what stands behind them may change, and only the server's owner knows. No torch here.
"""

import hashlib
import math
import os
import sys
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from lydite.errors import ModelError
from lydite.models.server_answer import (
    CHARS_PER_TOKEN,
    CHAT,
    COMPLETIONS,
    ChatReply,
    Dialect,
    ServerModel,
    TextReply,
    generate_body,
    score_body,
)
from lydite.models.server_client import Client, Clock, Limiter, RequestFailed
from lydite.models.server_stream import run
from lydite.models.server_tokens import all_zero, read_echo
from lydite.types import Decoding, GenerateRequest, Message, ModelInfo, RequestKind

OPENAI = "https://api.openai.com/v1"
PROBE = "The quick brown fox jumps over the lazy dog."


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set key=value` may say about a model behind a server."""

    num_concurrent: int = 8
    """Requests under way at one time."""
    max_retries: int = 5
    """Further attempts after one that failed for a passing reason."""
    timeout: float = 300.0
    """Seconds that one attempt may take."""
    backoff: float = 0.5
    """Seconds before the second attempt; doubled for each further one, up to a minute, half of it random."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    """Prompt and generated tokens together."""
    api: Literal["auto", "completions", "chat"] = "auto"
    """Where plain prompts go. auto: to completions if the server has them. Messages always go to chat."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key, where it is not the default one."""
    lead: str = ""
    """Text of the special token to put before an empty context, for servers that put no BOS before a text."""
    max_tokens: int | None = None
    """Longest sequence, where the server does not say; for the record only."""
    extra_body: dict[str, Any] = {}
    """Fields that are added to each request, e.g. {"chat_template_kwargs": {"enable_thinking": false}}."""


class ListedModel(msgspec.Struct, frozen=True):
    id: str
    max_model_len: int | None = None


class ModelList(msgspec.Struct, frozen=True):
    """What /models answers."""

    data: list[ListedModel]


def load_server(spec: str, settings: Mapping[str, Any] | None = None, *, clock: Clock | None = None) -> ServerModel:
    """The model behind a server that `spec` names. ModelError where it cannot be reached or will not answer."""
    chosen = _settings(settings or {})
    url, name, key_name = parse_spec(spec)
    clock = clock or Clock()
    client = Client(
        url,
        key_name=chosen.api_key_env or key_name,
        max_retries=chosen.max_retries,
        timeout=chosen.timeout,
        backoff=chosen.backoff,
        limiter=Limiter(chosen.requests_per_minute, chosen.tokens_per_minute, clock),
        clock=clock,
    )
    dialect, listed, no_scores = run(lambda: _probe(client, name, chosen))
    can: tuple[RequestKind, ...] = ("generate",) if no_scores else ("score", "generate")
    if no_scores and not dialect.chat:
        print(f"lydite: {url} cannot score choices, only generate: {no_scores}", file=sys.stderr)
    said = {
        "server": url,
        "model": dialect.model,
        "api": "chat" if dialect.chat else "completions",
        "lead": dialect.lead,
        "extra_body": dialect.extra_body,
        "temperature": "" if dialect.greedy else "the server's own",
    }
    info = ModelInfo(
        name=PurePosixPath(dialect.model).name if dialect.model.startswith(("/", ".")) else dialect.model,
        family="server",
        rule="causal",
        can=can,
        max_tokens=chosen.max_tokens or listed.max_model_len,
        fingerprint=hashlib.sha256(f"{url}\n{dialect.model}".encode()).hexdigest()[:16],
        source=spec,
        settings={key: value for key, value in said.items() if value},
    )
    return ServerModel(info, client, dialect, num_concurrent=chosen.num_concurrent)


def parse_spec(spec: str) -> tuple[str, str, str]:
    """Address without a slash at its end, model's name (empty: the only one), variable that holds the key."""
    if spec.startswith("openai:"):
        url, name, key_name = (
            os.environ.get("OPENAI_BASE_URL", "").strip() or OPENAI,
            spec[7:].strip(),
            "OPENAI_API_KEY",
        )
        if not name:
            raise ModelError("openai: needs a model's name, as in openai:gpt-4.1-mini")
    else:
        url, _, name = spec.partition("#")
        key_name = "LYDITE_API_KEY"
    try:
        parts = urlsplit(url)
        found = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        found = False
    if not found:
        raise ModelError("the server's address must look like http://localhost:8000/v1; mend it")
    if parts.username or parts.password or parts.query or "@" in parts.netloc:
        raise ModelError(
            "a server's address must hold no name, password or query, because addresses are written into runs; "
            f"put a key into {key_name}"
        )
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}", name, key_name


def _settings(given: Mapping[str, Any]) -> ServerSettings:
    known = ServerSettings.__struct_fields__
    for key in given:
        if key not in known:
            raise ModelError(f"unknown setting {key!r} of a served model; known are {', '.join(sorted(known))}")
    try:
        chosen = msgspec.convert(dict(given), ServerSettings, strict=False)
    except msgspec.ValidationError as error:
        raise ModelError(f"a model setting has the wrong type: {error}") from error
    limits = {"requests_per_minute": chosen.requests_per_minute, "tokens_per_minute": chosen.tokens_per_minute}
    positive = limits | {
        "num_concurrent": chosen.num_concurrent,
        "timeout": chosen.timeout,
        "max_tokens": chosen.max_tokens,
    }
    for key, value in positive.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ModelError(f"{key} must be above 0, not {value}")
    if chosen.max_retries < 0 or not (math.isfinite(chosen.backoff) and chosen.backoff >= 0):
        raise ModelError("max_retries and backoff must be 0 or more")
    return chosen


# ----------------------------------------------------------------------------------------- asking the server


async def _probe(client: Client, name: str, chosen: ServerSettings) -> tuple[Dialect, ListedModel, str]:
    """How to ask, what the server says of the model, and why it cannot score (empty: it can)."""
    async with client:
        try:
            return await _questions(client, name, chosen)
        except RequestFailed as error:
            raise ModelError(f"{client.url} does not answer: {error.reason}") from error


async def _questions(client: Client, name: str, chosen: ServerSettings) -> tuple[Dialect, ListedModel, str]:
    listed = await _find_model(client, name)
    dialect = Dialect(model=listed.id, lead=chosen.lead, extra_body=chosen.extra_body)
    why = "--set api=chat"
    if chosen.api != "chat":
        try:
            return dialect, listed, await _why_no_scores(client, dialect)
        except RequestFailed as error:
            if chosen.api == "completions" or error.transient:
                raise
            why = error.reason
    return await _chat_dialect(client, dialect, why), listed, "it has no completions"


async def _find_model(client: Client, name: str) -> ListedModel:
    """The named model, or the only one. A server that keeps no list is believed where a name is given."""
    try:
        models = (await client.get("/models", ModelList, max_retries=0 if name else None)).data
    except RequestFailed as error:
        if name:
            return ListedModel(id=name)
        raise ModelError(
            f"{client.url} does not list its models ({error.reason}); mend the address or add #MODEL"
        ) from error
    names = ", ".join(model.id for model in models[:5]) + (" ..." if len(models) > 5 else "")
    if not name and len(models) != 1:
        raise ModelError(
            f"{client.url} has {len(models)} models; add one: {client.url}#MODEL ({names or 'none loaded'})"
        )
    found = models[0] if not name else next((model for model in models if model.id == name), None)
    # Some servers answer to names that they do not list (aliases, models that are loaded on demand).
    return found or ListedModel(id=name)


async def _why_no_scores(client: Client, dialect: Dialect) -> str:
    """Why the server's completions give no log-probabilities of a prompt; empty if they do. RequestFailed: it has none."""
    try:
        reply = await client.post(
            COMPLETIONS, score_body(dialect, PROBE), TextReply, num_tokens=len(PROBE) // CHARS_PER_TOKEN
        )
    except RequestFailed as error:
        if error.status in (404, 405):
            raise
        refused = error.reason
    else:
        usage = reply.usage
        echo = read_echo(reply.choices[0].logprobs, PROBE, usage.completion_tokens if usage else None)
        if isinstance(echo, str):
            return echo
        return "its log-probabilities are all 0" if all_zero(echo) else await _why_not_its_own(client, dialect)
    # It may know completions and refuse only `echo` or `logprobs`.
    body = generate_body(dialect, _hello(chat=False))
    await client.post(COMPLETIONS, body, TextReply, num_tokens=len(PROBE) // CHARS_PER_TOKEN)
    return refused


async def _why_not_its_own(client: Client, dialect: Dialect) -> str:
    """Why the echoed numbers cannot belong to the tokens beside them; empty if they may.

    What a server writes at temperature 0 is, token by token, what it finds most likely; so it must be when the same text
    is echoed. Where the tokenizer puts no BOS in front, llama-cpp-python 0.3 gives each token the number of the next place.
    """
    try:
        body = generate_body(dialect, _hello(chat=False))
        written = await client.post(COMPLETIONS, body, TextReply, num_tokens=len(PROBE) // CHARS_PER_TOKEN)
        text = PROBE + written.choices[0].text
        body = score_body(dialect, text)
        reply = await client.post(COMPLETIONS, body, TextReply, num_tokens=len(text) // CHARS_PER_TOKEN)
    except RequestFailed as error:
        if error.transient:
            raise
        return ""  # it has scored a sentence before; that it refuses these two says nothing against its numbers
    usage = reply.usage
    echo = read_echo(reply.choices[0].logprobs, text, usage.completion_tokens if usage else None)
    if isinstance(echo, str):
        return echo
    own = echo.most_likely(len(PROBE.encode()))
    if own and sum(own) < len(own) / 2:
        return (
            "its log-probabilities stand beside other tokens than their own: echoed, the text that it writes itself is not "
            f"what it finds most likely ({sum(own)} of {len(own)} tokens are)"
        )
    return ""


async def _chat_dialect(client: Client, dialect: Dialect, why: str) -> Dialect:
    """How the server wants its chat options named: newer OpenAI models take neither max_tokens nor temperature 0."""
    dialect = msgspec.structs.replace(dialect, chat=True)
    for _ in range(3):
        try:
            await client.post(
                CHAT, generate_body(dialect, _hello(chat=True)), ChatReply, num_tokens=len(PROBE) // CHARS_PER_TOKEN
            )
            return dialect
        except RequestFailed as error:
            reason = error.reason
            if "max_completion_tokens" in reason and dialect.length_name == "max_tokens":
                dialect = msgspec.structs.replace(dialect, length_name="max_completion_tokens")
            elif "temperature" in reason and dialect.greedy and not error.transient:
                dialect = msgspec.structs.replace(dialect, greedy=False)
            else:
                break
    raise ModelError(
        f"{client.url} answers neither completions ({why}) nor chat ({reason}) for {dialect.model}; mend its address or name"
    )


def _hello(*, chat: bool) -> GenerateRequest:
    decoding = Decoding(max_new_tokens=16)
    if chat:
        return GenerateRequest(
            sample_id="", index=0, messages=(Message(role="user", content="Say yes."),), decoding=decoding
        )
    return GenerateRequest(sample_id="", index=0, prompt=PROBE, decoding=decoding)
