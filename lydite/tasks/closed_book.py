"""Closed-book questions: TriviaQA, Natural Questions (open) and WebQuestions, answered without any text at hand.

Prompts and stops as in lm-evaluation-harness (Joshi et al. 2017; Kwiatkowski et al. 2019 as prepared by Lee et al. 2019;
Berant et al. 2013). Exact match over all accepted answers, normalised by each benchmark's own rule; F1 besides.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lydite.data.files import Row, read_jsonl, read_whole
from lydite.metrics.text import Normalization
from lydite.tasks.entry import About, Entry
from lydite.tasks.generate import generation_task, grader
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import Decoding, Sample, Task


@dataclass(frozen=True, kw_only=True)
class _Spec(About):
    """One benchmark."""

    source: Source
    how: Normalization
    make: Callable[[str, dict[str, Any]], Sample]
    question: Callable[[Sample], str]
    description: str = ""
    delimiter: str = "\n\n"
    stops: tuple[str, ...]


def entries() -> list[Entry]:
    """triviaqa, nq_open and webqs."""
    return [spec.entry(partial(load, spec), kind="generation", chance="exact_match 0") for spec in SPECS]


def load(spec: _Spec, data_dir: Path | None) -> Task:
    """The task of one benchmark."""
    found = find(spec.name, spec.source, data_dir)
    return generation_task(
        spec.name,
        samples_of(found, spec.make),
        spec.question,
        [grader("exact_match", (), spec.how), grader("f1", (), spec.how)],
        Decoding(max_new_tokens=32, stop_strings=spec.stops),
        description=spec.description,
        delimiter=spec.delimiter,
        source=spec.home,
        licence=spec.licence,
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )


# ------------------------------------------------------------------------------------------ layouts


def read_triviaqa(path: Path) -> Iterator[Row]:
    """Rows of the original file, named as on the hub."""

    def rows(content: Any) -> Iterator[dict[str, Any]]:
        for one in content["Data"]:
            answer = {"value": one["Answer"]["Value"], "aliases": one["Answer"]["Aliases"]}
            yield {"question_id": one["QuestionId"], "question": one["Question"], "answer": answer}

    return read_whole(path, "TriviaQA", rows)


_DESCRIPTION = re.compile(r'\(description (?:"((?:[^"\\]|\\.)*)"|([^)\s]+))\)')


def read_webquestions(path: Path) -> Iterator[Row]:
    """Rows of the original file, whose answers are a list in Lisp, named as on the hub."""

    def rows(content: Any) -> Iterator[dict[str, Any]]:
        for one in content:
            found = _DESCRIPTION.findall(one["targetValue"])
            answers = [re.sub(r"\\(.)", r"\1", quoted) or plain for quoted, plain in found]
            yield {"url": one["url"], "question": one["utterance"], "answers": answers}

    return read_whole(path, "WebQuestions", rows)


def _trivia(id: str, row: dict[str, Any]) -> Sample:
    answer = row["answer"]
    # The value first: it is what examples show. It is one of the aliases in nearly all rows.
    targets = tuple(dict.fromkeys([answer["value"], *answer["aliases"]]))
    name = str(row["question_id"])
    return Sample(id=f"shots-{name}" if id.startswith("shots-") else name, input=row["question"], targets=targets)


def _answers(column: str) -> Callable[[str, dict[str, Any]], Sample]:
    def make(id: str, row: dict[str, Any]) -> Sample:
        targets = tuple(row[column])
        if not targets:
            raise ValueError("the question has no answer")
        return Sample(id=id, input=row["question"], targets=targets)

    return make


SPECS = (
    _Spec(
        name="triviaqa",
        about="Trivia questions, answered from memory",
        home="https://nlp.cs.washington.edu/triviaqa/",
        licence="none stated (code Apache-2.0)",
        source=Source(
            files={
                "test": ("triviaqa-unfiltered/unfiltered-web-dev.json", "triviaqa/unfiltered-web-dev.json"),
                "shots": ("triviaqa-unfiltered/unfiltered-web-train.json", "triviaqa/unfiltered-web-train.json"),
            },
            read=read_triviaqa,
            repository="mandarjoshi/trivia_qa",
            configuration="unfiltered.nocontext",
            splits={"test": "validation", "shots": "train"},
        ),
        how="trivia",
        make=_trivia,
        question=lambda sample: f"Question: {sample.input}?\nAnswer:",
        stops=("\n", ".", ","),
        splits="train 87,622, dev 11,313 (evaluated), test 10,832 (server)",
        defects=(
            "lm-evaluation-harness asks the 17,944 rows of rc.nocontext, in which questions come twice; its wording ends "
            "questions in ?? and its stops cut answers at a full stop or comma (J. R. R. Tolkien), here as there"
        ),
    ),
    _Spec(
        name="nq_open",
        about="Questions put to a search engine, answered from memory",
        home="https://github.com/google-research-datasets/natural-questions/tree/master/nq_open",
        licence="CC BY-SA 3.0",
        source=Source(
            files={
                "test": ("nq_open/NQ-open.dev.jsonl", "nq_open/NQ-open.efficientqa.dev.1.1.jsonl"),
                "shots": ("nq_open/NQ-open.train.jsonl",),
            },
            read=read_jsonl,
            repository="google-research-datasets/nq_open",
            splits={"test": "validation", "shots": "train"},
        ),
        how="squad",
        make=_answers("answer"),
        question=lambda sample: f"Q: {sample.input}?\nA:",
        description="Answer these questions:\n\n",
        delimiter="\n",
        stops=("\n", ".", ","),
        splits="train 87,925, dev 3,610 (evaluated)",
        defects="a third of the dev questions have an answer that occurs in training; many right answers are not listed",
    ),
    _Spec(
        name="webqs",
        about="Questions to a search engine about entities, answered from memory",
        home="https://nlp.stanford.edu/software/sempre/",
        licence="CC BY 4.0",
        source=Source(
            files={
                "test": ("webquestions/webquestions.examples.test.json",),
                "shots": ("webquestions/webquestions.examples.train.json",),
            },
            read=read_webquestions,
            repository="stanfordnlp/web_questions",
            splits={"test": "test", "shots": "train"},
        ),
        how="squad",
        make=_answers("answers"),
        question=lambda sample: f"Question: {sample.input}\nAnswer:",
        stops=("\n",),
        splits="train 3,778, test 2,032 (evaluated)",
        defects=(
            "answers are those of Freebase in 2013; lm-evaluation-harness asks whether greedy decoding would write an "
            "answer letter for letter, here the written answer is compared after SQuAD's normalisation"
        ),
    ),
)
