"""From a checked task file to a Task: templates, rows, samples, and the family of its kind."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lydite.data.files import read_rows
from lydite.errors import DataError, TaskError
from lydite.metrics.extract import LETTERS
from lydite.metrics.text import UNSPACED
from lydite.tasks.choice import choice_task
from lydite.tasks.common import Samples, fingerprint
from lydite.tasks.generate import GRADERS, generation_task, grader, metric_signatures
from lydite.tasks.heldout import heldout_task
from lydite.tasks.lastword import last_word_task
from lydite.tasks.own import TaskFile
from lydite.tasks.pairs import pairs_task
from lydite.tasks.templates import Template
from lydite.types import Decoding, Metric, Output, Sample, Score, Task


def build(path: Path, file: TaskFile) -> Task:
    """The Task of a task file. No data is read yet."""
    try:
        rows = _Rows(path, file)
        task = _family(file, rows.samples)
        task = _with_metrics(task, file.metrics) if file.metrics and file.kind != "generation" else task
    except TaskError as error:
        raise TaskError(f"{path}: {error}") from error
    settings = {"shots_by": file.shots_by} if file.shots_by else {}
    return replace(
        task,
        version=file.version,
        shots=file.shots,
        delimiter=file.delimiter,
        source=file.source,
        licence=file.licence,
        settings={**task.settings, **settings},
        fingerprint=fingerprint([path.read_text(encoding="utf-8")], [data for data in (rows.data, rows.shots) if data]),
        origin={"task_file": str(path.resolve()), "data": str(rows.data)},
    )


def _family(file: TaskFile, samples: Samples) -> Task:
    """The Task of the kind; every sample's `input` is its rendered prompt (of held-out text, the text)."""
    lead = file.answer_prefix if file.answer_prefix is not None else (" " if file.prompt else "")
    if file.kind == "multiple_choice":
        return choice_task(
            file.name,
            samples,
            _input,
            letters=file.letters,
            lead=lead,
            description=file.description,
            neutral=file.neutral,
        )
    if file.kind == "minimal_pairs":
        return pairs_task(file.name, samples, context=_input if file.prompt else _nothing, lead=lead)
    if file.kind == "last_word":
        return last_word_task(file.name, samples, lead=lead, description=file.description)
    if file.kind == "heldout":
        return heldout_task(file.name, samples, words=file.language not in UNSPACED)
    unknown = [name for name in file.metrics if name not in GRADERS]
    if unknown:
        raise TaskError(f"generation has no metric {unknown[0]!r}; it has {', '.join(GRADERS)}")
    names = file.metrics or ("exact_match",)
    return generation_task(
        file.name,
        samples,
        _input,
        [grader(name, file.extract, file.normalize, file.language) for name in names],
        Decoding(max_new_tokens=file.max_new_tokens, stop_strings=file.stop),
        answer=lambda sample: lead + sample.targets[0],
        description=file.description,
        settings=metric_signatures(names, file.language),
    )


def _input(sample: Sample) -> str:
    return sample.input


def _nothing(sample: Sample) -> str:
    return ""


