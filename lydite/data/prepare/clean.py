"""A chunk of raw documents to clean ones with their keys: the part of the work that runs in every process.

Contract: `clean` is a function of the chunk and the settings alone. A document that goes is counted under one reason, the
first that holds, in the order: empty, short, rules, language, overlap with evaluation items.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from lydite.data.prepare.duplicates import bands, content_key, minhash, small
from lydite.data.prepare.languages import language_of
from lydite.data.prepare.ngrams import Hashes, numbers, units
from lydite.data.prepare.overlap import Overlap
from lydite.data.prepare.recipe import Settings, Source
from lydite.data.prepare.rules import c4, gopher_quality, gopher_repetition
from lydite.data.prepare.sources import Chunk
from lydite.data.prepare.tokens import IDS, Decoder
from lydite.errors import DataError

Counts = dict[str, list[int]]
"""Reason to [documents, UTF-8 bytes]."""

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_JSON = msgspec.json.Decoder()


class Cleaned(NamedTuple):
    """What is left of a chunk: arrays have a row a kept document."""

    source: int
    size: int
    """Bytes read."""
    texts: list[bytes]
    tokens: list[bytes]
    """Ids of each text, uint32, where the chunk came as tokens; else empty."""
    keys: NDArray[np.uint64]
    """[documents, 2]: the hash of the content."""
    characters: NDArray[np.uint32]
    languages: list[str]
    """Empty strings where nobody asked."""
    bands: Hashes
    """[documents, BANDS], or no rows where near-duplicates stay."""
    signatures: NDArray[np.uint8]
    counts: Counts
    overlaps: list[dict[str, Any]]
    """A line of overlaps.jsonl for each document that held evaluation items."""


class Cleaner:
    """Settings, sources and banned n-grams, once a process; the folder of the tokenizer, where sources hold tokens."""

    def __init__(
        self, settings: Settings, sources: Sequence[Source], overlap: Overlap | None, tokenizer: Path | None = None
    ) -> None:
        self.settings, self.sources, self.overlap, self.tokenizer = settings, sources, overlap or None, tokenizer

    @cached_property
    def _decoder(self) -> Decoder:
        assert self.tokenizer is not None, "tokens come with a tokenizer"
        return Decoder(self.tokenizer)

    def clean(self, chunk: Chunk) -> Cleaned:
        """The documents of a chunk that stay, in order."""
        settings, counts = self.settings, Counts()
        keys, texts, lengths, languages, overlaps = list[bytes](), list[bytes](), list[int](), list[str](), list[Any]()
        documents, tokens = list[Hashes](), list[bytes]()
        for number, raw in chunk.items:
            for text, ids in self._documents(chunk, number, raw, counts):
                size = len(text.encode())
                language = self._language(chunk.source, text)
                text, words, values, reason = self._judge(text, language)
                if reason is None and self.overlap and (hit := self.overlap.find(words, values)):
                    reason = f"holds {hit.task}"
                    place = {"file": chunk.file, "line": number}
                    overlaps.append({**hit._asdict(), **place})
                if reason is not None:
                    _count(counts, reason, size)
                    continue
                keys.append(content_key(text, settings.seed))
                texts.append(text.encode())
                lengths.append(len(text))
                languages.append(language)
                if chunk.kind == "tokens":
                    tokens.append(ids)
                if settings.near_duplicates:
                    documents.append(values)
        signatures = minhash(documents, settings.near_ngram)
        return Cleaned(
            source=chunk.source,
            size=chunk.size,
            texts=texts,
            tokens=tokens,
            keys=np.frombuffer(b"".join(keys), "<u8").astype(np.uint64).reshape(-1, 2),
            characters=np.array(lengths, np.uint32),
            languages=languages,
            bands=bands(signatures),
            signatures=small(signatures),
            counts=counts,
            overlaps=overlaps,
        )

    def _documents(self, chunk: Chunk, number: int, raw: bytes | str, counts: Counts) -> Iterator[tuple[str, bytes]]:
        """The texts of one raw document, with ids if it has them: none if it is empty, several if it is too long."""
        source = self.sources[chunk.source]
        _count(counts, "read", len(raw) if isinstance(raw, bytes) else len(raw.encode("utf-8", "surrogatepass")))
        if chunk.kind == "tokens":
            yield from self._decoded(chunk, number, raw, counts)
            return
        text = _decode(chunk.file, number, raw) if isinstance(raw, bytes) else raw
        if chunk.kind == "json":
            text = _column(chunk.file, number, text, source.column)
        plain = normalize(text, self.settings.normalize)
        if plain != text.strip():
            _count(counts, "normalized", len(plain.encode()))
        if len(plain) < self.settings.min_characters:
            _count(counts, "short" if plain else "empty", len(plain.encode()))
            return
        pieces = list(cut(plain, self.settings.max_characters))
        if len(pieces) > 1:
            counts.setdefault("cut", [0, 0])
            counts["cut"][0] += len(pieces) - 1
        yield from ((piece, b"") for piece in pieces)

    def _decoded(self, chunk: Chunk, number: int, raw: bytes | str, counts: Counts) -> Iterator[tuple[str, bytes]]:
        """A document of tokens, whole and as it is."""
        assert isinstance(raw, bytes), "tokens are bytes"
        ids, text, within = self._decoder.decode(chunk.file, number, raw, chunk.width)
        if within:
            counts.setdefault("special", [0, 0])[0] += within
        if not len(ids) or len(text) < self.settings.min_characters:
            _count(counts, "short" if len(ids) else "empty", len(text.encode()))
            return
        yield text, ids.astype(IDS).tobytes()

    def _language(self, source: int, text: str) -> str:
        stated = self.sources[source].language
        return stated or (language_of(text) if self.settings.needs_language else "")

    def _judge(self, text: str, language: str) -> tuple[str, list[str], Hashes, str | None]:
        """The text, its units and their numbers, and why it goes."""
        rules = self.settings.rules
        if "c4" in rules:
            text, reason = c4(text, [len(units(line)) for line in text.split("\n")])
            if reason:
                return text, [], np.zeros(0, np.uint64), f"c4: {reason}"
        words = units(text) if rules or self.overlap or self.settings.near_duplicates else []
        values = numbers(words)
        reason = None
        if "gopher_quality" in rules and (why := gopher_quality(text, words, language)):
            reason = f"gopher_quality: {why}"
        elif "gopher_repetition" in rules and (why := gopher_repetition(text, words, values)):
            reason = f"gopher_repetition: {why}"
        elif self.settings.languages and language not in self.settings.languages:
            reason = f"language {language}"
        return text, words, values, reason


def _count(counts: Counts, reason: str, size: int) -> None:
    entry = counts.setdefault(reason, [0, 0])
    entry[0] += 1
    entry[1] += size


def normalize(text: str, form: Literal["NFC", "NFKC", "none"]) -> str:
    """Line breaks as \\n, no control characters or byte-order marks, lone surrogates as U+FFFD, the Unicode normal form,
    no white space at either end."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = _SURROGATE.sub("\ufffd", text)
        if form != "none" and not unicodedata.is_normalized(form, text):
            text = unicodedata.normalize(form, text)
    return _CONTROL.sub("", text).strip()


