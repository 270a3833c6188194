"""GSM8K: word problems of school mathematics, solved in writing (Cobbe et al. 2021).

Prompt, five examples and stops as in lm-evaluation-harness. `exact_match` reads the number after "####", else the
last number; `strict_match` only the former. Numbers are compared as numbers.
"""

import dataclasses
from pathlib import Path
from typing import Any

from lydite.data.files import read_rows
from lydite.tasks.entry import Entry
from lydite.tasks.generate import generation_task, grader
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import Decoding, Metric, Sample, Task

SOURCE = "https://github.com/openai/grade-school-math"
LICENCE = "MIT"
_MARKED = r"regex:####\s*(-?[\d.,]*\d)"


def entries() -> list[Entry]:
    """gsm8k."""
    about = "Word problems, solved in writing"
    return [
        Entry(
            name="gsm8k",
            kind="generation",
            source=SOURCE,
            licence=LICENCE,
            description=about,
            load=load,
            splits="train 7,473 (examples), test 1,319 (evaluated)",
            chance="exact_match 0",
            defects=(
                "some problems are ambiguous or have a wrong answer (Vendrow et al. 2025), and models do worse on new ones of "
                "the same kind (Zhang et al. 2024); strict_match reads only the form of the examples, #### 12"
            ),
        )
    ]


def load(data_dir: Path | None) -> Task:
    """The task."""
    source = Source(
        files={
            "test": ("gsm8k/test.jsonl", "gsm8k/test.sample.jsonl"),
            "shots": ("gsm8k/train.jsonl", "gsm8k/train.sample.jsonl"),
        },
        read=read_rows,
        repository="openai/gsm8k",
        configuration="main",
        splits={"test": "test", "shots": "train"},
    )
    found = find("gsm8k", source, data_dir)
    strict = dataclasses.replace(
        grader("exact_match", [_MARKED], "number"), metric=Metric(name="strict_match", unit="proportion")
    )
    return generation_task(
        "gsm8k",
        samples_of(found, _sample),
        lambda sample: f"Question: {sample.input}\nAnswer:",
        [grader("exact_match", [_MARKED, "last_number"], "number"), strict],
        Decoding(max_new_tokens=256, stop_strings=("Question:", "</s>", "<|im_end|>")),
        answer=lambda sample: " " + sample.fields["solution"],
        shots=5,
        source=SOURCE,
        licence=LICENCE,
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )


def _sample(id: str, row: dict[str, Any]) -> Sample:
    solution = row["answer"]
    _, marker, answer = solution.rpartition("####")
    if not marker:
        raise ValueError("the solution has no #### before its answer")
    return Sample(id=id, input=row["question"], targets=(answer.strip(),), fields={"solution": solution})
