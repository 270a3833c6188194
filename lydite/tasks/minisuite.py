"""The bundled suite `mini`: thirteen kinds of small tasks in English and Chinese, written for this project.

Each task is a task file beside its data in the folder mini/, in the format of own data. It tells whether a set-up
works and roughly what a small model can do; with 24 to 40 items a task it does not rank good models.
"""

import dataclasses
from functools import partial
from pathlib import Path

from lydite.tasks.entry import Entry
from lydite.tasks.own import load_task_file, read_task_file
from lydite.types import Task

FOLDER = Path(__file__).parent / "mini"

KINDS = {
    "grammar": "minimal pairs of grammar",
    "commonsense": "what happens or helps in everyday life",
    "knowledge": "lasting facts about the world",
    "cloze": "the last word of a short passage",
    "sentiment": "good or bad opinion",
    "nli": "does one sentence follow from another",
    "paraphrase": "do two sentences say the same",
    "word_sense": "one word in two sentences: same sense or not",
    "reading": "questions about a passage, answered with words from it",
    "arithmetic": "word problems with one number as the answer",
    "code": "what Python prints",
    "summary": "a passage in one sentence",
    "translate": "sentences from English into Chinese and back",
}
SIZES = {"reading": 24, "arithmetic": 24, "code": 24, "summary": 24, "translate": 40}
"""Items of a task, where they are not 30."""
CHANCE = {
    **dict.fromkeys(("grammar", "sentiment", "paraphrase", "word_sense"), "acc 0.5"),
    **dict.fromkeys(("commonsense", "knowledge"), "acc 0.25"),
    "nli": "acc 0.333",
    **dict.fromkeys(("summary", "translate"), "none"),
}
"""What guessing gets, where it is not nothing."""


def _leaves(kind: str) -> dict[str, str]:
    """Language to task file of a kind; translations count to the language that is written."""
    if kind == "translate":
        return {"en": "translate_zh_en", "zh": "translate_en_zh"}
    return {language: f"{kind}_{language}" for language in ("en", "zh")}


def entries() -> list[Entry]:
    """The tasks, a group for each kind and each language, and the whole."""
    tasks = [_entry(stem) for kind in KINDS for stem in _leaves(kind).values()]
    kinds = [
        _group(f"mini_{kind}", f"Bundled: {about}", [f"mini_{stem}" for stem in _leaves(kind).values()], listed=False)
        for kind, about in KINDS.items()
    ]
    languages = [
        _group(f"mini_{code}", f"Bundled suite, {name} half", [f"mini_{_leaves(kind)[code]}" for kind in KINDS])
        for code, name in (("en", "English"), ("zh", "Chinese"))
    ]
    whole = _group("mini", "Bundled suite, runs offline", [g.name for g in kinds])
    of_tasks = [dataclasses.replace(group, weighting="tasks") for group in (*languages, whole)]
    return [*tasks, *kinds, *of_tasks]


def _entry(stem: str) -> Entry:
    file = read_task_file(FOLDER / f"{stem}.toml")
    kind = next(kind for kind in KINDS if stem in _leaves(kind).values())
    return Entry(
        name=file.name,
        kind=file.kind,
        source=file.source,
        licence=file.licence,
        languages=(file.language,),
        description=file.about,
        load=partial(_load, stem),
        listed=False,
        splits=f"{SIZES.get(kind, 30)} (evaluated; no examples)",
        chance=CHANCE.get(kind, "exact_match 0" if file.kind == "generation" else "acc near 0: any word may come"),
        defects="written to try things out: too few items to rank good models",
    )


def _group(name: str, description: str, members: list[str], listed: bool = True) -> Entry:
    languages = ("en", "zh") if name not in ("mini_en", "mini_zh") else (name.removeprefix("mini_"),)
    return Entry(
        name=name,
        kind="group",
        source="written for this suite",
        licence="Apache-2.0",
        languages=languages,
        description=description,
        members=tuple(members),
        listed=listed,
    )


def _load(stem: str, data_dir: Path | None) -> Task:
    task = load_task_file(FOLDER / f"{stem}.toml")
    # Another machine finds the task by its name, not at this path.
    return dataclasses.replace(task, origin={"data": f"lydite/tasks/mini/{stem}.jsonl"})
