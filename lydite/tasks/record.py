"""ReCoRD: fill the gap in a statement about a news story with one of its entities (Zhang et al. 2018), as in SuperGLUE.

The choices are the distinct entities in alphabetical order, each put into the statement, as lm-evaluation-harness has
them. EM and F1 compare the chosen entity with the right ones after SQuAD's normalisation, best of several.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lydite.data.files import Row, read_jsonl
from lydite.metrics.choice import best
from lydite.metrics.text import exact_match, token_f1
from lydite.tasks.classify import ANSWERED
from lydite.tasks.common import failed, failure, fingerprint, generate_request, score_request
from lydite.tasks.entry import Entry, with_server
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import (
    Completion,
    Context,
    Decoding,
    GenerateRequest,
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

SOURCE = "https://super.gluebenchmark.com"
LICENCE = "research"
GAP = "@placeholder"
ENTITY = Decoding(max_new_tokens=32, stop_strings=("\n",))

F1 = Metric(name="f1", bounds=(0.0, 1.0))
EM = Metric(name="exact_match", unit="proportion")
HEADLINE = Metric(name="f1_em", bounds=(0.0, 1.0))
"""Mean of F1 and EM: what SuperGLUE's average takes of ReCoRD."""
METRICS = (HEADLINE, F1, EM)


def entries() -> list[Entry]:
    """superglue_record and its unlabelled test split."""
    entry = Entry(
        name="superglue_record",
        kind="entities",
        source=SOURCE,
        licence=LICENCE,
        description="Which entity fills the gap?",
        load=partial(load, False),
        listed=False,
        splits="train 100,730, val 10,000 (evaluated), test 10,000 (server)",
        chance="exact_match: right entities over entities",
        defects="an entity counts once however often it is named; entities that are parts of others share tokens, so F1 of a wrong choice is rarely 0",
    )
    return with_server(entry, partial(load, True))


def load(server: bool, data_dir: Path | None) -> Task:
    """The task, or its unlabelled test split."""
    source = Source(
        original=SOURCE,
        files={
            "test": (f"superglue/ReCoRD/{'test' if server else 'val'}.jsonl",),
            "shots": ("superglue/ReCoRD/train.jsonl",),
        },
        read=read_record,
        repository="aps/super_glue",
        configuration="record",
        splits={"test": "test" if server else "validation", "shots": "train"},
    )
    found = find("superglue_record" + ("_test" if server else ""), source, data_dir)
    metrics = (ANSWERED,) if server else METRICS
    return Task(
        name=found.name,
        samples=samples_of(found, partial(_sample, server), ids="row"),
        prompt=question,
        shot=lambda sample: (question(sample), " " + filled(sample, sample.targets[0])),
        views={"score": _score_view, "generate": _generate_view, "span": _span_view},
        score=lambda sample, outputs: _scores(sample, outputs, metrics),
        metrics=metrics,
        chance=lambda sample: {"exact_match": len(sample.gold) / len(sample.choices)} if sample.gold else {},
        source=SOURCE,
        licence=LICENCE,
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )


def read_record(path: Path) -> Iterator[Row]:
    """Yields a row a statement, with the fields that the hub has, from a file with a line a story."""
    for number, row in read_jsonl(path):
        text = row["passage"]["text"]
        entities = sorted({text[span["start"] : span["end"] + 1] for span in row["passage"]["entities"]})
        for asked in row["qas"]:
            answers = sorted({answer["text"] for answer in asked.get("answers", ())})
            idx = {"passage": row["idx"], "query": asked["idx"]}
            yield (
                number,
                {"passage": text, "query": asked["query"], "entities": entities, "answers": answers, "idx": idx},
            )


def _sample(server: bool, id: str, row: dict[str, Any]) -> Sample:
    entities, answers = sorted(set(row["entities"])), sorted(set(row["answers"]))
    if not answers and (not server or id.startswith("shots-")):
        raise ValueError("this row has no answers, as in test splits that a server scores")
    return Sample(
        id=id,
        input=row["query"],
        choices=tuple(entities),
        gold=tuple(index for index, entity in enumerate(entities) if entity in answers),
        targets=tuple(answers),
        fields={name: row[name] for name in ("passage", "query", "idx")},
        cluster=fingerprint([row["passage"]]),
    )


def question(sample: Sample) -> str:
    """The story, and its highlights as a list."""
    passage: str = sample.fields["passage"]
    story, *highlights = passage.strip().split("\n@highlight\n")
    return story + "\n\n" + "".join(f"  - {highlight}.\n" for highlight in highlights)


def filled(sample: Sample, entity: str) -> str:
    """The statement as one more highlight."""
    query: str = sample.fields["query"]
    return "  - " + query.replace(GAP, entity)


def _score_view(sample: Sample, context: Context) -> Sequence[Request]:
    return [score_request(sample, i, context, " ", filled(sample, entity)) for i, entity in enumerate(sample.choices)]


def _generate_view(sample: Sample, context: Context) -> Sequence[Request]:
    """T5's input, zero-shot; else the statement up to its gap, which the model is to fill."""
    if context == question(sample):
        passage = re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", sample.fields["passage"])
        passage = passage.replace("\n@highlight\n", ". ")
        entities = ", ".join(sample.choices)
        text = f"record query: {sample.fields['query']} entities: {entities} passage: {passage}"
        return [GenerateRequest(sample_id=sample.id, index=0, prompt=text, decoding=ENTITY)]
    return [generate_request(sample, context, ENTITY)]


def _span_view(sample: Sample, context: Context) -> Sequence[Request]:
    return [
        SpanRequest(sample_id=sample.id, index=0, question=sample.fields["query"], passage=sample.fields["passage"])
    ]


def _scores(sample: Sample, outputs: Sequence[Output], metrics: Sequence[Metric]) -> list[Score]:
    reason = failure(outputs)
    if reason is not None:
        return failed(sample, metrics, reason)
    chosen = _chosen(sample, outputs)
    targets = sample.targets or ("",)
    f1 = _mean([token_f1(text, targets) for text in chosen])
    em = _mean([exact_match(text, targets, "squad") for text in chosen])
    values = {F1.name: f1, EM.name: em, HEADLINE.name: (f1 + em) / 2, ANSWERED.name: float(bool(chosen))}
    return [
        Score(
            sample_id=sample.id,
            metric=metric.name,
            value=values[metric.name],
            status="ok" if chosen else "no_answer",
            answer=chosen[0] if chosen else None,
            note=f"tie of {len(chosen)} choices, shared" if len(chosen) > 1 else "",
        )
        for metric in metrics
    ]


def _chosen(sample: Sample, outputs: Sequence[Output]) -> list[str]:
    """The entities that the model likes best (several where they are tied), or the text that it gave."""
    first = outputs[0]
    if isinstance(first, Completion | Span):
        text = first.text.strip()
        # After examples the model writes the whole statement, in which only the gap is its own.
        before, _, after = filled(sample, GAP).strip().partition(GAP)
        if text.startswith(before) and before:
            text = text.removeprefix(before).removesuffix(after)
        return [text.strip()] if text.strip() else []
    totals = [output.total for output in outputs if isinstance(output, LogProbs)]
    assert len(totals) == len(sample.choices), f"{sample.id}: one answer an entity"
    return [sample.choices[index] for index in best(totals)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
