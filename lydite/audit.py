"""Audit of written answers: right ones that were not read, and outputs that were never whole.

Two questions about a finished run, answered from its folder and its task, without the model:

* In which outputs does a right answer stand although the score says otherwise, and what would the score be if it had
  been read? These are candidates for a person to look at: a text can name the right answer and mean another.
* How many outputs were cut, empty or over-long, and between which values would the score lie if these alone had all been
  wrong, or all right? Such outputs are censored rather than wrong; a score without its bounds hides that.

"Wrong" is what the task gives an empty text, or the output itself if that is worse; "right" is what it gives a target. So
corpus metrics have bounds too.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from lydite.errors import RunError
from lydite.metrics.extract import LETTERS, canonical_number, numbers
from lydite.metrics.summary import METRICS as DESCRIPTIVE
from lydite.metrics.words import words_of
from lydite.runs import read_samples
from lydite.stats.estimates import column_sums, is_mean, rows_of
from lydite.types import Completion, Failure, Metric, Sample, SampleRecord, Score, Task

Outcome = Literal["read", "unread", "cut", "empty", "long", "failed"]
CENSORED: tuple[Outcome, ...] = ("cut", "empty", "long")
"""Outcomes that say more of the limits of the run than of the answer."""
TIMES, SPARE = 4, 40
"""An answer is over-long that has more than TIMES the characters of the longest target, and SPARE on top."""


@dataclass(frozen=True)
class Missed:
    """A right answer that stands in an output and did not count in full."""

    sample_id: str
    metric: str
    answer: str | None
    """What was read."""
    right: str
    """What stands there."""
    text: str
    """The whole output."""
    value: float
    possible: float
    """The score, and what it would be with the right answer."""


@dataclass(frozen=True)
class MetricAudit:
    """One metric of a run."""

    metric: str
    value: float | None
    with_missed: float | None
    """As if every missed answer had been read."""
    low: float | None
    high: float | None
    """As if all cut, empty and over-long outputs had been wrong, or right."""
    missed: tuple[Missed, ...]


@dataclass(frozen=True)
class Audit:
    """What was found in one run."""

    n: int
    outcomes: dict[Outcome, int]
    metrics: tuple[MetricAudit, ...]


@dataclass
class _Sheet:
    """The scores of one metric in each of the four cases, in the order of the samples."""

    now: list[Score] = field(default_factory=list)
    read: list[Score] = field(default_factory=list)
    wrong: list[Score] = field(default_factory=list)
    right: list[Score] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)


def audit(leaf: Path, task: Task) -> Audit:
    """The audit of a leaf run folder. Raises RunError where the run has no written answers."""
    sheets = {metric.name: _Sheet() for metric in task.metrics}
    outcomes: Counter[Outcome] = Counter()
    records = {record.id: record for record in read_samples(leaf)}
    for record in records.values():
        if not any(isinstance(output, Completion) for output in record.outputs) and outcome(record) != "failed":
            raise RunError(f"{leaf} holds no written answers to audit; they come from generation tasks")
        outcomes[outcome(record)] += 1
        _add(sheets, task, record)
    found = tuple(_of_metric(metric, sheets[metric.name]) for metric in task.metrics if sheets[metric.name].now)
    return Audit(len(records), {name: outcomes[name] for name in ("read", "unread", *CENSORED, "failed")}, found)


def _of_metric(metric: Metric, sheet: _Sheet) -> MetricAudit:
    low, high = _ordered(_value(metric, sheet.wrong), _value(metric, sheet.right))
    return MetricAudit(
        metric=metric.name,
        value=_value(metric, sheet.now),
        with_missed=_value(metric, sheet.read),
        low=low,
        high=high,
        missed=tuple(sheet.missed),
    )


def outcome(record: SampleRecord) -> Outcome:
    """What became of a sample's written answer: the first of these that fits."""
    if any(isinstance(output, Failure) for output in record.outputs):
        return "failed"
    written = [output for output in record.outputs if isinstance(output, Completion)]
    if any(not output.text.strip() for output in written):
        return "empty"
    if any(output.finish == "length" for output in written):
        return "cut"
    automatic = [score for score in record.scores if score.by == "auto"]
    if automatic and all(score.status == "no_answer" for score in automatic):
        return "unread"
    longest = max((len(text) for text in rights(record.sample)), default=None)
    answer = automatic[0].answer if automatic else None
    return "long" if longest is not None and answer and len(answer) > TIMES * longest + SPARE else "read"


