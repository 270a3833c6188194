"""Multiple choice: log p(choice | question) for each choice, as full texts or as letters.

With full texts the score view asks for the text of each choice after the question, and accuracy comes with and
without a correction for length. A neutral question, if there is one, is asked too, so that choices which are likely
whatever is asked can be told from right ones. With letters the question lists the choices and the continuations are "A", "B" ...;
then the `generate` view is offered too, which lets the model write and reads the letter from its text.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from lydite.metrics import choice as metric
from lydite.metrics.extract import LETTERS, letter
from lydite.tasks.common import Samples, failed, failure, generate_request, score_request
from lydite.types import Completion, Context, Decoding, LogProbs, Metric, Output, Request, Sample, Score, Task, View

_LETTER = Decoding(max_new_tokens=16, stop_strings=("\n",))


def choice_task(
    name: str,
    samples: Samples,
    question: Callable[[Sample], str],
    *,
    letters: bool = False,
    lead: str = " ",
    description: str = "",
    neutral: str | None = None,
    **fields: Any,
) -> Task:
    """A Task over samples with `choices` and `gold`; `lead` stands between question and answer, `fields` go to Task.

    `neutral`: a question that says nothing, put in the place of the real one for `acc_pmi`.
    """
    metrics = _metrics(letters, neutral is not None)

    def prompt(sample: Sample) -> Context:
        return description + question(sample)

    def answer(sample: Sample, index: int) -> str:
        return LETTERS[index] if letters else sample.choices[index]

    def shot(sample: Sample) -> tuple[str, str]:
        return question(sample), lead + answer(sample, sample.gold[0])

    def score_view(sample: Sample, context: Context) -> Sequence[Request]:
        contexts = [context]
        if neutral is not None:
            contexts.append(_asked_nothing(context, question(sample), neutral))
        size = len(sample.choices)
        return [
            score_request(sample, turn * size + index, asked, lead, answer(sample, index))
            for turn, asked in enumerate(contexts)
            for index in range(size)
        ]

    def generate_view(sample: Sample, context: Context) -> Sequence[Request]:
        return [generate_request(sample, context, _LETTER)]

    views: dict[str, View] = {"score": score_view}
    if letters:
        views["generate"] = generate_view
    return Task(
        name=name,
        samples=samples,
        prompt=prompt,
        shot=shot,
        views=views,
        score=lambda sample, outputs: choice_scores(sample, outputs, metrics),
        metrics=metrics,
        chance=lambda sample: metric.guessing(len(sample.choices), len(set(sample.gold))),
        description=description,
        **fields,
    )


def _metrics(letters: bool, neutral: bool) -> tuple[Metric, ...]:
    # Letters are all equally long: a correction for length would repeat acc.
    lengths = () if letters else (metric.ACC_NORM, metric.ACC_BYTES)
    return (metric.ACC, *lengths, *((metric.ACC_PMI,) if neutral else ()), metric.BRIER, metric.MARGIN)


def _asked_nothing(context: Context, question: str, neutral: str) -> Context:
    """The context with the neutral question in the place of the sample's own; description and shots stay."""
    if isinstance(context, str):
        assert context.endswith(question), "a context ends in its question"
        return context.removesuffix(question) + neutral
    return (*context[:-1], msgspec.structs.replace(context[-1], content=neutral))


def choice_scores(sample: Sample, outputs: Sequence[Output], metrics: Sequence[Metric]) -> list[Score]:
    """Scores from one LogProbs a choice (twice as many where a neutral question was asked too), or from one Completion
    (then only acc: text has no probabilities)."""
    generated = len(outputs) == 1 < len(sample.choices)
    metrics = (metric.ACC,) if generated else metrics
    reason = failure(outputs)
    if reason is not None:
        return failed(sample, metrics, reason)
    if generated:
        assert isinstance(outputs[0], Completion), f"{sample.id}: one answer for {len(sample.choices)} choices"
        return [_letter_score(sample, outputs[0])]
    totals = []
    for output in outputs:
        assert isinstance(output, LogProbs), f"{sample.id}: choices are scored by LogProbs"
        totals.append(output.total)
    size = len(sample.choices)
    assert len(totals) in (size, 2 * size), f"{sample.id}: {len(totals)} answers for {size} choices"
    return [_score(sample, totals[:size], totals[size:], wanted) for wanted in metrics]


def _score(sample: Sample, totals: Sequence[float], neutral: Sequence[float], wanted: Metric) -> Score:
    values = totals
    if wanted is metric.ACC_PMI:
        values = [total - alone for total, alone in zip(totals, neutral, strict=True)]
    elif wanted is metric.ACC_NORM:
        values = [total / len(text) for total, text in zip(totals, sample.choices, strict=True)]
    elif wanted is metric.ACC_BYTES:
        values = [total / len(text.encode()) for total, text in zip(totals, sample.choices, strict=True)]
    if wanted is metric.BRIER:
        return Score(sample_id=sample.id, metric=wanted.name, value=metric.brier(metric.softmax(totals), sample.gold))
    if wanted is metric.MARGIN:
        return Score(sample_id=sample.id, metric=wanted.name, value=metric.margin(totals, sample.gold))
    tied = metric.best(values)
    return Score(
        sample_id=sample.id,
        metric=wanted.name,
        value=metric.accuracy(values, sample.gold),
        answer=sample.choices[tied[0]],
        note="" if len(tied) == 1 else f"tie of {len(tied)} choices, shared",
    )


def _letter_score(sample: Sample, output: Completion) -> Score:
    found = letter(output.text, len(sample.choices))
    if found is None:
        return Score(sample_id=sample.id, metric="acc", value=0.0, status="no_answer")
    right = LETTERS.index(found) in sample.gold
    return Score(sample_id=sample.id, metric="acc", value=float(right), answer=found)
