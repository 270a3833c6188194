"""XQuAD: questions about paragraphs, in twelve languages with the same contents (Artetxe et al. 2020).

Answered by generation up to the end of the line, zero-shot. Exact match and F1 use SQuAD's normalisation as XQuAD's
own evaluation does; in Chinese F1 counts characters. Questions about one paragraph form a cluster.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lydite.data.files import Row, read_whole
from lydite.tasks.common import fingerprint
from lydite.tasks.entry import Entry
from lydite.tasks.generate import generation_task, grader
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import Decoding, Sample, Task

SOURCE = "https://github.com/google-deepmind/xquad"
LICENCE = "CC BY-SA 4.0"

WORDS = {
    "ar": ("سياق", "سؤال", "إجابة"),
    "de": ("Kontext", "Frage", "Antwort"),
    "el": ("Συμφραζόμενα", "Ερώτηση", "Απάντηση"),
    "en": ("Context", "Question", "Answer"),
    "es": ("Contexto", "Pregunta", "Respuesta"),
    "hi": ("प्रसंग", "सवाल", "उत्तर"),
    "ro": ("Context", "Întrebare", "Răspuns"),
    "ru": ("Контекст", "Вопрос", "Ответ"),
    "th": ("บริบท", "คำถาม", "คำตอบ"),
    "tr": ("Bağlam", "Soru", "Cevap"),
    "vi": ("Bối cảnh", "Câu hỏi", "Trả lời"),
    "zh": ("语境", "问题", "回答"),
}
"""What prompts call paragraph, question and answer: the words of lm-evaluation-harness (lm_eval/tasks/xquad, 0.4.13), so
that prompts are the same; but its Arabic word for the paragraph lacks the last letter, which stands here."""
VERSIONS = {"zh": 2}
"""Of tasks whose prompt has changed; the others are at 1."""


def entries() -> list[Entry]:
    """A task for each language."""
    return [
        Entry(
            name=f"xquad_{language}",
            kind="generation",
            source=SOURCE,
            licence=LICENCE,
            languages=(language,),
            description="Questions about a paragraph",
            load=partial(load, language),
            listed=language in ("en", "zh", "de"),
            splits="test 1,190 questions on 240 paragraphs (evaluated; no examples)",
            chance="exact_match 0",
            defects=(
                "a translation of SQuAD's development set, which models may have seen in English; a right answer in other "
                "words counts as wrong"
            ),
        )
        for language in WORDS
    ]


def load(language: str, data_dir: Path | None) -> Task:
    """The task of one language."""
    source = Source(
        files={"test": (f"xquad/xquad.{language}.json",)},
        read=read_squad,
        repository="google/xquad",
        configuration=f"xquad.{language}",
        splits={"test": "validation"},
    )
    found = find(f"xquad_{language}", source, data_dir)
    context, question, answer = WORDS[language]
    # XQuAD sets no examples aside, and test questions must not answer each other: no shots.
    task = generation_task(
        found.name,
        samples_of(found, _sample),
        lambda sample: f"{context}: {sample.fields['context']}\n\n{question}: {sample.input}\n\n{answer}:",
        [grader("exact_match", (), "squad", language), grader("f1", (), "squad", language)],
        Decoding(max_new_tokens=64, stop_strings=("\n",)),
        source=SOURCE,
        licence=LICENCE,
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )
    return dataclasses.replace(task, shot=None, version=VERSIONS.get(language, 1))


def read_squad(path: Path) -> Iterator[Row]:
    """Yields (number of the question, row as on the hub) from a file in SQuAD's nested layout."""

    def rows(content: Any) -> Iterator[dict[str, Any]]:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for ask in paragraph["qas"]:
                    about = {"title": article.get("title", ""), "context": paragraph["context"]}
                    yield about | {name: ask[name] for name in ("id", "question", "answers")}

    return read_whole(path, "SQuAD", rows)


def _sample(id: str, row: dict[str, Any]) -> Sample:
    answers = row["answers"]
    texts = answers["text"] if isinstance(answers, dict) else [answer["text"] for answer in answers]
    return Sample(
        id=row["id"],
        input=row["question"],
        targets=tuple(texts),
        fields={"context": row["context"]},
        cluster=fingerprint([row["context"]]),
    )
