"""SQuAD 1.1 and 2.0: questions about paragraphs of Wikipedia (Rajpurkar et al. 2016; Rajpurkar, Jia and Liang 2018).

Prompt and end of the answer as in lm-evaluation-harness's squadv2, for both. Exact match and F1 as in the official
scripts, the best over the references. In SQuAD 2.0 a third of the questions of the training set and half of the
development set have no answer: right is then to say nothing, or "unanswerable". The models' probability of
" unanswerable" (of a head, its no-answer probability) orders the answers, and `best_*` are the scores at the threshold
that does best, as in the official script; where probabilities tie, a threshold takes all of them or none.

`span` views ask extractive heads. Questions about one paragraph form a cluster.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lydite.metrics.text import exact_match, squad_tokens, token_f1_or_nothing
from lydite.tasks.common import failed, failure, fingerprint, generate_request, score_request
from lydite.tasks.entry import Entry
from lydite.tasks.generate import generation_task, grader
from lydite.tasks.sources import Found, Source, find, samples_of
from lydite.tasks.xquad import read_squad
from lydite.types import (
    Completion,
    Context,
    Decoding,
    LogProbs,
    Metric,
    Output,
    Request,
    Sample,
    Score,
    Span,
    SpanRequest,
    Task,
)

SOURCE = "https://rajpurkar.github.io/SQuAD-explorer/"
LICENCE = "CC BY-SA 4.0"
UNANSWERABLE = "unanswerable"
_DECODING = Decoding(max_new_tokens=64, stop_strings=("\n",))


def entries() -> list[Entry]:
    """squad and squad2."""
    return [
        Entry(
            name="squad",
            kind="generation",
            source=SOURCE,
            licence=LICENCE,
            description="Questions about a paragraph (SQuAD 1.1)",
            load=load,
            splits="train 87,599, dev 10,570 (evaluated); the test set is the server's",
            chance="exact_match 0",
            defects="answers are spans of the paragraph, so a right answer in other words counts as wrong; people reach F1 91",
        ),
        Entry(
            name="squad2",
            kind="generation",
            source=SOURCE,
            licence=LICENCE,
            description="Questions about a paragraph, half of which it does not answer (SQuAD 2.0)",
            load=load_2,
            splits="train 130,319, dev 11,873 (evaluated), of them 5,945 unanswerable; the test set is the server's",
            chance="exact_match and f1 0.5 for saying nothing",
            defects=(
                "an empty answer counts as 'no answer' (official rule); lm-evaluation-harness shows 'unanswerable' in its "
                "examples but gives a model that writes it 0, so its exact and f1 are lower than these"
            ),
        ),
    ]


def load(data_dir: Path | None) -> Task:
    """SQuAD 1.1."""
    found = find("squad", _source("1.1", "rajpurkar/squad"), data_dir)
    task = generation_task(
        "squad",
        samples_of(found, make_sample),
        question,
        [grader("exact_match", (), "squad"), grader("f1", (), "squad")],
        _DECODING,
        **_about(found),
    )
    return with_span_view(task)


def _source(version: str, repository: str) -> Source:
    return Source(
        files={
            "test": (f"squad/dev-v{version}.json", f"squad/dev-v{version}.subset1000.json"),
            "shots": (f"squad/train-v{version}.json", f"squad/train-v{version}.first50articles.json"),
        },
        read=read_squad,
        repository=repository,
        splits={"test": "validation", "shots": "train"},
    )


def _about(found: Found) -> dict[str, Any]:
    return {"source": SOURCE, "licence": LICENCE, "fingerprint": found.fingerprint(), "origin": found.origin}


def question(sample: Sample) -> str:
    """The prompt of lm-evaluation-harness's squadv2."""
    fields = sample.fields
    return f"Title: {fields['title']}\n\nBackground: {fields['context']}\n\nQuestion: {sample.input}\n\nAnswer:"


def answer_texts(row: dict[str, Any]) -> tuple[str, ...]:
    """The texts of the answers of a row, in the layout of the files or of the hub."""
    answers = row["answers"]
    return tuple(answers["text"] if isinstance(answers, dict) else [answer["text"] for answer in answers])


def make_sample(id: str, row: dict[str, Any]) -> Sample:
    """A question with its paragraph; the id is the official one, as submissions need it."""
    return Sample(
        id=f"shots-{row['id']}" if id.startswith("shots-") else row["id"],
        input=row["question"],
        targets=answer_texts(row),
        fields={"title": row["title"], "context": row["context"]},
        cluster=fingerprint([row["context"]]),
    )


