"""WikiText-2: the held-out articles of Wikipedia that language models are measured on (Merity et al. 2017).

Each article is a document. What is scored is the text with the tokenisation of the file undone, in the way of
lm-evaluation-harness; words and bytes are those of the file. Perplexities of other systems that score the file as
one stream, or per subword, are not comparable.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lydite.data.files import Row, read_lines
from lydite.metrics.perplexity import num_bytes, num_words
from lydite.tasks.entry import Entry
from lydite.tasks.heldout import heldout_task
from lydite.tasks.sources import Source, find, samples_of
from lydite.types import Sample, Task

SOURCE = "https://huggingface.co/datasets/EleutherAI/wikitext_document_level"
LICENCE = "CC BY-SA 4.0"

TITLE = re.compile(r" = [^=].* = \s*")
"""The line with the title of an article; sections have more signs."""
PAGE = 6000
"""Characters after which a file without titles is cut, at the end of a line."""


def entries() -> list[Entry]:
    """wikitext2."""
    about = "Articles of the English Wikipedia"
    return [
        Entry(
            name="wikitext2",
            kind="heldout",
            source=SOURCE,
            licence=LICENCE,
            description=about,
            load=load,
            splits="train 629 pages, validation 60, test 62 (evaluated)",
            chance="none",
            defects=(
                "pages are stored in tokens and detokenised here as in lm-evaluation-harness, bytes and words counted before "
                "that; Wikipedia is training data of nearly every model"
            ),
        )
    ]


def load(data_dir: Path | None) -> Task:
    """The task."""
    source = Source(
        files={
            "test": (
                "wikitext-2-raw/wiki.test.raw",
                "wikitext-2/wiki.test.raw",
                "wikitext-2/test.txt",
                "corpora/wikitext-2/test.txt",
            )
        },
        read=read_documents,
        repository="EleutherAI/wikitext_document_level",
        configuration="wikitext-2-raw-v1",
        splits={"test": "test"},
    )
    found = find("wikitext2", source, data_dir)
    return heldout_task(
        "wikitext2",
        samples_of(found, _sample),
        source=SOURCE,
        licence=LICENCE,
        fingerprint=found.fingerprint(),
        origin=found.origin,
    )


def read_documents(path: Path) -> Iterator[Row]:
    """Yields (first line, {"page": text}) for each article. A file from which the titles were taken out is cut into
    pages of whole lines of a little over PAGE characters."""
    lines = list(read_lines(path))
    titled = any(TITLE.fullmatch(line) for _, line in lines)
    first, page = 1, ""
    for number, line in lines:
        if TITLE.fullmatch(line) if titled else len(page) > PAGE:
            if page.strip():
                yield first, {"page": page}
            first, page = number, ""
        page += line + "\n"
    if page.strip():
        yield first, {"page": page}


def _sample(id: str, row: dict[str, Any]) -> Sample:
    page = row["page"]
    return Sample(id=id, input=detokenize(page), fields={"num_words": num_words(page), "num_bytes": num_bytes(page)})


_REPLACEMENTS = (
    [("s '", "s'")] + [(f" @{sign}@ ", sign) for sign in "-,."] + [(f" {sign} ", f"{sign} ") for sign in ":;.!?,"]
)
_BRACKETS = [
    (r"\(", r"[^)]", r"\)"),
    (r"\[", r"[^\]]", r"\]"),
    (r"\{", r"[^}]", r"\}"),
    ('"', '[^"]', '"'),
    ("'", "[^']", "'"),
]
_LAST = [("= " * count + "=", "=" * (count + 1)) for count in (3, 2, 1)] + [
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
]


def detokenize(page: str) -> str:
    """The page as people write it: the same steps in the same order as lm-evaluation-harness's detokenizer, without the
    one that never matches."""
    for old, new in _REPLACEMENTS:
        page = page.replace(old, new)
    for left, inside, right in _BRACKETS:
        page = re.sub(rf"({left})\s*({inside}*?)\s*({right})", r"\1\2\3", page)
    for old, new in _LAST:
        page = page.replace(old, new)
    return page
