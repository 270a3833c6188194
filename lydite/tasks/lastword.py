"""Last-word prediction: log p(last word | the passage before it), and whether greedy decoding would write it.

`acc`: every token of the word is the most likely one given those before it. `perplexity`: exp of the mean surprise
of the last words. It is a perplexity per word, one a passage, and not per token; lm-evaluation-harness prints it
under this name for LAMBADA.
"""

from collections.abc import Callable, Sequence
from typing import Any

from lydite.metrics.choice import ACC
from lydite.metrics.perplexity import PERPLEXITY, rate_score
from lydite.tasks.common import Samples, failed, failure, score_request
from lydite.types import Context, LogProbs, Output, Request, Sample, Score, Task

_METRICS = (ACC, PERPLEXITY)


def last_word_task(
    name: str,
    samples: Samples,
    *,
    context: Callable[[Sample], str] = lambda sample: sample.input,
    lead: str = " ",
    description: str = "",
    **fields: Any,
) -> Task:
    """A Task over samples with one `target`, the word, which follows `lead` after the context. Nobody can guess among
    all words, so chance is left out."""

    def shot(sample: Sample) -> tuple[str, str]:
        return context(sample), lead + sample.targets[0]

    def view(sample: Sample, context: Context) -> Sequence[Request]:
        return [score_request(sample, 0, context, lead, sample.targets[0])]

    return Task(
        name=name,
        samples=samples,
        prompt=lambda sample: description + context(sample),
        shot=shot,
        views={"score": view},
        score=_score,
        metrics=_METRICS,
        description=description,
        **fields,
    )


def _score(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
    reason = failure(outputs)
    if reason is not None:
        return failed(sample, _METRICS, reason)
    [output] = outputs
    assert isinstance(output, LogProbs), f"{sample.id}: a word is scored by LogProbs"
    return [
        Score(sample_id=sample.id, metric=ACC.name, value=float(output.greedy)),
        rate_score(PERPLEXITY, sample.id, -output.total, 1),
    ]
