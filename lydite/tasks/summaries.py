"""CNN/DailyMail, XSum and SAMSum: articles and chats to be summarised (Hermann et al. 2015 and See et al. 2017; Narayan,
Cohen and Lapata 2018; Gliwa et al. 2019).

ROUGE with stems, as the papers and lm-evaluation-harness have it, one line a sentence for ROUGE-Lsum. Besides it what the
summary does with its article: compression, coverage, density, novel n-grams, repetition, which describe and do not
judge. The prompt of CNN/DailyMail is lm-evaluation-harness's; it has no XSum and no SAMSum.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lydite.data.files import Row, read_lines, read_rows, read_text, read_whole
from lydite.errors import DataError
from lydite.metrics import rouge, summary
from lydite.metrics.words import words_of
from lydite.tasks.common import failed, failure
from lydite.tasks.entry import About, Entry
from lydite.tasks.generate import generation_task, metric_signatures, rouge_grader
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import Decoding, Output, Sample, Score, Task


@dataclass(frozen=True, kw_only=True)
class _Spec(About):
    """One benchmark."""

    source: Source
    article: str
    """Column of the text that is summarised."""
    summary: str
    prompt: Callable[[str], str]
    decoding: Decoding
    rules: tuple[str, ...] = ()
    """How the summary is read from the text; see lydite.metrics.extract."""
    version: int = 1


def entries() -> list[Entry]:
    """cnn_dailymail, xsum and samsum."""
    return [spec.entry(partial(load, spec), kind="generation", chance="none") for spec in SPECS]


def load(spec: _Spec, data_dir: Path | None) -> Task:
    """The task of one benchmark."""
    found = find(spec.name, spec.source, data_dir)
    task = generation_task(
        spec.name,
        samples_of(found, partial(_sample, spec)),
        lambda sample: spec.prompt(sample.input),
        [rouge_grader(name, stem=True, rules=spec.rules) for name in rouge.TYPES],
        spec.decoding,
        source=spec.home,
        licence=spec.licence,
        fingerprint=found.fingerprint(),
        origin=found.origin,
        version=spec.version,
        settings=metric_signatures(rouge.TYPES, stem=True, num_references=1),
    )
    return with_description(task)


def with_description(task: Task, language: str = "en") -> Task:
    """The task, whose samples' `input` is the article, with the metrics that describe summaries besides."""
    words = words_of(language)

    def score(sample: Sample, outputs: Sequence[Output]) -> Sequence[Score]:
        reason = failure(outputs)
        if reason is not None:
            return [*task.score(sample, outputs), *failed(sample, summary.METRICS, reason)]
        scores = task.score(sample, outputs)
        read = scores[0].answer or ""  # what ROUGE was computed of
        described = [
            Score(sample_id=sample.id, metric=name, value=value, stats=stats)
            for name, (value, stats) in summary.describe(sample.input, read, words).items()
        ]
        return [*scores, *described]

    settings = {**task.settings, "words": words.name}
    return dataclasses.replace(task, score=score, metrics=(*task.metrics, *summary.METRICS), settings=settings)


def _sample(spec: _Spec, id: str, row: dict[str, Any]) -> Sample:
    name = str(row["id"])
    return Sample(
        id=f"shots-{name}" if id.startswith("shots-") else name,
        input=row[spec.article].replace("\r\n", "\n"),
        targets=(row[spec.summary],),
    )


# ------------------------------------------------------------------------------------------ layouts


def read_cnn_dailymail(path: Path) -> Iterator[Row]:
    """Rows as on the hub, from rows, or from a list of addresses beside the folders of stories, cnn and dailymail.

    A story is named by the SHA-1 of its address. Lines after @highlight are the summary; a line without an end gets " ."
    as in the processing of See et al. 2017.
    """
    if path.suffix != ".txt":
        yield from read_rows(path)
        return
    top = path.parents[1]
    for number, line in read_lines(path):
        name = hashlib.sha1(line.strip().encode(), usedforsecurity=False).hexdigest()
        places = [top / paper / "stories" / f"{name}.story" for paper in ("cnn", "dailymail")]
        story = next((place for place in places if place.is_file()), None)
        if story is None:
            raise DataError(
                f"{path}, line {number}: no story {places[0]} (nor under dailymail); unpack both archives there"
            )
        yield number, {"id": name, **_story(read_text(story))}


