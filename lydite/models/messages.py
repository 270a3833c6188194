"""What the processes of one run say to each other (team.py carries it), as records and as JSON.

Contract: `decode(encode(message))` is equal to the message, numbers bit for bit and lone surrogates included.
"""

import json
from typing import Any

import msgspec

from lydite.types import ModelInfo, Output, Record, Request


class Load(Record, frozen=True, kw_only=True):
    """Load this model; the leader has fetched it already. The arguments of load_model."""

    spec: str
    dtype: str
    device: str
    trust_remote_code: bool
    settings: dict[str, Any]


class Loaded(Record, frozen=True, kw_only=True):
    info: ModelInfo


class Work(Record, frozen=True, kw_only=True):
    """Answer these; `block` numbers the leader's calls of `answer`."""

    block: int
    requests: tuple[Request, ...]


class Answers(Record, frozen=True, kw_only=True):
    """(position among the Work's requests, output), as many as were ready, and the tokens spent since the last ones."""

    block: int
    answers: tuple[tuple[int, Output], ...]
    tokens_requested: int
    tokens_computed: int
    tokens_generated: int


class Trouble(Record, frozen=True, kw_only=True):
    """What was asked cannot be done: one line for the user."""

    line: str


class Over(Record, frozen=True, kw_only=True):
    """No more work; end with exit code 0."""


Message = Load | Loaded | Work | Answers | Trouble | Over
_DECODER: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encode(message: Message) -> str:
    """As JSON."""
    try:
        return msgspec.json.encode(message).decode()
    except UnicodeEncodeError:  # half of a surrogate pair in a text: ASCII can escape it
        return json.dumps(msgspec.to_builtins(message))


def decode(data: bytes) -> Message:
    """The record that `encode` was given."""
    try:
        return _DECODER.decode(data)
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(data), Message)  # type: ignore[no-any-return]
