"""Translation: WMT, FLORES-200, Multi30k, and any pair of aligned files.

BLEU, chrF, chrF++ and TER over the corpus, with tokenizers for the target's language and sacrebleu's signature in ours.
Prompts are worded as lm-evaluation-harness words its WMT tasks. Two files are aligned by line; every sample keeps its
source, its references and the answer, so that any other tool can score the run again.
"""

import gzip
import html
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lydite.data.files import Row, read_lines
from lydite.errors import DataError
from lydite.metrics.translation import NAMES
from lydite.tasks.common import Samples, fingerprint
from lydite.tasks.entry import Entry, group_of
from lydite.tasks.generate import generation_task, grader, metric_signatures
from lydite.tasks.sources import Found, Source, find
from lydite.types import Decoding, Sample, Task

LANGUAGES = {
    "ar": ("Arabic", "arb_Arab"),
    "bn": ("Bengali", "ben_Beng"),
    "cs": ("Czech", "ces_Latn"),
    "de": ("German", "deu_Latn"),
    "en": ("English", "eng_Latn"),
    "es": ("Spanish", "spa_Latn"),
    "fi": ("Finnish", "fin_Latn"),
    "fr": ("French", "fra_Latn"),
    "hi": ("Hindi", "hin_Deva"),
    "id": ("Indonesian", "ind_Latn"),
    "it": ("Italian", "ita_Latn"),
    "ja": ("Japanese", "jpn_Jpan"),
    "ko": ("Korean", "kor_Hang"),
    "nl": ("Dutch", "nld_Latn"),
    "pl": ("Polish", "pol_Latn"),
    "pt": ("Portuguese", "por_Latn"),
    "ro": ("Romanian", "ron_Latn"),
    "ru": ("Russian", "rus_Cyrl"),
    "sw": ("Swahili", "swh_Latn"),
    "th": ("Thai", "tha_Thai"),
    "tr": ("Turkish", "tur_Latn"),
    "uk": ("Ukrainian", "ukr_Cyrl"),
    "ur": ("Urdu", "urd_Arab"),
    "vi": ("Vietnamese", "vie_Latn"),
    "zh": ("Chinese", "zho_Hans"),
}
"""ISO 639-1 to the name in prompts and the code of FLORES-200."""
_DECODING = Decoding(max_new_tokens=256, stop_strings=("\n",))


def entries() -> list[Entry]:
    """Tasks and groups of Multi30k, WMT and FLORES-200."""
    return [*_multi30k(), *_wmt(), *_flores()]


# ------------------------------------------------------------------------------------------ any two files


def aligned_files(
    name: str, source: Path | str, targets: Sequence[Path | str], source_language: str, target_language: str
) -> Task:
    """A task from files that are aligned by line: one of sources and one or more of references, plain or gzip.

    For Python task files:

        def task():
            return aligned_files("letters", "letters.en", ["letters.de"], "en", "de")
    """
    paths = [Path(source), *map(Path, targets)]
    if len(paths) < 2:
        raise DataError(f"{name}: name at least one file of references")

    def samples(split: str) -> Iterator[Sample]:
        for number, texts in _together(paths):
            yield Sample(id=str(number), input=texts[0], targets=texts[1:])

    return _task(
        name,
        samples,
        (source_language, target_language),
        num_references=len(paths) - 1,
        source="aligned files",
        licence="not stated",
        fingerprint=fingerprint([name], paths),
        origin={"data": ", ".join(map(str, paths))},
    )


def _task(name: str, samples: Samples, pair: tuple[str, str], num_references: int = 1, **about: Any) -> Task:
    said, wanted = (LANGUAGES[language][0] if language in LANGUAGES else language for language in pair)
    return generation_task(
        name,
        samples,
        lambda sample: f"{said} phrase: {sample.input}\n{wanted} phrase:",
        [grader(metric, language=pair[1]) for metric in NAMES],
        _DECODING,
        settings=metric_signatures(NAMES, pair[1], num_references=num_references),
        **about,
    )


