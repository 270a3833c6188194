"""Held-out text: how surprised a model is by documents, in bits per byte and as perplexities.

Each document is scored alone, every token with the most context that the model allows. Words and bytes are those of
the text as its users know it: a benchmark that cleans its text before scoring counts the original, and stores both
counts in the sample's fields `num_words` and `num_bytes`.
"""

from collections.abc import Sequence
from typing import Any

from lydite.metrics.perplexity import (
    BITS_PER_BYTE,
    BYTE_PERPLEXITY,
    WORD_PERPLEXITY,
    num_bytes,
    num_words,
    rate_score,
)
from lydite.tasks.common import Samples, failed, failure
from lydite.types import Context, LogProbs, Output, Request, Sample, Score, ScoreRequest, Task


def heldout_task(name: str, samples: Samples, *, words: bool = True, **fields: Any) -> Task:
    """A Task over samples whose `input` is scored. `words`: False for languages written without spaces."""
    metrics = (BITS_PER_BYTE, BYTE_PERPLEXITY, WORD_PERPLEXITY) if words else (BITS_PER_BYTE, BYTE_PERPLEXITY)

    def view(sample: Sample, context: Context) -> Sequence[Request]:
        assert context == "", f"{sample.id}: held-out text has no context"
        return [ScoreRequest(sample_id=sample.id, index=0, continuation=sample.input, window="max_context")]

    def score(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
        reason = failure(outputs)
        if reason is not None:
            return failed(sample, metrics, reason)
        [output] = outputs
        assert isinstance(output, LogProbs), f"{sample.id}: text is scored by LogProbs"
        units = {WORD_PERPLEXITY.name: sample.fields.get("num_words", num_words(sample.input))}
        size = sample.fields.get("num_bytes", num_bytes(sample.input))
        return [rate_score(metric, sample.id, -output.total, units.get(metric.name, size)) for metric in metrics]

    return Task(name=name, samples=samples, views={"score": view}, score=score, metrics=metrics, **fields)
