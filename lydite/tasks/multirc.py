"""MultiRC: questions about a paragraph with any number of right answers (Khashabi et al. 2018), as in SuperGLUE.

The sample is the question. Every answer option is judged by itself: in the score view log p of "<answer>\\nIs the answer
correct? yes" against "... no", as lm-evaluation-harness words it. Official metrics: F1a, the F1 of "right" over all
answer options of all questions, and EM, the share of questions with every option judged right.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lydite.data.files import Row, read_jsonl
from lydite.metrics.choice import best
from lydite.metrics.labels import ratio_of
from lydite.tasks.classify import ANSWERED, WORD, read_label
from lydite.tasks.common import failed, failure, fingerprint, generate_request, score_request
from lydite.tasks.entry import Entry, with_server
from lydite.tasks.labelled import label_index
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import (
    Completion,
    Context,
    GenerateRequest,
    LabelProbs,
    LabelRequest,
    LogProbs,
    Message,
    Metric,
    Output,
    Request,
    Sample,
    Score,
    Task,
)

SOURCE = "https://super.gluebenchmark.com"
LICENCE = "research"
LABELS = ("False", "True")
WORDS = ("no", "yes")

# Statistics of a question: 2 tp, 2 tp + fp + fn, options judged rightly, options, all right (0 or 1), questions (1).
F1A = ratio_of("f1_a", 0, 1)
"""F1 of the label "right" over all answer options."""
EM = Metric(name="exact_match", unit="proportion")
"""Share of questions with every answer option judged rightly."""
ACC = ratio_of("acc", 2, 3)
"""Share of answer options judged rightly: what lm-evaluation-harness means to report."""
HEADLINE = Metric(name="f1_a_em", finish=lambda sums: (F1A.finish(sums) + sums[..., 4] / sums[..., 5]) / 2)  # type: ignore[misc]
"""Mean of F1a and EM: what SuperGLUE's average takes of MultiRC."""
METRICS = (HEADLINE, F1A, EM, ACC)

DEFECTS = (
    "lm-evaluation-harness 0.4 takes label 1 (right) for its choice 1, which says no: its accuracy is 1 minus the true one, "
    "and its examples teach the opposite. Here the requests are worded alike and the gold is right; an example shows its "
    "first answer option. Papers also report F1m, the mean of the questions' own F1"
)


def entries() -> list[Entry]:
    """superglue_multirc and its unlabelled test split."""
    entry = Entry(
        name="superglue_multirc",
        kind="classification",
        source=SOURCE,
        licence=LICENCE,
        description="Which answers to a question are right?",
        load=partial(load, False),
        listed=False,
        splits="train 5,100 questions (27,243 answers), val 953 (4,848; evaluated), test 1,806 (9,693; server)",
        chance="acc 0.5",
        defects=DEFECTS,
    )
    return with_server(entry, partial(load, True))


def load(server: bool, data_dir: Path | None) -> Task:
    """The task, or its unlabelled test split."""
    source = Source(
        original=SOURCE,
        files={
            "test": (f"superglue/MultiRC/{'test' if server else 'val'}.jsonl",),
            "shots": ("superglue/MultiRC/train.jsonl",),
        },
        read=read_multirc,
        repository="aps/super_glue",
        configuration="multirc",
        splits={"test": "test" if server else "validation", "shots": "train"},
        reshape=gathered,
    )
    found = find("superglue_multirc" + ("_test" if server else ""), source, data_dir)
    metrics = (ANSWERED,) if server else METRICS
    return Task(
        name=found.name,
        samples=samples_of(found, partial(_sample, server), ids="row"),
        prompt=question,
        shot=lambda sample: (question(sample), _lead(sample, 0) + WORDS[int(0 in sample.gold)]),
        views={"score": _score_view, "generate": _generate_view, "label": _label_view},
        score=lambda sample, outputs: _scores(sample, outputs, metrics),
        metrics=metrics,
        chance=lambda sample: {} if server else {"acc": 0.5, "exact_match": 0.5 ** len(sample.choices)},
        source=SOURCE,
        licence=LICENCE,
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )


def read_multirc(path: Path) -> Iterator[Row]:
    """Yields a row a question from a file with a line a paragraph."""
    for number, row in read_jsonl(path):
        for asked in row["passage"]["questions"]:
            yield (
                number,
                {
                    "paragraph": row["passage"]["text"],
                    "question": asked["question"],
                    "answers": [answer["text"] for answer in asked["answers"]],
                    "labels": [answer.get("label", -1) for answer in asked["answers"]],
                    "idx": {
                        "paragraph": row["idx"],
                        "question": asked["idx"],
                        "answers": [answer["idx"] for answer in asked["answers"]],
                    },
                },
            )


def gathered(rows: Iterable[Row]) -> Iterator[Row]:
    """The hub has a row an answer; those of one question follow each other."""
    held: dict[str, Any] | None = None
    start = 0
    for number, row in rows:
        key = {name: row["idx"][name] for name in ("paragraph", "question")}
        if held is None or {name: held["idx"][name] for name in key} != key:
            if held is not None:
                yield start, held
            start = number
            held = {name: row[name] for name in ("paragraph", "question")}
            held |= {"answers": [], "labels": [], "idx": key | {"answers": []}}
        held["answers"].append(row["answer"])
        held["labels"].append(row["label"])
        held["idx"]["answers"].append(row["idx"]["answer"])
    if held is not None:
        yield start, held