def with_span_view(task: Task) -> Task:
    """The task with a view for extractive heads besides; a span's text is scored like a text that was written."""

    def view(sample: Sample, context: Context) -> Sequence[Request]:
        return [SpanRequest(sample_id=sample.id, index=0, question=sample.input, passage=sample.fields["context"])]

    def score(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
        return task.score(sample, [_written(output) for output in outputs])

    return dataclasses.replace(task, views={**task.views, "span": view}, score=score)


def _written(output: Output) -> Output:
    return Completion(text=output.text, num_tokens=0, finish="stop") if isinstance(output, Span) else output


# --------------------------------------------------------------------------------------------- SQuAD 2.0


def _share(sums: Any) -> Any:
    """Sums (score of the questions of a kind, number of them) [..., 2] to their mean; NaN where there are none."""
    score, number = np.moveaxis(np.asarray(sums, dtype=float), -1, 0)
    return np.where(number > 0, score / np.where(number > 0, number, 1), np.nan)


def best_score(rows: Any, weights: Any) -> float:
    """The mean score at the best threshold: answers with a larger no-answer probability are taken back.

    `rows` [n, 4]: no-answer probability, score of the answer, whether there is an answer, whether one was given. With
    everything taken back the unanswerable questions are right; each answer then adds its score, or takes 1 away where
    it was given to an unanswerable question (official script 2.0, find_best_thresh).
    """
    rows, weights = np.asarray(rows, dtype=float), np.asarray(weights, dtype=float)
    order = np.argsort(rows[:, 0], kind="stable")
    probability, score, answerable, given = rows[order].T
    weights = weights[order]
    gain = np.cumsum(weights * np.where(answerable > 0, score, -given))
    last_of_ties = np.append(probability[1:] != probability[:-1], True)
    nothing = float((weights * (answerable == 0)).sum())
    return (nothing + max(0.0, float(gain[last_of_ties].max()))) / float(weights.sum())


METRICS = (
    Metric(name="exact_match", unit="proportion"),
    Metric(name="f1", bounds=(0.0, 1.0)),
    Metric(name="answerable_exact_match", finish=_share, bounds=(0.0, 1.0)),
    Metric(name="answerable_f1", finish=_share, bounds=(0.0, 1.0)),
    Metric(name="unanswerable_exact_match", finish=_share, bounds=(0.0, 1.0)),
    Metric(name="best_exact_match", finish_rows=best_score, bounds=(0.0, 1.0)),
    Metric(name="best_f1", finish_rows=best_score, bounds=(0.0, 1.0)),
)


def load_2(data_dir: Path | None) -> Task:
    """SQuAD 2.0."""
    found = find("squad2", _source("2.0", "rajpurkar/squad_v2"), data_dir)

    def generate(sample: Sample, context: Context) -> Sequence[Request]:
        asked = generate_request(sample, context, _DECODING)
        return [asked, score_request(sample, 1, context, " ", UNANSWERABLE)]

    def span(sample: Sample, context: Context) -> Sequence[Request]:
        return [SpanRequest(sample_id=sample.id, index=0, question=sample.input, passage=sample.fields["context"])]

    return Task(
        name="squad2",
        samples=samples_of(found, make_sample),
        prompt=question,
        shot=lambda sample: (question(sample), " " + (sample.targets[0] if sample.targets else UNANSWERABLE)),
        views={"generate": generate, "span": span},
        score=_score_2,
        metrics=METRICS,
        chance=lambda sample: dict.fromkeys(("exact_match", "f1"), 0.0 if sample.targets else 1.0),
        **_about(found),
    )


def _score_2(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
    reason = failure(outputs)
    if reason is not None:
        return failed(sample, METRICS, reason)
    text, probability = _prediction(outputs)
    found = "" if squad_tokens(text) == [UNANSWERABLE] else text.strip()
    targets = sample.targets or ("",)
    answerable, given = float(bool(sample.targets)), float(bool(found))
    exact, f1 = exact_match(found, targets, "squad"), token_f1_or_nothing(found, targets)
    stats: dict[str, tuple[float, ...]] = {
        "exact_match": (),
        "f1": (),
        "answerable_exact_match": (exact * answerable, answerable),
        "answerable_f1": (f1 * answerable, answerable),
        "unanswerable_exact_match": (exact * (1 - answerable), 1 - answerable),
        "best_exact_match": (probability, exact, answerable, given),
        "best_f1": (probability, f1, answerable, given),
    }
    cut = isinstance(outputs[0], Completion) and outputs[0].finish == "length"
    return [
        Score(
            sample_id=sample.id,
            metric=metric.name,
            value=f1 if metric.name.endswith("f1") else exact,
            stats=stats[metric.name],
            answer=found,
            note="cut at max_new_tokens" if cut else "",
        )
        for metric in METRICS
    ]


def _prediction(outputs: Sequence[Output]) -> tuple[str, float]:
    """Text and probability that there is no answer; of a head that gives none, 0."""
    if isinstance(outputs[0], Span):
        return outputs[0].text, outputs[0].no_answer_prob or 0.0
    written, scored = outputs
    assert isinstance(written, Completion)
    assert isinstance(scored, LogProbs)
    return written.text, math.exp(scored.total)
