"""ARC: grade-school science questions, the Challenge and the Easy set (Clark et al. 2018).

The choices are scored as full texts after lm-evaluation-harness's prompt, with 25 examples from the training split, as
on the Open LLM Leaderboard. Where no test split is at hand the validation split is evaluated, and the run says so.
"""

from functools import partial
from pathlib import Path
from typing import Any

from lydite.data.files import read_rows
from lydite.tasks.choice import choice_task
from lydite.tasks.entry import Entry
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import Sample, Task

SOURCE = "https://allenai.org/data/arc"
LICENCE = "CC BY-SA 4.0"
SIZES = {"Challenge": ("1,119", "299", "1,172"), "Easy": ("2,251", "570", "2,376")}
"""Training, validation and test split."""


def entries() -> list[Entry]:
    """arc_challenge and arc_easy."""
    return [
        Entry(
            name=f"arc_{name.lower()}",
            kind="multiple_choice",
            source=SOURCE,
            licence=LICENCE,
            description=f"School science, {name} set",
            load=partial(load, name),
            splits=f"train {sizes[0]} (examples), validation {sizes[1]}, test {sizes[2]} (evaluated)",
            chance="acc 0.25 (a few questions have three or five choices)",
            defects=(
                "a choice is scored without the others in sight, which makes a question harder than it is with all of them "
                "listed (Borchmann 2024), here as in lm-evaluation-harness"
            ),
        )
        for name, sizes in SIZES.items()
    ]


def load(name: str, data_dir: Path | None) -> Task:
    """The task of one set."""
    stem = f"ARC-{name}"

    def paths(*splits: tuple[str, str]) -> tuple[str, ...]:
        # The names of the rows on the hub, and those of AI2's own archive.
        return tuple(
            path
            for plain, original in splits
            for path in (
                f"arc/{stem}_{plain}.jsonl",
                f"arc/{stem}/{stem}-{original}.jsonl",
                f"arc/{stem}-{original}.jsonl",
            )
        )

    source = Source(
        files={"test": paths(("test", "Test"), ("validation", "Dev")), "shots": paths(("train", "Train"))},
        read=read_rows,
        repository="allenai/ai2_arc",
        configuration=stem,
        splits={"test": "test", "shots": "train"},
    )
    found = find(f"arc_{name.lower()}", source, data_dir)
    validation = found.is_local and any(word in found.paths["test"].name for word in ("validation", "Dev"))
    return choice_task(
        found.name,
        samples_of(found, _sample),
        lambda sample: f"Question: {sample.input}\nAnswer:",
        shots=25,
        source=SOURCE,
        licence=LICENCE,
        fingerprint=found.fingerprint(),
        origin=found.origin,
        settings={"split": "validation"} if validation else {},
    )


def _sample(id: str, row: dict[str, Any]) -> Sample:
    question, choices = row["question"], row.get("choices")
    if isinstance(question, dict):
        # AI2's archive nests the choices in the question.
        choices = {key: [choice[key] for choice in question["choices"]] for key in ("text", "label")}
        question = question["stem"]
    if choices is None:
        raise KeyError("choices")
    gold = choices["label"].index(row["answerKey"])
    return Sample(id=row["id"], input=question, choices=tuple(choices["text"]), gold=(gold,))
