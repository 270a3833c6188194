"""CoQA: conversations of questions about a story (Reddy, Chen and Manning 2019).

A sample is one turn; the prompt holds the story and the earlier turns with their gold answers, worded as in
lm-evaluation-harness, which asks the last turn of each story only. Exact match and F1 as in the official script: each of
the (mostly four) answers is left out in turn and the best over the others counts, so that models compare with people.
Turns of one story form a cluster.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lydite.data.files import Row, read_whole
from lydite.errors import DataError
from lydite.metrics.text import exact_match, token_f1_or_nothing
from lydite.tasks.entry import Entry
from lydite.tasks.generate import Grader, generation_task
from lydite.tasks.sources import Found, Source, find
from lydite.types import Decoding, Metric, Sample, Task

SOURCE = "https://stanfordnlp.github.io/coqa/"
LICENCE = "CC BY-SA 4.0 and others, by the source of the story"

EXACT_MATCH = Metric(name="exact_match", bounds=(0.0, 1.0))
F1 = Metric(name="f1", bounds=(0.0, 1.0))


def entries() -> list[Entry]:
    """coqa."""
    return [
        Entry(
            name="coqa",
            kind="generation",
            source=SOURCE,
            licence=LICENCE,
            description="Conversations of questions about a story",
            load=load,
            splits="train 7,199 stories, dev 500 stories with 7,983 turns (evaluated); the test set is the server's",
            chance="exact_match 0",
            defects=(
                "lm-evaluation-harness scores 500 last turns with answers made distinct; here all 7,983 turns by the "
                "official rule (its own code does not load beside transformers 5). Earlier turns show gold answers, not the "
                "model's own"
            ),
        )
    ]


def load(data_dir: Path | None) -> Task:
    """The task."""
    source = Source(
        files={"test": ("coqa/coqa-dev-v1.0.json",), "shots": ("coqa/coqa-train-v1.0.json",)},
        read=read_coqa,
        repository="EleutherAI/coqa",
        splits={"test": "validation", "shots": "train"},
        revision="refs/convert/parquet",
    )
    found = find("coqa", source, data_dir)
    return generation_task(
        "coqa",
        lambda split: _samples(found, split),
        lambda sample: sample.fields["prompt"],
        [
            Grader(EXACT_MATCH, lambda answer, targets: (left_out(_exact, answer, targets), ()), ("first_line",)),
            Grader(F1, lambda answer, targets: (left_out(token_f1_or_nothing, answer, targets), ()), ("first_line",)),
        ],
        Decoding(max_new_tokens=64, stop_strings=("\nQ:",)),
        source=SOURCE,
        licence=LICENCE,
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )


def _exact(answer: str, targets: Sequence[str]) -> float:
    return exact_match(answer, targets, "squad")


def left_out(metric: Any, answer: str, targets: Sequence[str]) -> float:
    """Mean over the targets of the best score against all others; against the only one, where there is one."""
    if len(targets) == 1:
        return float(metric(answer, targets))
    rest = ([other for other in range(len(targets)) if other != one] for one in range(len(targets)))
    return sum(float(metric(answer, [targets[i] for i in others])) for others in rest) / len(targets)


def read_coqa(path: Path) -> Iterator[Row]:
    """Yields (number of the story, row as on the hub) from the original file."""

    def rows(content: Any) -> Iterator[dict[str, Any]]:
        for story in content["data"]:
            more = (story.get("additional_answers") or {}).items()
            yield {
                **{name: story[name] for name in ("id", "source", "story")},
                **{name: _columns(story[name]) for name in ("questions", "answers")},
                "additional_answers": {key: _columns(turns) for key, turns in more},
            }

    return read_whole(path, "CoQA", rows)


def _columns(turns: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    return {"input_text": [turn["input_text"] for turn in turns]}


def _samples(found: Found, split: str) -> Iterator[Sample]:
    mark = "" if split == "test" else f"{split}-"
    for line, row in found.rows(split):
        try:
            yield from _turns(mark, row)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise DataError(
                f"{found.place(split)}, story {line}: {error!r}; this is not the layout of coqa (columns: {', '.join(row)})"
            ) from error


def _turns(mark: str, row: dict[str, Any]) -> Iterator[Sample]:
    questions, answers = row["questions"]["input_text"], row["answers"]["input_text"]
    others = [one["input_text"] for _, one in sorted((row["additional_answers"] or {}).items()) if one]
    told = row["story"] + "\n\n"
    for turn, question in enumerate(questions):
        told += f"Q: {question}\n\n"
        yield Sample(
            id=f"{mark}{row['id']}-{turn + 1}",
            input=question,
            targets=(answers[turn], *(other[turn] for other in others)),
            fields={"prompt": f"{told}A:"},
            cluster=str(row["id"]),
            metadata={"source": row["source"]},
        )
        told += f"A: {answers[turn]}\n\n"
