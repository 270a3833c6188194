"""Own data: a task from a TOML file over rows. (One from a Python file: lydite.tasks.python_file.)

    [task]
    name = "openbookqa"
    kind = "multiple_choice"
    data = "openbookqa.jsonl"        # beside the task file
    prompt = "{{question}}"
    choices = "{{choices}}"
    gold = "{{gold}}"

Every key is known here or refused. Values with {{}} are templates over the columns of a row. A mistake in a row is one
line with file and line number.
"""

import difflib
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from lydite.data.files import check_file, read_text
from lydite.errors import TaskError
from lydite.metrics.extract import parse_rules
from lydite.metrics.text import NORMALIZATIONS, Normalization
from lydite.types import Task

Kind = Literal["multiple_choice", "minimal_pairs", "last_word", "generation", "heldout"]


class TaskFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of [task]."""

    name: str
    kind: Kind
    data: str
    """Path of the rows that are evaluated, from the folder of the task file: .jsonl, .csv, .tsv, .parquet."""
    prompt: str = ""
    """The question; everything that the model reads before it answers, without examples."""
    choices: str | list[str] = ""
    """One template that gives a list, or a list of templates."""
    gold: str | int = ""
    """The right answer: of choices the index from 0, the letter or the text; else the text, or a list of texts."""
    text: str = "{{text}}"
    """heldout: what is scored."""
    letters: bool = False
    """multiple_choice: score the letters; the prompt can show the choices as {{lettered}}."""
    neutral: str | None = None
    """multiple_choice: a question that says nothing; adds acc_pmi, which takes away how likely each choice is
    after it."""
    answer_prefix: str | None = None
    """Between prompt and answer; a space where there is a prompt."""
    shots: int = 0
    shots_data: str | None = None
    """Path of the rows that examples come from; without it they come from `data`, never the sample itself."""
    shots_by: Literal["first_n", "task", "sample"] | None = None
    description: str = ""
    delimiter: str = "\n\n"
    id: str | None = None
    """Template of the sample's name; the column `id`, else the number of the line."""
    cluster: str | None = None
    """Template; samples with equal clusters share a passage, an author ..."""
    metadata: tuple[str, ...] = ()
    """Columns to slice reports by."""
    metrics: tuple[str, ...] = ()
    """The headline first; all that the kind has."""
    stop: tuple[str, ...] = ("\n",)
    max_new_tokens: int = 256
    extract: tuple[str, ...] = ()
    """generation: rules that read the answer, see lydite.metrics.extract."""
    normalize: Normalization | None = None
    """generation: how exact_match compares: none, number, squad."""
    language: str = "en"
    source: str = ""
    licence: str = ""
    version: int = 1
    about: str = ""
    """One line for people."""


_EVERY = {
    "name",
    "kind",
    "data",
    "prompt",
    "shots",
    "shots_data",
    "shots_by",
    "description",
    "delimiter",
    "id",
    "cluster",
    "metadata",
    "metrics",
    "language",
    "source",
    "licence",
    "version",
    "about",
}
_SHOTS = {"shots", "shots_data", "shots_by", "description", "delimiter"}
_KEYS: dict[str, set[str]] = {
    "multiple_choice": _EVERY | {"choices", "gold", "letters", "neutral", "answer_prefix"},
    "minimal_pairs": (_EVERY - _SHOTS) | {"choices", "gold", "answer_prefix"},
    "last_word": _EVERY | {"gold", "answer_prefix"},
    "generation": _EVERY | {"gold", "answer_prefix", "stop", "max_new_tokens", "extract", "normalize"},
    "heldout": (_EVERY - _SHOTS - {"prompt"}) | {"text"},
}
_NEEDED: dict[str, tuple[str, ...]] = {
    "multiple_choice": ("prompt", "choices", "gold"),
    "minimal_pairs": ("choices",),
    "last_word": ("prompt", "gold"),
    "generation": ("prompt", "gold"),
    "heldout": (),
}


def load_task_file(path: Path) -> Task:
    """The Task that a TOML file describes. Raises TaskError for the file, DataError (when samples are read) for data."""
    from lydite.tasks.own_rows import build

    return build(path, read_task_file(path))


def read_task_file(path: Path) -> TaskFile:
    """The checked keys of a task file."""
    try:
        table = tomllib.loads(read_text(check_file(path)))
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"{path} is not TOML: {error}") from error
    if set(table) != {"task"} or not isinstance(table["task"], dict):
        found = ", ".join(f"[{name}]" for name in table) or "nothing"
        raise TaskError(f"{path}: a task file has one table [task], and this one has {found}")
    keys = table["task"]
    kind = keys.get("kind")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise TaskError(f"{path}: kind = {kind!r} is not known; known: {', '.join(_KEYS)}")
    for key in keys:
        if key not in _KEYS[kind]:
            near = difflib.get_close_matches(key, _KEYS[kind], n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise TaskError(f"{path}: unknown key {key!r} for {kind}; {hint}known: {', '.join(sorted(_KEYS[kind]))}")
    for key in ("name", "data", *_NEEDED[kind]):
        if keys.get(key) in (None, "", []) or (key == "name" and not str(keys[key]).strip()):
            raise TaskError(f"{path}: {kind} needs the key {key!r}")
    try:
        file = msgspec.convert(keys, TaskFile)
    except msgspec.ValidationError as error:
        raise TaskError(f"{path}: {error}") from error
    return _checked(path, file)


def _checked(path: Path, file: TaskFile) -> TaskFile:
    if file.normalize is not None and file.normalize not in NORMALIZATIONS:
        raise TaskError(f"{path}: normalize = {file.normalize!r} is not known; known: {', '.join(NORMALIZATIONS)}")
    if file.shots < 0 or file.max_new_tokens < 1:
        raise TaskError(f"{path}: shots must be 0 or more and max_new_tokens 1 or more")
    if "" in file.stop:
        raise TaskError(f"{path}: an empty stop string would end every answer at once")
    try:
        parse_rules(file.extract)
    except ValueError as error:
        raise TaskError(f"{path}: {error}") from error
    return file
