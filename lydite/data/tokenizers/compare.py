"""Tokenizers beside one another on the same texts: what each makes of them, how fast, and what it loses.

Compression   UTF-8 bytes, and characters, of the text over its tokens; special tokens are never counted.
Fertility     tokens a word (words: what stands between white space; Rust et al. 2021, "How Good is Your Tokenizer?"), and in
              a text whose letters are mostly Chinese, Japanese, Thai, Lao, Khmer or Burmese, which are written without
              spaces, tokens a character that is no white space.
Unknown       share of tokens that stand for what the tokenizer cannot write.
Round trip    share of texts that decode to exactly themselves.
Used          share of the vocabulary that occurs in the texts.

Contract: counts are exact and do not depend on how the texts are batched; only the speed is a measurement.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from lydite.errors import DataError
from lydite.types import Record

OnProgress = Callable[[str, int], None]
"""Hears what is compared, and how many texts are done."""
_BATCH = 256
_NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
)
_LONGEST_EXAMPLE = 80


class TextCounts(Record, frozen=True, kw_only=True):
    """One text file as one tokenizer has it."""

    text: str
    """The name of the text."""
    unit: str
    """What fertility counts: "word" or "character"."""
    num_texts: int
    num_units: int
    num_characters: int
    num_bytes: int
    num_tokens: int
    num_unknown: int
    num_exact: int
    """Texts that decode to themselves."""
    broken: tuple[str, str] | None = None
    """The first text that does not, from a little before the place where it differs, and what came back."""

    @property
    def bytes_per_token(self) -> float:
        return self.num_bytes / self.num_tokens

    @property
    def characters_per_token(self) -> float:
        return self.num_characters / self.num_tokens

    @property
    def fertility(self) -> float:
        return self.num_tokens / self.num_units

    @property
    def unknown_rate(self) -> float:
        return self.num_unknown / self.num_tokens

    @property
    def round_trip(self) -> float:
        return self.num_exact / self.num_texts


class TokenizerRow(Record, frozen=True, kw_only=True):
    """One tokenizer on all texts."""

    name: str
    kind: str
    """Model of `tokenizers`: BPE, WordPiece, Unigram ..., or the class."""
    vocab_size: int
    num_used: int
    """Distinct tokens that occurred."""
    bytes_per_second: float
    """UTF-8 bytes of text encoded a second."""
    counts: tuple[TextCounts, ...]


class Comparison(Record, frozen=True, kw_only=True):
    """comparison.json."""

    schema: int = 1
    rows: tuple[TokenizerRow, ...]


Texts = Mapping[str, Callable[[], Iterable[str]]]
"""Name of a text to its texts, which are asked for once a tokenizer."""


def compare_tokenizer(
    name: str, tokenizer: Any, texts: Texts, on_progress: OnProgress = lambda what, done: None
) -> TokenizerRow:
    """Counts a transformers tokenizer on every text. Raises DataError where a text is empty."""
    used: set[int] = set()
    counts, seconds = [], 0.0
    for label, read in texts.items():
        tally = _Tally(label)
        for batch in _batches(read()):
            start = time.perf_counter()
            ids = tokenizer(batch, add_special_tokens=False, return_attention_mask=False)["input_ids"]
            seconds += time.perf_counter() - start
            decoded = tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False)
            tally.add(batch, ids, decoded, tokenizer.unk_token_id)
            used.update(*ids)
            on_progress(f"{name}: {label}", tally.num_texts)
        counts.append(tally.finish())
    return TokenizerRow(
        name=name,
        kind=_kind(tokenizer),
        vocab_size=len(tokenizer),
        num_used=len(used),
        bytes_per_second=sum(count.num_bytes for count in counts) / max(seconds, 1e-9),
        counts=tuple(counts),
    )


class _Tally:
    """Running counts of one text."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.num_texts = self.num_words = self.num_solid = self.num_unspaced = self.num_letters = 0
        self.num_characters = self.num_bytes = self.num_tokens = self.num_unknown = self.num_exact = 0
        self.broken: tuple[str, str] | None = None

    def add(self, batch: list[str], ids: list[list[int]], decoded: list[str], unknown: int | None) -> None:
        for text, tokens, back in zip(batch, ids, decoded, strict=True):
            words = text.split()
            self.num_texts += 1
            self.num_words += len(words)
            self.num_solid += sum(map(len, words))
            self.num_unspaced += len(_NO_SPACES.findall(text))
            self.num_letters += sum(map(str.isalpha, text))
            self.num_characters += len(text)
            self.num_bytes += len(text.encode("utf-8", "replace"))
            self.num_tokens += len(tokens)
            self.num_unknown += tokens.count(unknown) if unknown is not None else 0
            self.num_exact += text == back
            if text != back and self.broken is None:
                self.broken = _example(text, back)

    def finish(self) -> TextCounts:
        if not self.num_texts or not self.num_tokens:
            raise DataError(f"{self.label} holds no text to compare on")
        by_character = 2 * self.num_unspaced > self.num_letters
        return TextCounts(
            text=self.label,
            unit="character" if by_character else "word",
            num_texts=self.num_texts,
            num_units=self.num_solid if by_character else self.num_words,
            num_characters=self.num_characters,
            num_bytes=self.num_bytes,
            num_tokens=self.num_tokens,
            num_unknown=self.num_unknown,
            num_exact=self.num_exact,
            broken=self.broken,
        )


def _example(text: str, back: str) -> tuple[str, str]:
    """Both from a little before the first difference, cut to a length that can be shown."""
    same = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
    start = max(0, same - 12)
    return text[start : start + _LONGEST_EXAMPLE], back[start : start + _LONGEST_EXAMPLE]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _kind(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return type(backend.model).__name__ if backend is not None else type(tokenizer).__name__
