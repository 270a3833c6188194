"""Exams by subject: MMLU in English (Hendrycks et al. 2021) and CMMLU in Chinese (Li et al. 2023).

Four choices are listed under the question and the letters are scored. Five examples come from the subject's dev
split, the first five as the benchmarks have it. Prompts are worded as in lm-evaluation-harness. Subjects form the
official categories, and all of them the whole; every question counts alike.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lydite.data.files import Row, read_csv, read_records
from lydite.metrics.extract import LETTERS
from lydite.tasks.choice import choice_task
from lydite.tasks.entry import Entry
from lydite.tasks.exam_subjects import CMMLU_CATEGORIES, CMMLU_SUBJECTS, MMLU_CATEGORIES
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import Sample, Task


@dataclass(frozen=True, kw_only=True)
class Exam:
    """What the two benchmarks differ in."""

    name: str
    language: str
    source: str
    licence: str
    repository: str
    subjects: Mapping[str, str]
    """Name to how the prompt calls it."""
    categories: Mapping[str, tuple[str, ...]]
    header: str
    """The description, with {subject}."""
    ask: str
    """The last line of a question."""
    about: str
    files: Callable[[str, str], tuple[str, ...]]
    """(split, subject) to paths."""
    read: Callable[[Path], Iterator[Row]]
    revision: str | None = None
    splits: str
    defects: str


def _headless(path: Path) -> Iterator[Row]:
    """MMLU's files have no header line."""
    for line, fields in read_records(path):
        yield line, dict(zip(("question", "A", "B", "C", "D", "answer"), fields, strict=True))


MMLU = Exam(
    name="mmlu",
    language="en",
    source="https://github.com/hendrycks/test",
    licence="MIT",
    repository="cais/mmlu",
    subjects={name: name.replace("_", " ") for names in MMLU_CATEGORIES.values() for name in names},
    categories=MMLU_CATEGORIES,
    header="The following are multiple choice questions (with answers) about {subject}.\n\n",
    ask="Answer:",
    about="English exam questions, 57 subjects",
    files=lambda split, subject: (f"mmlu/{split}/{subject}_{split}.csv", f"mmlu/data/{split}/{subject}_{split}.csv"),
    read=_headless,
    splits="dev 5 (examples), test 14,042 over all subjects (evaluated)",
    defects=(
        "about 6% of the questions have a wrong key, several right answers or no clear one, far more in some subjects, as "
        "virology (Gema et al. 2024); the questions stand on the web, so training data may hold them"
    ),
)
CMMLU = Exam(
    name="cmmlu",
    language="zh",
    source="https://github.com/haonan-li/CMMLU",
    licence="CC BY-NC-SA 4.0",
    repository="haonan-li/cmmlu",
    subjects=CMMLU_SUBJECTS,
    categories=CMMLU_CATEGORIES,
    header="以下是关于{subject}的单项选择题，请直接给出正确答案的选项。\n\n",
    ask="答案：",
    about="Chinese exam questions, 67 subjects",
    files=lambda split, subject: (f"cmmlu/{split}/{subject}.csv",),
    read=read_csv,
    revision="refs/convert/parquet",
    splits="dev 5 (examples), test at least 100 a subject (evaluated)",
    defects=(
        "subjects are small, so that an interval is up to 10 points to either side; the questions come from public exams, so "
        "training data may hold them"
    ),
)


def entries() -> list[Entry]:
    """A task for each subject, a group for each category, and the wholes."""
    return [entry for exam in (MMLU, CMMLU) for entry in _entries(exam)]


def _entries(exam: Exam) -> list[Entry]:
    def entry(name: str, kind: str, description: str, **more: Any) -> Entry:
        return Entry(
            name=name,
            kind=kind,
            source=exam.source,
            licence=exam.licence,
            languages=(exam.language,),
            description=description,
            **more,
        )

    tasks = [
        entry(
            f"{exam.name}_{subject}",
            "multiple_choice",
            f"{exam.about.split(',')[0]}: {subject.replace('_', ' ')}",
            load=partial(load, exam, subject),
            listed=False,
            splits=exam.splits,
            chance="acc 0.25",
            defects=exam.defects,
        )
        for subject in exam.subjects
    ]
    categories = [
        entry(
            f"{exam.name}_{category}",
            "group",
            f"{exam.name.upper()}: {category.replace('_', ' ')}",
            members=tuple(f"{exam.name}_{subject}" for subject in subjects),
        )
        for category, subjects in exam.categories.items()
    ]
    whole = entry(exam.name, "group", exam.about, members=tuple(task.name for task in tasks))
    return [*tasks, *categories, whole]


def load(exam: Exam, subject: str, data_dir: Path | None) -> Task:
    """The task of one subject."""
    source = Source(
        files={"test": exam.files("test", subject), "shots": exam.files("dev", subject)},
        read=exam.read,
        repository=exam.repository,
        configuration=subject,
        splits={"test": "test", "shots": "dev"},
        revision=exam.revision,
    )
    found = find(f"{exam.name}_{subject}", source, data_dir)

    def question(sample: Sample) -> str:
        lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, sample.choices, strict=False)]
        return "\n".join([sample.input, *lines, exam.ask])

    return choice_task(
        found.name,
        samples_of(found, partial(_sample, subject)),
        question,
        letters=True,
        description=exam.header.format(subject=exam.subjects[subject]),
        shots=5,
        settings={"shots_by": "first_n"},
        source=exam.source,
        licence=exam.licence,
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )


def _sample(subject: str, id: str, row: dict[str, Any]) -> Sample:
    question = row["Question"] if "Question" in row else row["question"]
    answer = row["Answer"] if "Answer" in row else row["answer"]
    # The files have a column a letter, the hub's copy of MMLU a list and an index.
    choices = tuple(row["choices"]) if "choices" in row else tuple(row[letter] for letter in "ABCD")
    gold = answer if isinstance(answer, int) else "ABCD".index(answer.strip())
    return Sample(id=id, input=question.strip(), choices=choices, gold=(gold,), metadata={"subject": subject})
