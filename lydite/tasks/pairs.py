"""Minimal pairs: two texts that differ in one point, of which the model should find the good one more likely.

A pair is one sample with two choices, never two samples. Each text is scored whole, from the beginning of a sequence
or after a given context. A tie counts one half, so the place of the good text does not matter and a model that finds
everything alike lands on 0.5.
"""

from collections.abc import Callable, Sequence
from typing import Any

from lydite.metrics.choice import ACC, MARGIN
from lydite.tasks.choice import choice_scores
from lydite.tasks.common import Samples, score_request
from lydite.types import Context, Output, Request, Sample, Score, Task

_METRICS = (ACC, MARGIN)


def pairs_task(
    name: str, samples: Samples, *, context: Callable[[Sample], str] = lambda sample: "", lead: str = "", **fields: Any
) -> Task:
    """A Task over samples with two `choices`; `context` is read before the text, and `lead` stands between them."""

    def view(sample: Sample, context: Context) -> Sequence[Request]:
        assert len(sample.choices) == 2, f"{sample.id} is not a pair"
        return [score_request(sample, index, context, lead, text) for index, text in enumerate(sample.choices)]

    def score(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
        return choice_scores(sample, outputs, _METRICS)

    return Task(
        name=name,
        samples=samples,
        prompt=context,
        views={"score": view},
        score=score,
        metrics=_METRICS,
        chance=lambda sample: {"acc": 0.5},
        **fields,
    )
