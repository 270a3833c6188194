"""XNLI in fifteen languages and PAWS-X in seven: the same task wherever the language.

Worded as in lm-evaluation-harness: premise, a word for "right?", one word for each label, and hypothesis are one text, and
the likeliest of these texts is the answer. Its odd words (Arabic "no" is the word for number) are kept, so that numbers
compare. What is evaluated is the official test split, whose labels are public.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lydite.data.files import Row, read_jsonl, read_tsv
from lydite.metrics.choice import ACC
from lydite.tasks.entry import Entry, group_of
from lydite.tasks.labelled import Spec, entries_of, pair, spelled
from lydite.tasks.wsc import detokenized

XNLI_SOURCE = "https://github.com/facebookresearch/XNLI"
PAWSX_SOURCE = "https://github.com/google-research-datasets/paws/tree/master/pawsx"

XNLI_WORDS = {
    "ar": ("صحيح", "نعم", "لذا", "رقم"),
    "bg": ("правилно", "да", "така", "не"),
    "de": ("richtig", "Ja", "Auch", "Nein"),
    "el": ("σωστός", "Ναί", "Έτσι", "όχι"),
    "en": ("right", "Yes", "Also", "No"),
    "es": ("correcto", "Sí", "Asi que", "No"),
    "fr": ("correct", "Oui", "Aussi", "Non"),
    "hi": ("सही", "हाँ", "इसलिए", "नहीं"),
    "ru": ("правильно", "Да", "Так", "Нет"),
    "sw": ("sahihi", "Ndiyo", "Hivyo", "Hapana"),
    "th": ("ถูกต้อง", "ใช่", "ดังนั้น", "ไม่"),
    "tr": ("doğru", "Evet", "Böylece", "Hayır"),
    "ur": ("صحیح", "جی ہاں", "اس لئے", "نہیں"),
    "vi": ("đúng", "Vâng", "Vì vậy", "Không"),
    "zh": ("正确", "是的", "所以", "不是的"),
}
"""Language to its word for right, and for entailment, neutral, contradiction."""
PAWSX_WORDS = {
    "de": ("richtig", "Nein", "Ja"),
    "en": ("right", "No", "Yes"),
    "es": ("verdad", "No", "Sí"),
    "fr": ("n'est-ce pas", "Non", "Oui"),
    "ja": ("ですね", "いいえ", "はい"),
    "ko": ("맞죠", "아니요", "예"),
    "zh": ("对吧", "不是", "是"),
}
"""Language to its word for right, and for different, paraphrase."""


def read_xnli(language: str, path: Path) -> Iterator[Row]:
    """Rows of one language from a file that holds all of them."""
    for number, row in read_jsonl(path) if path.suffix == ".jsonl" else read_tsv(path):
        if row["language"] == language:
            yield number, row


def _xnli_choices(language: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    right, *words = XNLI_WORDS[language]
    return tuple(f"{row['premise']}, {right}? {word}, {row['hypothesis']}" for word in words)


def _xnli(language: str) -> Spec:
    def paths(split: str) -> tuple[str, ...]:
        names = (f"xnli.{split}.tsv", f"xnli.{split}.jsonl")
        return tuple(f"{folder}/{name}" for folder in ("xnli", "xnli/XNLI-1.0") for name in names)

    return Spec(
        name=f"xnli_{language}",
        description="Entailment between sentences",
        files={"test": (*paths("test"), *paths("dev")), "shots": paths("dev")},
        other_splits={"xnli.dev.tsv": "validation", "xnli.dev.jsonl": "validation"},
        read=partial(read_xnli, language),
        hub=("facebook/xnli", language),
        hub_splits={"test": "test", "shots": "validation"},
        columns={"premise": ("premise", "sentence1"), "hypothesis": ("hypothesis", "sentence2")},
        label=("label", "gold_label"),
        labels=("entailment", "neutral", "contradiction"),
        words=(),
        choices=partial(_xnli_choices, language),
        question=lambda row: "",
        text_to_text=spelled("xnli:", {"premise": "premise", "hypothesis": "hypothesis"}),
        texts=pair("premise", "hypothesis"),
        metrics=(ACC,),
        source=XNLI_SOURCE,
        licence="CC BY-NC 4.0",
        languages=(language,),
        splits="dev 2,490 (examples), test 5,010 (evaluated)",
        defects=(
            "test sentences are human translations of English ones; lm-evaluation-harness evaluates the dev split and takes "
            "examples from machine-translated training data, and some of its words are odd (Arabic 'no' means number)"
        ),
    )


def _pawsx_adapt(language: str, fields: dict[str, Any]) -> dict[str, Any] | None:
    """Adds the sentences as the choices have them: detokenised, the first without its last sign, the second beginning
    with a small letter; in Chinese, Japanese and Korean as they are. Rows with an empty sentence are left out."""
    if not fields["sentence1"] or not fields["sentence2"]:
        return None
    if language in ("zh", "ja", "ko"):
        return {**fields, "first": fields["sentence1"], "second": fields["sentence2"]}
    first, second = (detokenized(fields[name]).strip() for name in ("sentence1", "sentence2"))
    return {**fields, "first": re.sub(r"[.,;]$", "", first), "second": second[0].lower() + second[1:]}


def _pawsx_choices(language: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    right, *words = PAWSX_WORDS[language]
    return tuple(f"{row['first']}, {right}? {word}, {row['second']}" for word in words)


def _pawsx(language: str) -> Spec:
    def paths(name: str) -> tuple[str, ...]:
        return tuple(f"{folder}/{language}/{name}_2k.tsv" for folder in ("pawsx", "x-final", "pawsx/x-final"))

    return Spec(
        name=f"pawsx_{language}",
        description="Do sentences with the same words mean the same?",
        files={"test": paths("test"), "shots": paths("dev")},
        read=read_tsv,
        hub=("google-research-datasets/paws-x", language),
        hub_splits={"test": "test", "shots": "validation"},
        columns={"sentence1": ("sentence1",), "sentence2": ("sentence2",)},
        labels=("different", "paraphrase"),
        words=(),
        choices=partial(_pawsx_choices, language),
        adapt=partial(_pawsx_adapt, language),
        question=lambda row: "",
        text_to_text=spelled("pawsx:", {"sentence1": "sentence1", "sentence2": "sentence2"}),
        texts=pair("sentence1", "sentence2"),
        metrics=(ACC,),
        lead="",
        source=PAWSX_SOURCE,
        licence="free to use with attribution",
        languages=(language,),
        splits="dev 2,000 (examples), test 2,000 (evaluated)",
        defects=(
            "55% are no paraphrases; some dev and test rows have an empty sentence and are left out; lm-evaluation-harness "
            "takes examples from machine-translated training data"
        ),
    )


def entries() -> list[Entry]:
    """A task for each language, and the two groups."""
    found = []
    for name, source, licence, description, specs in (
        ("xnli", XNLI_SOURCE, "CC BY-NC 4.0", "Entailment in 15 languages", [_xnli(code) for code in XNLI_WORDS]),
        (
            "pawsx",
            PAWSX_SOURCE,
            "free to use with attribution",
            "Paraphrases in 7 languages",
            [_pawsx(code) for code in PAWSX_WORDS],
        ),
    ):
        leaves = [entry for spec in specs for entry in entries_of(spec)]
        found += [*leaves, group_of(name, description, leaves, source=source, licence=licence, weighting="tasks")]
    return found