def _with_metrics(task: Task, names: Sequence[str]) -> Task:
    """The task with these metrics only, in this order."""
    known = {metric.name: metric for metric in task.metrics}
    for name in names:
        if name not in known:
            raise TaskError(f"no metric {name!r} here; there are {', '.join(known)}")
    metrics: tuple[Metric, ...] = tuple(known[name] for name in names)

    def score(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
        return [one for one in task.score(sample, outputs) if one.metric in names]

    return replace(task, metrics=metrics, score=score)


class _Rows:
    """The templates of a task file, and the samples that they make of rows."""

    def __init__(self, path: Path, file: TaskFile) -> None:
        self.file = file
        self.data = path.parent / file.data
        self.shots = path.parent / file.shots_data if file.shots_data else None
        self.prompt = Template("prompt", file.prompt)
        self.text = Template("text", file.text)
        self.gold = Template("gold", file.gold) if isinstance(file.gold, str) else None
        many = file.choices if isinstance(file.choices, list) else []
        self.choices = [Template("choices", text) for text in many]
        self.choice_list = Template("choices", file.choices) if isinstance(file.choices, str) else None
        self.id = Template("id", file.id) if file.id else None
        self.cluster = Template("cluster", file.cluster) if file.cluster else None

    def samples(self, split: str) -> Iterator[Sample]:
        """Samples of "test", or of "shots": those of `shots_data`, else the same ones."""
        path, mark = (self.shots, "shots-") if split == "shots" and self.shots else (self.data, "")
        lines: dict[str, int] = {}
        for line, row in read_rows(path):
            try:
                sample = self._sample(mark, line, row)
                if sample.id in lines:
                    raise DataError(f"the id {sample.id!r} was used in line {lines[sample.id]} already")
            except DataError as error:
                raise DataError(f"{path}, line {line}: {error}") from error
            lines[sample.id] = line
            yield sample

    def _sample(self, mark: str, line: int, row: dict[str, Any]) -> Sample:
        file, parts = self.file, _common(self, mark, line, row)
        if file.kind == "heldout":
            text = self.text.text(row)
            if not text:
                raise DataError("the text is empty")
            return Sample(input=text, **parts)
        if file.kind in ("multiple_choice", "minimal_pairs"):
            choices = self._choices(row)
            gold = self._gold_choices(row, choices)
            shown = row
            if file.letters:
                lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=False)]
                shown = {**row, "lettered": "\n".join(lines)}
            return Sample(input=self.prompt.text(shown) or choices[0], choices=choices, gold=gold, fields=row, **parts)
        return Sample(input=self.prompt.text(row), targets=self._targets(row), fields=row, **parts)

    def _choices(self, row: dict[str, Any]) -> tuple[str, ...]:
        if self.choice_list is None:
            choices = tuple(template.text(row) for template in self.choices)
        else:
            found = self.choice_list.value(row)
            if not isinstance(found, list | tuple):
                hint = 'choices = ["{{A}}", "{{B}}"] makes a list of columns'
                raise DataError(f"choices gives {found!r:.40}, and a list is needed; {hint}")
            choices = tuple(_plain_text("a choice", choice) for choice in found)
        if not choices:
            raise DataError("choices is empty")
        if len(choices) < 2 or (self.file.kind == "minimal_pairs" and len(choices) != 2):
            needed = "two" if self.file.kind == "minimal_pairs" else "at least two"
            raise DataError(f"choices has {len(choices)}, and {needed} are needed")
        if "" in choices:
            raise DataError(f"choice {choices.index('')} is empty")
        if self.file.letters and len(choices) > len(LETTERS):
            raise DataError(f"{len(choices)} choices are more than there are letters")
        return choices

    def _gold_choices(self, row: dict[str, Any], choices: tuple[str, ...]) -> tuple[int, ...]:
        if self.gold is None:
            found: Any = self.file.gold
        elif self.file.gold == "":
            found = 0
        else:
            found = self.gold.value(row)
        many = found if isinstance(found, list | tuple) else [found]
        gold = sorted({index for one in many for index in gold_indices(one, choices)})
        if not gold:
            raise DataError("gold is empty")
        if len(gold) == len(choices):
            raise DataError("every choice is gold, so none can be wrong")
        return tuple(gold)

    def _targets(self, row: dict[str, Any]) -> tuple[str, ...]:
        found = self.gold.value(row) if self.gold is not None else self.file.gold
        many = found if isinstance(found, list | tuple) else [found]
        targets = tuple(_plain_text("gold", one) for one in many)
        if not targets or "" in targets:
            raise DataError("gold is empty")
        if self.file.kind == "last_word" and len(targets) > 1:
            raise DataError(f"gold has {len(targets)} texts, and last_word needs one")
        return targets


def _common(rows: _Rows, mark: str, line: int, row: dict[str, Any]) -> dict[str, Any]:
    """The parts that samples of every kind have. `mark` keeps ids of two files apart."""
    own = rows.id.text(row) if rows.id is not None else row.get("id")
    missing = [name for name in rows.file.metadata if name not in row]
    if missing:
        raise DataError(f"metadata: no column {missing[0]!r}; columns: {', '.join(row)}")
    return {
        "id": mark + (str(line) if own in (None, "") else str(own)),
        "cluster": rows.cluster.text(row) if rows.cluster else None,
        "metadata": {name: str(row[name]) for name in rows.file.metadata},
    }


def gold_indices(gold: Any, choices: Sequence[str]) -> list[int]:
    """Indices that a gold value means: a number is an index from 0; text is the text of a choice, else its letter,
    else an index in digits. Raises DataError where it is none of them."""
    if isinstance(gold, float) and gold.is_integer():
        gold = int(gold)
    if isinstance(gold, int) and not isinstance(gold, bool):
        if not 0 <= gold < len(choices):
            raise DataError(f"gold {gold} is out of range; {len(choices)} choices have indices 0 to {len(choices) - 1}")
        return [gold]
    if isinstance(gold, str):
        same = [index for index, choice in enumerate(choices) if choice.strip() == gold.strip()]
        if same:
            return same
        if gold.strip().upper() in set(LETTERS[: len(choices)]):
            return [LETTERS.index(gold.strip().upper())]
        if gold.strip().isdecimal():
            return gold_indices(int(gold), choices)
    raise DataError(
        f"gold {gold!r:.60} is out of range: neither index (0 to {len(choices) - 1}), letter nor text of a choice"
    )


def _plain_text(what: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{what} is {value!r:.40}, and text is needed")
