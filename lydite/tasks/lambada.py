"""LAMBADA: the last word of a passage that can only be guessed from the whole of it (Paperno et al. 2016).

The detokenised variant that OpenAI published; the word is what follows the last space, as in lm-evaluation-harness's
`lambada_openai`.
"""

import dataclasses
from pathlib import Path
from typing import Any

from lydite.data.files import read_rows
from lydite.tasks.entry import Entry
from lydite.tasks.lastword import last_word_task
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import Sample, Task

SOURCE = "https://huggingface.co/datasets/EleutherAI/lambada_openai"
LICENCE = "CC BY 4.0"


def entries() -> list[Entry]:
    """lambada."""
    about = "Last words of passages from novels"
    return [
        Entry(
            name="lambada",
            kind="last_word",
            source=SOURCE,
            licence=LICENCE,
            description=about,
            load=load,
            splits="test 5,153 (evaluated; no training split of examples)",
            chance="acc near 0: any word may come",
            defects=(
                "this is OpenAI's text, without the spaces and small letters of the authors': numbers of the two do not "
                "compare; passages are those whose last word people guessed, so a model may know better words"
            ),
        )
    ]


def load(data_dir: Path | None) -> Task:
    """The task."""
    names = ("lambada_test.jsonl", "lambada_test_en.jsonl", "lambada_test.sample.jsonl")
    source = Source(
        files={"test": tuple(f"lambada/{name}" for name in names)},
        read=read_rows,
        repository="EleutherAI/lambada_openai",
        configuration="default",
        splits={"test": "test"},
    )
    found = find("lambada", source, data_dir)
    # LAMBADA sets no examples aside, and test questions must not answer each other: no shots.
    task = last_word_task(
        "lambada",
        samples_of(found, _sample),
        source=SOURCE,
        licence=LICENCE,
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )
    return dataclasses.replace(task, shot=None)


def _sample(id: str, row: dict[str, Any]) -> Sample:
    context, space, word = row["text"].rpartition(" ")
    if not space or not word:
        raise ValueError("the passage does not end in a space and a word")
    return Sample(id=id, input=context, targets=(word,))