_ENDS = (".", "!", "?", "...", "'", "`", '"', "’", "”", ")")


def _story(text: str) -> dict[str, str]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    article: list[str] = []
    highlights: list[str] = []
    after = False
    for line in lines:
        if line.startswith("@highlight"):
            after = True
        else:
            (highlights if after else article).append(line if line.endswith(_ENDS) else f"{line} .")
    return {"article": " ".join(article), "highlights": "\n".join(highlights)}


def read_list(path: Path) -> Iterator[Row]:
    """Rows of a JSON file that is one list, or of a file with a row a line."""
    if path.suffix != ".json":
        yield from read_rows(path)
        return

    def rows(content: Any) -> list[dict[str, Any]]:
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise TypeError("it is no list of objects")
        return content

    yield from read_whole(path, "SAMSum", rows)


SPECS = (
    _Spec(
        name="cnn_dailymail",
        about="News articles to a few sentences",
        home="https://github.com/abisee/cnn-dailymail",
        licence="Apache-2.0 (processing); the articles belong to CNN and the Daily Mail",
        source=Source(
            files={
                "test": ("cnn_dailymail/test.jsonl", "cnn_dailymail/url_lists/all_test.txt"),
                "shots": ("cnn_dailymail/train.jsonl", "cnn_dailymail/url_lists/all_train.txt"),
            },
            read=read_cnn_dailymail,
            repository="abisee/cnn_dailymail",
            configuration="3.0.0",
            splits={"test": "test", "shots": "train"},
        ),
        article="article",
        summary="highlights",
        prompt=lambda article: f"Summarize the following article:\n\n{article}\n\nSummary:",
        decoding=Decoding(max_new_tokens=128, stop_strings=("\n\n",)),
        splits="train 287,113, validation 13,368, test 11,490 (evaluated)",
        defects=(
            "the first three sentences of an article reach ROUGE-1 40; lm-evaluation-harness has no ROUGE-Lsum and, its "
            "YAML naming no stop, cuts at the first empty line, as here"
        ),
    ),
    _Spec(
        name="xsum",
        about="News articles to one sentence",
        home="https://github.com/EdinburghNLP/XSum",
        licence="MIT (code); the articles belong to the BBC",
        source=Source(
            files={
                "test": ("xsum/test.jsonl", "xsum/test.sample.jsonl"),
                "shots": ("xsum/train.jsonl", "xsum/train.sample.jsonl"),
            },
            read=read_rows,
            repository="EdinburghNLP/xsum",
            splits={"test": "test", "shots": "train"},
        ),
        article="document",
        summary="summary",
        prompt=lambda article: f"Summarize the following article in one sentence:\n\n{article}\n\nSummary:",
        # Not a stop string: after "Summary:" many models begin with a line break, and nothing would be left.
        decoding=Decoding(max_new_tokens=64, one_line=True),
        rules=("first_line",),
        version=3,
        splits="train 204,045, validation 11,332, test 11,334 (evaluated)",
        defects=(
            "the summary is the article's first sentence, which was taken out: in most of them something stands that the "
            "article does not say (Maynez et al. 2020)"
        ),
    ),
    _Spec(
        name="samsum",
        about="Chats to a short report",
        home="https://arxiv.org/abs/1911.12237",
        licence="CC BY-NC-ND 4.0",
        source=Source(
            files={
                "test": ("samsum/test.json", "samsum/test.jsonl"),
                "shots": ("samsum/train.json", "samsum/train.jsonl"),
            },
            read=read_list,
            repository="knkarthick/samsum",
            splits={"test": "test", "shots": "train"},
        ),
        article="dialogue",
        summary="summary",
        prompt=lambda chat: f"Summarize the following dialogue:\n\n{chat}\n\nSummary:",
        decoding=Decoding(max_new_tokens=96, one_line=True),
        rules=("first_line",),
        version=3,
        splits="train 14,732, validation 818, test 819 (evaluated)",
        defects="the chats were written for the corpus by linguists; a few training chats are empty",
    ),
)