def rights(sample: Sample) -> list[str]:
    """Texts that would be right answers: the targets, else the text of the gold choices."""
    return list(sample.targets) or [sample.choices[gold] for gold in sample.gold]


def standing(text: str, sample: Sample) -> str | None:
    """The right answer that stands in the text, word by word or as a number; None where none does.

    Of choices only one whose text stands there while that of no other choice does.
    """
    words = words_of("und")
    said = words(text)
    if sample.choices and not sample.targets:
        present = [i for i, choice in enumerate(sample.choices) if _within(words(choice), said)]
        return sample.choices[present[0]] if len(present) == 1 and present[0] in sample.gold else None
    counted = set(numbers(text))
    for target in sample.targets:
        number = canonical_number(target)
        if number in counted if number is not None else _within(words(target), said):
            return target
    return None


def _within(part: Sequence[str], whole: Sequence[str]) -> bool:
    size = len(part)
    return size > 0 and any(list(whole[i : i + size]) == list(part) for i in range(len(whole) - size + 1))


def _add(sheets: dict[str, _Sheet], task: Task, record: SampleRecord) -> None:
    now = {score.metric: score for score in record.scores if score.by == "auto"}
    kind = outcome(record)
    right = wrong = None
    found = None if kind == "failed" else standing(_text(record), record.sample)
    if found is not None or kind in CENSORED:
        texts = _answers(record.sample)
        right = _best(task, [_scored(task, record, text) for text in texts])
        wrong = _scored(task, record, "")
    for name, sheet in sheets.items():
        score = now.get(name)
        if score is None:
            continue
        sheet.now.append(score)
        # An output may do worse than an empty text (in TER, words too many) or, among several, as well as a target.
        worse = wrong[name] if wrong and kind in CENSORED and _improves(task, wrong[name], score) else score
        best = right[name] if right and kind in CENSORED and _improves(task, score, right[name]) else score
        sheet.wrong.append(worse)
        sheet.right.append(best)
        better = right[name] if right and found is not None and _improves(task, score, right[name]) else score
        sheet.read.append(better)
        if found is not None and better is not score and score.value is not None and better.value is not None:
            sheet.missed.append(
                Missed(record.id, name, score.answer, found, _text(record), score.value, better.value),
            )


def _text(record: SampleRecord) -> str:
    return "\n".join(output.text for output in record.outputs if isinstance(output, Completion))


def _answers(sample: Sample) -> list[str]:
    """What a model would write to be read as right: a target, or letter and text of a gold choice."""
    return list(sample.targets) or [f"{LETTERS[gold]}. {sample.choices[gold]}" for gold in sample.gold]


def _scored(task: Task, record: SampleRecord, text: str) -> dict[str, Score]:
    outputs = tuple(
        msgspec.structs.replace(output, text=text, finish="stop") if isinstance(output, Completion) else output
        for output in record.outputs
    )
    return {score.metric: score for score in task.score(record.sample, outputs)}


def _best(task: Task, candidates: Sequence[dict[str, Score]]) -> dict[str, Score] | None:
    """Metric by metric the best of the scores."""
    chosen: dict[str, Score] = {}
    for scores in candidates:
        for name, score in scores.items():
            if name not in chosen or _improves(task, chosen[name], score):
                chosen[name] = score
    return chosen or None


def _improves(task: Task, score: Score, other: Score) -> bool:
    described = any(score.metric == metric.name for metric in DESCRIPTIVE)
    if score.value is None or other.value is None or described:
        return False  # of what only describes, neither direction is better
    up = next(metric.higher_is_better for metric in task.metrics if metric.name == score.metric)
    return other.value > score.value if up else other.value < score.value


def _ordered(wrong: float | None, right: float | None) -> tuple[float | None, float | None]:
    if wrong is None or right is None:
        return None, None
    return min(wrong, right), max(wrong, right)


def _value(metric: Metric, scores: Iterable[Score]) -> float | None:
    """The metric over scores, without an interval."""
    kept = [score for score in scores if score.value is not None]
    if not kept:
        return None
    rows = rows_of(metric, kept)
    if is_mean(metric):
        return math.fsum(rows[:, 0]) / len(rows)
    if metric.finish is not None:
        value = float(metric.finish(column_sums(rows)))
    else:
        assert metric.finish_rows is not None
        value = float(metric.finish_rows(rows, np.ones(len(rows))))
    return value if math.isfinite(value) else None
