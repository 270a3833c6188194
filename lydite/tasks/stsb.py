"""STS-B: how alike two sentences are, a number from 0 to 5 (Cer et al. 2017), as in GLUE.

score     log p of "0" to "5" after the question; the answer is their mean under the softmax. The wording is ours, since
          lm-evaluation-harness has no such task.
generate  T5's text-to-text input; the number that the model writes. One that cannot be read counts as -1, as in T5.
label     a regression head's number
"""

import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lydite.metrics.choice import softmax
from lydite.metrics.labels import PEARSON, PEARSON_SPEARMAN, SPEARMAN
from lydite.tasks.classify import ANSWERED, WORD
from lydite.tasks.common import failed, failure, generate_request, score_request
from lydite.tasks.entry import Entry, with_server
from lydite.tasks.glue_files import REPOSITORY, read_glue
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import (
    Completion,
    Context,
    GenerateRequest,
    LabelProbs,
    LabelRequest,
    LogProbs,
    Output,
    Request,
    Sample,
    Score,
    Task,
)

SOURCE = "https://ixa2.si.ehu.eus/stswiki/index.php/STSbenchmark"
LICENCE = "CC BY-SA 4.0"
GRADES = tuple("012345")
METRICS = (PEARSON_SPEARMAN, PEARSON, SPEARMAN)
UNREADABLE = -1.0
"""The value of an answer that is no number (T5's `string_to_float`)."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def entries() -> list[Entry]:
    """glue_stsb and its unlabelled test split."""
    entry = Entry(
        name="glue_stsb",
        kind="regression",
        source=SOURCE,
        licence=LICENCE,
        description="How alike are two sentences, 0 to 5?",
        load=partial(load, False),
        listed=False,
        splits="train 5,749, dev 1,500 (evaluated), test 1,379 (labels public in the original release)",
        chance="pearson 0, spearman 0",
        defects="from six choices the answer is a mean under the softmax; other systems score STS-B only after training",
    )
    return with_server(entry, partial(load, True))


def load(server: bool, data_dir: Path | None) -> Task:
    """The task, or its unlabelled test split."""
    source = Source(
        original=SOURCE,
        files={"test": (f"glue/STS-B/{'test' if server else 'dev'}.tsv",), "shots": ("glue/STS-B/train.tsv",)},
        read=read_glue,
        repository=REPOSITORY,
        configuration="stsb",
        splits={"test": "test" if server else "validation", "shots": "train"},
    )
    found = find("glue_stsb_test" if server else "glue_stsb", source, data_dir)
    metrics = (ANSWERED,) if server else METRICS
    return Task(
        name=found.name,
        samples=samples_of(found, partial(_sample, server), ids="row"),
        prompt=_question,
        shot=lambda sample: (_question(sample), f" {float(sample.targets[0]):.0f}"),
        views={"score": _score_view, "generate": _generate_view, "label": _label_view},
        score=lambda sample, outputs: _scores(sample, outputs, metrics),
        metrics=metrics,
        chance=lambda sample: {} if server else {metric.name: 0.0 for metric in metrics},
        source=SOURCE,
        licence=LICENCE,
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )


def _sample(server: bool, id: str, row: dict[str, Any]) -> Sample:
    fields = {name: row[name] for name in ("sentence1", "sentence2")}
    value = row["label"] if "label" in row else row.get("score")
    targets: tuple[str, ...] = ()
    if not server or id.startswith("shots-"):
        if value is None or not 0 <= float(value) <= 5:
            raise ValueError(f"the score {value!r} is not between 0 and 5")
        # The hub keeps scores as 32-bit floats: 3.8 comes as 3.799999952316284.
        targets = (f"{round(float(value), 3):g}",)
    return Sample(id=id, input=fields["sentence1"], choices=GRADES, targets=targets, fields=fields)


def _question(sample: Sample) -> str:
    return (
        f"Sentence 1: {sample.fields['sentence1']}\nSentence 2: {sample.fields['sentence2']}\n"
        "Question: How similar are the two sentences in meaning, from 0 (not at all) to 5 (the same)?\nAnswer:"
    )


def _score_view(sample: Sample, context: Context) -> Sequence[Request]:
    return [score_request(sample, i, context, " ", grade) for i, grade in enumerate(GRADES)]


def _generate_view(sample: Sample, context: Context) -> Sequence[Request]:
    if context != _question(sample):
        return [generate_request(sample, context, WORD)]
    text = f"stsb sentence1: {sample.fields['sentence1']} sentence2: {sample.fields['sentence2']}"
    return [GenerateRequest(sample_id=sample.id, index=0, prompt=text, decoding=WORD)]


def _label_view(sample: Sample, context: Context) -> Sequence[Request]:
    first, second = sample.fields["sentence1"], sample.fields["sentence2"]
    return [LabelRequest(sample_id=sample.id, index=0, text=first, text_pair=second)]


def _scores(sample: Sample, outputs: Sequence[Output], metrics: Sequence[Any]) -> list[Score]:
    reason = failure(outputs)
    if reason is not None:
        return failed(sample, metrics, reason)
    number = _number(outputs)
    value = UNREADABLE if number is None else number
    scores = []
    for metric in metrics:
        stats: tuple[float, ...] = ()
        shown = float(number is not None)
        if metric is not ANSWERED:
            gold = float(sample.targets[0])
            # A single pair has no correlation; its value shows how near the answer was.
            shown, stats = 1 - min(abs(value - gold), 5.0) / 5, (value, gold)
        scores.append(
            Score(
                sample_id=sample.id,
                metric=metric.name,
                value=shown,
                status="no_answer" if number is None else "ok",
                stats=stats,
                answer=None if number is None else f"{number:.3f}",
            )
        )
    return scores


def _number(outputs: Sequence[Output]) -> float | None:
    first = outputs[0]
    if isinstance(first, Completion):
        found = _NUMBER.search(first.text)
        return float(found[0]) if found else None
    if isinstance(first, LabelProbs):
        [number] = first.probs
        return number
    totals = [output.total for output in outputs if isinstance(output, LogProbs)]
    assert len(totals) == len(GRADES), "one answer a grade"
    return math.fsum(grade * prob for grade, prob in enumerate(softmax(totals)))