def _sample(server: bool, id: str, row: dict[str, Any]) -> Sample:
    labelled = not server or id.startswith("shots-")
    gold = [i for i, label in enumerate(row["labels"]) if labelled and label_index(label, LABELS)]
    fields = {name: row[name] for name in ("paragraph", "question", "idx")}
    return Sample(
        id=id,
        input=row["question"],
        choices=tuple(row["answers"]),
        gold=tuple(gold),
        fields=fields,
        cluster=fingerprint([row["paragraph"]]),
    )


def question(sample: Sample) -> str:
    """The paragraph and the question, without any answer."""
    return f"{sample.fields['paragraph']}\nQuestion: {sample.fields['question']}\nAnswer:"


def _lead(sample: Sample, index: int) -> str:
    return f" {sample.choices[index]}\nIs the answer correct? "


def _score_view(sample: Sample, context: Context) -> Sequence[Request]:
    """Two requests an answer option: yes, then no, as lm-evaluation-harness orders them."""
    return [
        score_request(sample, 2 * index + turn, context, _lead(sample, index), word)
        if isinstance(context, str)
        else score_request(sample, 2 * index + turn, context, "", (_lead(sample, index) + word).strip())
        for index in range(len(sample.choices))
        for turn, word in enumerate(("yes", "no"))
    ]


def _generate_view(sample: Sample, context: Context) -> Sequence[Request]:
    requests: list[Request] = []
    for index, answer in enumerate(sample.choices):
        if context == question(sample):
            fields = sample.fields
            text = f"multirc question: {fields['question']} answer: {answer} paragraph: {fields['paragraph']}"
            requests.append(GenerateRequest(sample_id=sample.id, index=index, prompt=text, decoding=WORD))
            continue
        asked = _with_answer(context, _lead(sample, index).rstrip(" "))
        request = generate_request(sample, asked, WORD)
        requests.append(
            GenerateRequest(
                sample_id=sample.id, index=index, prompt=request.prompt, messages=request.messages, decoding=WORD
            )
        )
    return requests


def _with_answer(context: Context, text: str) -> Context:
    """The context with an answer option under its question."""
    if isinstance(context, str):
        return context + text
    last = context[-1]
    return (*context[:-1], Message(role=last.role, content=last.content + text))


def _label_view(sample: Sample, context: Context) -> Sequence[Request]:
    fields = sample.fields
    return [
        LabelRequest(
            sample_id=sample.id,
            index=index,
            text=fields["paragraph"],
            text_pair=f"{fields['question']} {answer}",
            labels=LABELS,
        )
        for index, answer in enumerate(sample.choices)
    ]


def _scores(sample: Sample, outputs: Sequence[Output], metrics: Sequence[Metric]) -> list[Score]:
    reason = failure(outputs)
    if reason is not None:
        return failed(sample, metrics, reason)
    judged = _judgements(sample, outputs)
    unread = sum(value is None for value in judged)
    answer = ",".join("?" if value is None else f"{value:g}" for value in judged)
    truth = [float(index in sample.gold) for index in range(len(judged))]
    # What cannot be read is a wrong answer, whatever is right (T5's rule).
    said = [1 - true if value is None else value for value, true in zip(judged, truth, strict=True)]
    right = [1 - abs(value - true) for value, true in zip(said, truth, strict=True)]
    overlap = sum(value * true for value, true in zip(said, truth, strict=True))
    every = 1.0
    for share in right:
        every *= share
    stats = (2 * overlap, sum(said) + sum(truth), sum(right), float(len(right)), every, 1.0)
    values = {ANSWERED.name: float(unread == 0), EM.name: every}
    mean = sum(right) / len(right)
    return [
        Score(
            sample_id=sample.id,
            metric=metric.name,
            value=values.get(metric.name, mean),
            status="no_answer" if unread else "ok",
            stats=stats if metric.finish else (),
            answer=answer,
        )
        for metric in metrics
    ]


def _judgements(sample: Sample, outputs: Sequence[Output]) -> list[float | None]:
    """For each answer option 1 (right) or 0, one half for a tie, None where nothing was read."""
    if isinstance(outputs[0], LogProbs):
        totals = [output.total for output in outputs if isinstance(output, LogProbs)]
        assert len(totals) == 2 * len(sample.choices), f"{sample.id}: two answers an option"
        tied = [best(totals[2 * i : 2 * i + 2]) for i in range(len(sample.choices))]
        return [float(0 in one) / len(one) for one in tied]
    judged: list[float | None] = []
    for output in outputs:
        if isinstance(output, Completion):
            found = read_label(output.text, (LABELS, WORDS))
            judged.append(None if found is None else float(found))
        else:
            assert isinstance(output, LabelProbs), f"{sample.id}: answer options are judged by labels"
            found_best = best(output.probs)
            judged.append(float(1 in found_best) / len(found_best))
    return judged
