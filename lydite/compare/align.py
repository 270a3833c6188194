"""What makes a sample of one run the same as a sample of another."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import msgspec

from lydite.runs import LOGGED_BY
from lydite.types import GenerateRequest, Run, SampleRecord, ScoreRequest

Alignment = Literal["id", "document", "prompt"]
SAME: dict[Alignment, str] = {"id": "id and content", "document": "document", "prompt": "prompt"}


def alignment(runs: Sequence[Run]) -> Alignment:
    """Our own runs pair by id and content, lm-eval's logs by document, whatever was put around it; others by prompt."""
    systems = {run.environment.get(LOGGED_BY, "").split(" ")[0] for run in runs}
    if systems == {""}:
        return "id"
    return "document" if systems == {"lm-eval"} else "prompt"


def sample_key(record: SampleRecord, by: Alignment) -> tuple[str, bytes]:
    """(key, digest of what else must be equal)."""
    if by == "document":
        return record.id, b""
    if by == "prompt":
        return _digest("\x1e".join(prompts(record)).encode("utf-8", "replace")).hex(), b""
    return record.id, _digest(msgspec.json.encode(record.sample, order="sorted"))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def prompts(record: SampleRecord) -> list[str]:
    """What the model was shown, without white space around it: of choices every whole text, in alphabetical order."""
    asked = record.requests[: len(record.sample.choices) or None] or record.requests
    texts = []
    for request in asked:
        if isinstance(request, ScoreRequest | GenerateRequest) and request.messages:
            front = "\n\n".join(message.content for message in request.messages)
        else:
            front = request.context if isinstance(request, ScoreRequest) else ""
            front = request.prompt if isinstance(request, GenerateRequest) else front
        texts.append((front + request.continuation if isinstance(request, ScoreRequest) else front).strip())
    return sorted(set(texts)) if any(texts) else [record.sample.input.strip()]