def read_side(path: Path) -> Iterator[Row]:
    """Yields (number, {"text": line}) of one side: a line each, plain or .gz, or a segment each of WMT's .sgm."""
    if path.suffix == ".sgm":
        text = "\n".join(line for _, line in read_lines(path))
        for number, segment in enumerate(re.findall(r"<seg[^>]*>(.*?)</seg>", text, re.DOTALL), 1):
            yield number, {"text": html.unescape(" ".join(segment.split()))}
    elif path.suffix == ".gz":
        try:
            with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
                for number, line in enumerate(file, 1):
                    yield number, {"text": line.rstrip("\r\n")}
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a gzip file of UTF-8 text: {error}") from error
    else:
        for number, line in read_lines(path):
            yield number, {"text": line}


def _together(paths: Sequence[Path]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields (number, the texts of that line) where there is a source. Raises DataError where a file ends early."""
    sides = [read_side(path) for path in paths]
    missing = object()
    while True:
        rows = [next(side, missing) for side in sides]
        if all(row is missing for row in rows):
            return
        if missing in rows:
            short, longer = (
                paths[rows.index(missing)],
                next(p for p, r in zip(paths, rows, strict=True) if r is not missing),
            )
            raise DataError(
                f"{short} has fewer lines than {longer}; aligned files have one line for each of the other's"
            )
        number = rows[0][0]  # type: ignore[index]
        texts = tuple(row[1]["text"].strip() for row in rows)  # type: ignore[index]
        if texts[0]:
            yield number, texts


# ------------------------------------------------------------------------------------------ named sets


def _load(
    name: str, pair: tuple[str, str], source: Source, columns: tuple[str, str], about: dict[str, str], data: Path | None
) -> Task:
    """A task whose local files hold a side each (splits "test" and "test_target"), and whose rows on the hub hold both."""
    found = find(name, source, data)
    more: dict[str, Any] = {"fingerprint": found.fingerprint(), "origin": found.origin, **about}
    return _task(name, partial(_samples, found, columns), pair, **more)


def _samples(found: Found, columns: tuple[str, str], split: str) -> Iterator[Sample]:
    mark = "" if split == "test" else f"{split}-"
    if split in found.paths:
        target = f"{split}_target"
        if target not in found.paths:
            next(iter(found.rows(target)))  # raises, and says where it looked
        for number, texts in _together([found.paths[split], found.paths[target]]):
            yield Sample(id=f"{mark}{number}", input=texts[0], targets=texts[1:])
        return
    for number, row in found.rows(split):
        sides = row.get("translation", row)
        try:
            texts = tuple(sides[column].strip() for column in columns)
        except (KeyError, AttributeError) as error:
            raise DataError(
                f"{found.place(split)}, line {number}: no text {error}; columns: {', '.join(sides)}; this pair is only to "
                f"be had as files: {found.source.files['test'][0]}"
            ) from error
        if texts[0]:
            yield Sample(id=f"{mark}{number}", input=texts[0], targets=texts[1:])


def _entry(name: str, pair: tuple[str, str], source: Source, columns: tuple[str, str], **about: str) -> Entry:
    task_about = {"source": about["home"], "licence": about["licence"]}
    return Entry(
        name=name,
        kind="generation",
        source=about["home"],
        licence=about["licence"],
        languages=pair,
        description=f"{about['what']}, {LANGUAGES[pair[0]][0]} to {LANGUAGES[pair[1]][0]}",
        load=partial(_load, name, pair, source, columns, task_about),
        listed=False,
        splits=about["splits"],
        chance="none",
        defects=about["defects"],
    )


def _both_ways(*others: str) -> list[tuple[str, str]]:
    return [pair for other in others for pair in (("en", other), (other, "en"))]


def _multi30k() -> list[Entry]:
    members = []
    for pair in _both_ways("de", "fr"):
        files = {}
        for split, stem in (("test", "test_2016_flickr"), ("shots", "train")):
            for mark, language in (("", pair[0]), ("_target", pair[1])):
                files[split + mark] = (f"multi30k/{stem}.{language}.gz", f"multi30k/{stem}.{language}")
        source = Source(
            files=files,
            read=read_side,
            repository="bentrevett/multi30k",
            splits={"test": "test", "shots": "train"},
        )
        members.append(
            _entry(
                f"multi30k_{pair[0]}_{pair[1]}",
                pair,
                source,
                pair,
                home="https://github.com/multi30k/dataset",
                licence="none stated",
                what="Captions of pictures",
                splits="train 29,000, validation 1,014, test 2016 Flickr 1,000 (evaluated)",
                defects="the English captions came first and the others were translated from them; on the hub there is no French",
            )
        )
    return [
        *members,
        group_of("multi30k", "Captions of pictures, English with German and French", members, weighting="tasks"),
    ]


def _wmt() -> list[Entry]:
    members = []
    for year, others in (("14", ("fr", "de")), ("16", ("de", "ro"))):
        for pair in _both_ways(*others):
            other = pair[0] if pair[1] == "en" else pair[1]
            # In 2014 one file served both directions; from 2015 on each direction has its own.
            stem = f"newstest20{year}-" + (f"{other}en" if year == "14" else "".join(pair))
            source = Source(
                files={
                    "test": (f"wmt{year}/{stem}-src.{pair[0]}.sgm", f"wmt{year}/{'-'.join(pair)}.src"),
                    "test_target": (f"wmt{year}/{stem}-ref.{pair[1]}.sgm", f"wmt{year}/{'-'.join(pair)}.ref"),
                },
                read=read_side,
                repository=f"wmt/wmt{year}",
                configuration=f"{other}-en",
                splits={"test": "test", "shots": "validation"},
            )
            size = {"14fr": "3,003", "14de": "3,003", "16de": "2,999", "16ro": "1,999"}[year + other]
            members.append(
                _entry(
                    f"wmt{year}_{pair[0]}_{pair[1]}",
                    pair,
                    source,
                    pair,
                    home=f"https://www.statmt.org/wmt{year}/translation-task.html",
                    licence="free for research",
                    what=f"News, WMT 20{year}",
                    splits=f"test {size} (evaluated); `sacrebleu -t wmt{year} -l {'-'.join(pair)} --echo src` writes it too",
                    defects="half of the sources were translated from the other language, which makes them easier",
                )
            )
    return [
        *members,
        group_of(
            "wmt", "News of WMT 2014 and 2016, English with French, German and Romanian", members, weighting="tasks"
        ),
    ]


def _flores() -> list[Entry]:
    members = []
    for pair in _both_ways(*(language for language in LANGUAGES if language != "en")):
        codes = (LANGUAGES[pair[0]][1], LANGUAGES[pair[1]][1])
        folder = "flores200_dataset"
        source = Source(
            files={
                "test": (f"{folder}/devtest/{codes[0]}.devtest",),
                "test_target": (f"{folder}/devtest/{codes[1]}.devtest",),
                "shots": (f"{folder}/dev/{codes[0]}.dev",),
                "shots_target": (f"{folder}/dev/{codes[1]}.dev",),
            },
            read=read_side,
            repository="facebook/flores",
            configuration="-".join(codes),
            splits={"test": "devtest", "shots": "dev"},
            revision="refs/convert/parquet",
        )
        members.append(
            _entry(
                f"flores_{pair[0]}_{pair[1]}",
                pair,
                source,
                (f"sentence_{codes[0]}", f"sentence_{codes[1]}"),
                home="https://github.com/facebookresearch/flores/tree/main/flores200",
                licence="CC BY-SA 4.0",
                what="Sentences of Wikipedia",
                splits="dev 997 (examples), devtest 1,012 (evaluated); the test set is held back",
                defects=(
                    "all sources are English, so out of other languages the text is itself a translation; published numbers "
                    "are often spBLEU, whose tokenizer is a download: compare chrF++"
                ),
            )
        )
    return [
        *members,
        group_of("flores", "FLORES-200 devtest, English with 24 languages both ways", members, weighting="tasks"),
    ]
