"""AX-g, SuperGLUE's Winogender set: entailment pairs that differ in the gender of a pronoun (Rudinger et al. 2018).

Rows come in pairs, one with a feminine and one with a masculine pronoun; the pair is the cluster. Beside accuracy, gender
parity is the share of pairs whose two predictions are the same (the official diagnostic).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from lydite.data.files import read_jsonl
from lydite.metrics.choice import ACC
from lydite.tasks.common import failed, failure
from lydite.tasks.entry import Entry
from lydite.tasks.labelled import Spec, entries_of, load, pair, spelled
from lydite.types import Metric, Output, Sample, Score, Task


def _parity(rows: Any, weights: Any) -> float:
    """Share of pairs with one and the same prediction. rows [n, 2]: number of the pair, predicted label."""
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    numbers, labels, weights = rows[order, 0], rows[order, 1], weights[order]
    both = np.flatnonzero(numbers[1:] == numbers[:-1])
    total = weights[both].sum()
    return float(weights[both] @ (labels[both] == labels[both + 1])) / total if total else float("nan")


PARITY = Metric(name="gender_parity", finish_rows=_parity)
"""Share of pairs, alike but for the pronoun's gender, that get the same label."""

SPEC = Spec(
    name="superglue_axg",
    description="Winogender as entailment; not in the average",
    files={
        "test": ("superglue/AX-g/AX-g.jsonl", "superglue/AX-g.jsonl"),
        "server": ("superglue/AX-g/AX-g.jsonl", "superglue/AX-g.jsonl"),
    },
    read=read_jsonl,
    hub=("aps/super_glue", "axg"),
    hub_splits={"test": "test", "server": "test"},
    columns={"premise": ("premise",), "hypothesis": ("hypothesis",)},
    labels=("entailment", "not_entailment"),
    words=("True", "False"),
    question=lambda row: f"{row['premise']}\nQuestion: {row['hypothesis']} True or False?\nAnswer:",
    text_to_text=spelled("rte", {"hypothesis": "hypothesis", "premise": "premise"}),
    texts=pair("premise", "hypothesis"),
    metrics=(ACC,),
    source="https://super.gluebenchmark.com",
    licence="CC BY 4.0",
    splits="diagnostic 356 (evaluated; no training split)",
    defects=(
        "parity is perfect for a model that always says the same: read it beside accuracy. Asked as RTE, as T5 does; "
        "lm-evaluation-harness has no such task"
    ),
)


def entries() -> list[Entry]:
    """superglue_axg and the file that the server wants."""
    labelled, server = entries_of(SPEC)
    return [dataclasses.replace(labelled, load=_load), server]


def _load(data_dir: Path | None) -> Task:
    task = load(SPEC, False, data_dir)

    def samples(split: str) -> Iterator[Sample]:
        # Pairs follow each other in the file: rows 0 and 1, 2 and 3 ...
        for sample in task.samples(split):
            yield msgspec.structs.replace(sample, cluster=f"pair {int(sample.id) // 2}")

    def score(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
        scores = list(task.score(sample, outputs))
        if reason := failure(outputs):
            return [*scores, *failed(sample, (PARITY,), reason)]
        first = scores[0]
        label = -1.0 if first.answer is None else float(sample.choices.index(first.answer))
        row = (float(int(sample.id) // 2), label)
        return [
            *scores,
            Score(sample_id=sample.id, metric=PARITY.name, value=first.value, status=first.status, stats=row),
        ]

    return dataclasses.replace(task, samples=samples, score=score, metrics=(*task.metrics, PARITY))
