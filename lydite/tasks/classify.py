"""Classification: one label for a text or a pair, asked in three ways with the same official metrics.

    score     log p(word | question) of each label's word (the sample's `choices`), worded as in lm-evaluation-harness
    generate  the model writes: T5's text-to-text input (Raffel et al. 2020, appendix D). With examples or a chat template
              there is no such form, and the question of the score view is answered in words instead.
    label     a classification head; or, where choices differ from sample to sample, one number a choice

A written answer is read as the label whose name or word it is, or begins with; else the status is "no_answer" and it
counts as wrong, in confusion statistics as a label of its own. Ties are shared (see lydite.metrics.choice).
"""

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from lydite.metrics import choice
from lydite.metrics.labels import confusion
from lydite.tasks.common import Samples, failed, failure, generate_request, score_request
from lydite.types import (
    Completion,
    Context,
    Decoding,
    GenerateRequest,
    LabelProbs,
    LabelRequest,
    LogProbs,
    Metric,
    Output,
    Request,
    Sample,
    Score,
    Task,
    View,
)

WORD = Decoding(max_new_tokens=16, stop_strings=("\n",))
ANSWERED = Metric(name="answered", unit="proportion")
"""Share of samples in whose output an answer was found: all that a split without gold labels can tell."""

Texts = Sequence[tuple[str, str | None]]
"""What heads read: one (text, pair) for all labels, or one for each choice."""


def classification_task(
    name: str,
    samples: Samples,
    question: Callable[[Sample], str],
    *,
    labels: Sequence[str],
    metrics: Sequence[Metric],
    text_to_text: Callable[[Sample], str],
    texts: Callable[[Sample], Texts],
    lead: str = " ",
    **fields: Any,
) -> Task:
    """A Task over samples with `choices` and `gold`; without gold (the test split of a server) only ANSWERED is scored.

    `labels`: official names, which heads and text-to-text answers use. `metrics`: the headline first; those with
    `finish` get confusion statistics. `lead` stands between question and word; `fields` go to Task.
    """
    labels = tuple(labels)
    metrics = tuple(metrics)
    extra = () if metrics == (ANSWERED,) else (choice.BRIER, choice.MARGIN)

    def score_view(sample: Sample, context: Context) -> Sequence[Request]:
        return [score_request(sample, i, context, lead, word) for i, word in enumerate(sample.choices)]

    def generate_view(sample: Sample, context: Context) -> Sequence[Request]:
        if context == question(sample):
            return [GenerateRequest(sample_id=sample.id, index=0, prompt=text_to_text(sample), decoding=WORD)]
        return [generate_request(sample, context, WORD)]

    def label_view(sample: Sample, context: Context) -> Sequence[Request]:
        pairs = texts(sample)
        names = labels if len(pairs) == 1 else ()
        return [
            LabelRequest(sample_id=sample.id, index=i, text=text, text_pair=pair, labels=names)
            for i, (text, pair) in enumerate(pairs)
        ]

    def score(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
        # One written answer, or one list of label probabilities, has neither a Brier score nor a margin in nats.
        asked = metrics + extra if len(outputs) > 1 else metrics
        reason = failure(outputs)
        if reason is not None:
            return failed(sample, asked, reason)
        shares, totals = prediction(sample, outputs, labels)
        return [_score(sample, shares, totals, metric) for metric in asked]

    views: dict[str, View] = {"score": score_view, "generate": generate_view, "label": label_view}
    return Task(
        name=name,
        samples=samples,
        prompt=question,
        shot=lambda sample: (question(sample), lead + sample.choices[sample.gold[0]]),
        views=views,
        score=score,
        metrics=metrics + extra,
        chance=lambda sample: _chance(sample, metrics + extra),
        **fields,
    )


def prediction(
    sample: Sample, outputs: Sequence[Output], labels: Sequence[str]
) -> tuple[list[float] | None, Sequence[float]]:
    """(share of the prediction that each choice has, or None where none was read; what they were chosen by)."""
    if isinstance(outputs[0], Completion):
        found = read_label(outputs[0].text, (labels, sample.choices))
        return (None if found is None else [float(i == found) for i in range(len(sample.choices))]), ()
    values: list[float] = []
    for output in outputs:
        assert isinstance(output, LogProbs | LabelProbs), f"{sample.id}: labels are scored by LogProbs or LabelProbs"
        values += [output.total] if isinstance(output, LogProbs) else output.probs
    assert len(values) == len(sample.choices), f"{sample.id}: {len(values)} numbers for {len(sample.choices)} choices"
    tied = choice.best(values)
    return [1 / len(tied) if i in tied else 0.0 for i in range(len(values))], values


def read_label(text: str, vocabularies: Sequence[Sequence[str]]) -> int | None:
    """Index of the label that the text is, or that it begins with (the longest such); None where there is none.

    Vocabularies are other names of the same labels. Case, white space, "_" and signs around the text do not count.
    """
    written = _plain(next((line for line in text.splitlines() if line.strip()), ""))
    best: tuple[int, int] | None = None
    for words in vocabularies:
        for index, word in enumerate(words):
            plain = _plain(word)
            if written == plain:
                return index
            spaced = plain[-1:].isascii() and plain[-1:].isalnum()
            rest = written[len(plain) :]
            begins = written.startswith(plain) and not (spaced and rest[:1].isalnum())
            if plain and begins and (best is None or len(plain) > best[0]):
                best = len(plain), index
    return None if best is None else best[1]


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold().replace("_", " ")
    while text and not text[-1].isalnum():
        text = text[:-1]
    while text and not text[0].isalnum():
        text = text[1:]
    return text


def _score(sample: Sample, shares: list[float] | None, totals: Sequence[float], metric: Metric) -> Score:
    value = 0.0
    stats: tuple[float, ...] = ()
    if metric is choice.BRIER:
        return Score(sample_id=sample.id, metric=metric.name, value=choice.brier(choice.softmax(totals), sample.gold))
    if metric is choice.MARGIN:
        return Score(sample_id=sample.id, metric=metric.name, value=choice.margin(totals, sample.gold))
    if metric is ANSWERED:
        value = float(shares is not None)
    else:
        [gold] = sample.gold
        value = shares[gold] if shares else 0.0
        stats = () if metric.finish is None else confusion(gold, shares, len(sample.choices))
    tied = [i for i, share in enumerate(shares or ()) if share]
    return Score(
        sample_id=sample.id,
        metric=metric.name,
        value=value,
        status="ok" if shares else "no_answer",
        stats=stats,
        answer=sample.choices[tied[0]] if tied else None,
        note="" if len(tied) < 2 else f"tie of {len(tied)} choices, shared",
    )


def _chance(sample: Sample, metrics: Sequence[Metric]) -> dict[str, float]:
    """What an even guess gets; F1 depends on how common the labels are, so a sample has no chance of it."""
    if not sample.gold:
        return {}
    known = choice.guessing(len(sample.choices), 1) | {"mcc": 0.0}
    return {metric.name: known[metric.name] for metric in metrics if metric.name in known}
