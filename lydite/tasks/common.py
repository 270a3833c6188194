"""What the families of tasks share: requests from a context of either kind, and the scores of a failed sample."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lydite.types import (
    Context,
    Decoding,
    Failure,
    GenerateRequest,
    Metric,
    Output,
    Sample,
    Score,
    ScoreRequest,
)

Samples = Callable[[str], Iterable[Sample]]
"""Split to samples, as in Task.samples."""


def score_request(sample: Sample, index: int, context: Context, lead: str, answer: str) -> ScoreRequest:
    """Asks for log p(lead + answer | context). After a chat template the answer begins a turn, so the lead is dropped."""
    if isinstance(context, str):
        return ScoreRequest(sample_id=sample.id, index=index, context=context, continuation=lead + answer)
    return ScoreRequest(sample_id=sample.id, index=index, messages=context, continuation=answer.lstrip(" "))


def generate_request(sample: Sample, context: Context, decoding: Decoding) -> GenerateRequest:
    """Asks for text after the context."""
    if isinstance(context, str):
        return GenerateRequest(sample_id=sample.id, index=0, prompt=context, decoding=decoding)
    return GenerateRequest(sample_id=sample.id, index=0, messages=context, decoding=decoding)


def failure(outputs: Sequence[Output]) -> str | None:
    """The reason of the first Failure among the outputs. One failed request fails its whole sample."""
    return next((output.reason for output in outputs if isinstance(output, Failure)), None)


def failed(sample: Sample, metrics: Sequence[Metric], reason: str) -> list[Score]:
    """One Score with status "error" for each metric."""
    return [
        Score(sample_id=sample.id, metric=metric.name, value=None, status="error", note=reason) for metric in metrics
    ]


def fingerprint(parts: Sequence[str], files: Sequence[Path] = ()) -> str:
    """Hash of templates and the contents of data files. Files that are missing are left out."""
    digest = hashlib.sha256("\x1f".join(parts).encode())
    for path in files:
        if path.is_file():
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
