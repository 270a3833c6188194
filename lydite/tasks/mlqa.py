"""MLQA: questions about paragraphs in seven languages, asked in the paragraph's language or another (Lewis et al. 2020).

`mlqa_zh_de` has a Chinese paragraph and a German question. Prompt as in lm-evaluation-harness, in English for every
language. Exact match and F1 normalise as the official script does, in the language of the paragraph, which is that of
the answers. The group `mlqa` holds the seven tasks in one language.
"""

from functools import partial
from pathlib import Path

from lydite.tasks.entry import Entry, group_of
from lydite.tasks.generate import generation_task, grader
from lydite.tasks.sources import Source, find, samples_of
from lydite.tasks.squad import make_sample, with_span_view
from lydite.tasks.xquad import read_squad
from lydite.types import Decoding, Sample, Task

SOURCE = "https://github.com/facebookresearch/MLQA"
LICENCE = "CC BY-SA 3.0"
SIZES = {"ar": "5,335", "de": "4,517", "en": "11,590", "es": "5,253", "hi": "4,918", "vi": "5,495", "zh": "5,137"}
"""Questions of the test set in one language."""
_DEFECTS = (
    "the script cuts the Arabic article off words that only begin like it; translated questions are not parallel to all "
    "paragraphs, so languages have different questions"
)


def entries() -> list[Entry]:
    """A task for each pair of languages, and the group of those in one language."""
    tasks = [
        Entry(
            name=f"mlqa_{context}_{question}",
            kind="generation",
            source=SOURCE,
            licence=LICENCE,
            languages=tuple(dict.fromkeys((context, question))),
            description="Questions about a paragraph" + (f" ({context}) in {question}" if context != question else ""),
            load=partial(load, context, question),
            listed=False,
            splits=f"dev (examples), test {SIZES[context]} (evaluated)"
            if context == question
            else "dev, test (evaluated)",
            chance="exact_match 0",
            defects=_DEFECTS,
        )
        for context in SIZES
        for question in SIZES
    ]
    alone = [task for task in tasks if len(task.languages) == 1]
    about = "MLQA, paragraph and question in one language, seven languages"
    return [*tasks, group_of("mlqa", about, alone, weighting="tasks")]


def load(context: str, question: str, data_dir: Path | None) -> Task:
    """The task of paragraphs in one language and questions in one."""
    name = f"context-{context}-question-{question}.json"
    source = Source(
        files={
            "test": (f"MLQA_V1/test/test-{name}", f"mlqa/test/test-{name}"),
            "shots": (f"MLQA_V1/dev/dev-{name}", f"mlqa/dev/dev-{name}"),
        },
        read=read_squad,
        repository="facebook/mlqa",
        configuration=f"mlqa.{context}.{question}",
        splits={"test": "test", "shots": "validation"},
        revision="refs/convert/parquet",
    )
    found = find(f"mlqa_{context}_{question}", source, data_dir)
    task = generation_task(
        found.name,
        samples_of(found, _sample),
        lambda sample: f"Context: {sample.fields['context']}\n\nQuestion: {sample.input}\n\nAnswer:",
        [grader("exact_match", (), "mlqa", context), grader("f1", (), "mlqa", context)],
        Decoding(max_new_tokens=64, stop_strings=("\n",)),
        source=SOURCE,
        licence=LICENCE,
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )
    return with_span_view(task)


def _sample(id: str, row: dict[str, object]) -> Sample:
    return make_sample(id, {**row, "title": ""})
