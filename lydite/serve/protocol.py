"""What a client may ask for, read strictly: unknown fields, and known ones that cannot be honoured, are refused.

The names are the protocol's; `top_k`, `min_p`, `typical_p`, `repetition_penalty`, `regex` and `choices` go beyond it, under
the names of Decoding. What a request leaves out is what the server was started with (`--set`), else the protocol's default.
"""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from lydite.errors import LyditeError
from lydite.types import Decoding, Message

MOST_SEQUENCES = 64
MOST_PROMPTS = 256
MOST_TOP = 20
CHAT_TOKENS = 1024
"""New tokens of a chat turn that names no number; a completion gets 16, as the protocol says."""
Count = Annotated[int, msgspec.Meta(ge=0)]
Stop = str | list[str] | None


class BadRequest(LyditeError):
    """What the client is told: status, kind of error, one line, and the field that it is about."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(" ".join(message.split()))
        self.param = param
        self.code = code
        self.status = status


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool = False


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that both endpoints take."""

    model: str = ""
    max_tokens: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MOST_SEQUENCES)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: Stop = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float = 0.0
    logit_bias: dict[str, float] | None = None
    user: Any = None
    """These three are for the client's own books."""
    metadata: Any = None
    store: Any = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    regex: str | None = None
    choices: list[str] | None = None


class TextAsked(Sampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of /v1/completions."""

    prompt: str | list[str | int | list[int]]
    """A text, the tokens of one, or several texts or lists of tokens."""
    echo: bool = False
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=MOST_TOP)] | bool | None = None
    best_of: int | None = None
    suffix: str | None = None


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    content: str | list[Part]
    name: str | None = None


class JsonSchema(msgspec.Struct, frozen=True):
    schema: dict[str, Any]


class Format(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatAsked(Sampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Turn], msgspec.Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=MOST_TOP)] | None = None
    response_format: Format | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None

    def turns(self) -> tuple[Message, ...]:
        """The messages as the chat template takes them."""
        texts = [
            t.content if isinstance(t.content, str) else "".join(part.text for part in t.content) for t in self.messages
        ]
        try:
            return tuple(
                msgspec.convert({"role": turn.role, "content": text}, Message)
                for turn, text in zip(self.messages, texts, strict=True)
            )
        except msgspec.ValidationError as error:
            raise BadRequest(f"messages: {error}", param="messages") from error


_OPTIONS = ("temperature", "top_p", "top_k", "min_p", "typical_p", "presence_penalty", "repetition_penalty", "regex")
Asked = TypeVar("Asked", TextAsked, ChatAsked)


def read(body: bytes, as_type: type[Asked]) -> Asked:
    """A request's body; BadRequest for what is no JSON, unknown, of the wrong type, or cannot be honoured."""
    try:
        asked = msgspec.json.decode(body, type=as_type)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error), code="invalid_value") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}", code="invalid_json") from error
    refused: dict[str, bool] = {
        "frequency_penalty": asked.frequency_penalty != 0,
        "logit_bias": bool(asked.logit_bias),
    }
    if isinstance(asked, TextAsked):
        refused |= {"suffix": bool(asked.suffix), "best_of": asked.best_of not in (None, asked.n)}
    else:
        refused |= {"tools": bool(asked.tools), "tool_choice": asked.tool_choice not in (None, "none", "auto")}
    for name, is_refused in refused.items():
        if is_refused:
            raise BadRequest(f"{name} is not offered here; leave it out", param=name, code="unsupported")
    return asked


def decoding_of(asked: TextAsked | ChatAsked, defaults: Mapping[str, Any], room: int | None) -> Decoding:
    """The options of a request over those of the server. `room`: new tokens that the model's length leaves after the
    prompt; a number of tokens that was not asked for gives way to it."""
    options: dict[str, Any] = {"temperature": 1.0} | dict(defaults)
    asked_for = asked.max_tokens if isinstance(asked, TextAsked) else asked.max_completion_tokens or asked.max_tokens
    if asked_for is not None:
        options["max_new_tokens"] = max(1, asked_for)  # an echo alone asks for 0
    else:
        usual = options.get("max_new_tokens", 16 if isinstance(asked, TextAsked) else CHAT_TOKENS)
        options["max_new_tokens"] = max(1, usual if room is None else min(usual, room))
    given = msgspec.structs.asdict(asked)
    options |= {name: given[name] for name in _OPTIONS if given[name] is not None}
    options["do_sample"] = (
        options["temperature"] != 0 if asked.temperature is not None else options.get("do_sample", True)
    )
    if options["temperature"] == 0:
        options |= {"do_sample": False, "temperature": 1.0}
    if asked.choices:
        options["choices"] = tuple(asked.choices)
    if asked.stop:
        options["stop_strings"] = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop)
    if isinstance(asked, ChatAsked) and asked.response_format is not None:
        options |= _form(asked.response_format)
    try:
        return msgspec.convert(options, Decoding)
    except (msgspec.ValidationError, ValueError) as error:
        raise BadRequest(str(error), code="invalid_value") from error


def _form(form: Format) -> dict[str, Any]:
    if form.type == "text":
        return {}
    if form.type == "json_object":
        return {"json_schema": {"type": "object"}}
    if form.json_schema is None:
        raise BadRequest("response_format json_schema needs json_schema.schema", param="response_format")
    return {"json_schema": form.json_schema.schema}


def num_top(asked: TextAsked | ChatAsked) -> int | None:
    """How many of the most likely tokens to name beside each token; None: no log-probabilities."""
    if isinstance(asked, TextAsked):
        return None if asked.logprobs is None or asked.logprobs is False else int(asked.logprobs)
    if not asked.logprobs:
        if asked.top_logprobs is not None:
            raise BadRequest("top_logprobs needs logprobs=true", param="top_logprobs")
        return None
    return asked.top_logprobs or 0


def seed_of(asked: Sampling) -> int:
    """The request's seed, or a new one."""
    return secrets.randbits(48) if asked.seed is None else asked.seed