def cut(text: str, longest: int) -> Iterator[str]:
    """Pieces of at most `longest` characters that end at a blank line, else at a line, else at a space, else anywhere."""
    start = 0
    while len(text) - start > longest:
        end = next(
            (
                place + len(mark)
                for mark in ("\n\n", "\n", " ")
                if (place := text.rfind(mark, start + longest // 2, start + longest - 1)) >= 0
            ),
            start + longest,
        )
        yield text[start:end].strip()
        start = end
    if rest := text[start:].strip():
        yield rest


def _decode(file: str, number: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number + raw[: error.start].count(b"\n")
        raise DataError(f"{file}, line {line}: 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8") from None


def _column(file: str, number: int, line: str, column: str) -> str:
    try:
        row = _JSON.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(f"{file}, line {number}: not a line of JSON: {error}") from None
    if not isinstance(row, dict):
        raise DataError(f"{file}, line {number}: a JSON object is needed, and this is a {type(row).__name__}")
    if column not in row:
        raise DataError(
            f"{file}, line {number}: no column {column!r}; it has {', '.join(row) or 'none'}: use --set column=NAME"
        )
    text = row[column]
    if text is not None and not isinstance(text, str):
        raise DataError(f"{file}, line {number}: column {column!r} holds a {type(text).__name__}, and a text is needed")
    return text or ""
