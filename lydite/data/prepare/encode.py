"""Texts to token ids and the tokens at which sentences start, in batches, through `tokenizers`.

Contract: the ids are those of `Tokenizer.encode(text, add_special_tokens=False)`. Text that spells a special token
(`<|endoftext|>`) is text and not that token, since a corpus may quote anything.

`encode_batch_fast` counts no offsets. For byte-level vocabularies none are needed: the bytes of each token are known, so that
sums of them say where each token starts. A document whose tokens do not add up to its bytes, and any other tokenizer, is
encoded with offsets.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lydite.data.prepare.sentences import sentence_starts
from lydite.data.prepare.words import word_encoder
from lydite.errors import DataError

Encoded = tuple[NDArray[np.uint32], NDArray[np.uint32]]
"""Token ids [tokens], and token offsets of sentences [sentences]."""


def load_tokenizer(folder: Path) -> Tokenizer:
    """tokenizer.json of a folder. Raises DataError where there is none, or one that cannot be read."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataError(
            f"no tokenizer in {folder}: {path.name} does not exist there; save one with AutoTokenizer.save_pretrained, or "
            "give --tokenizer bytes or characters"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise DataError(f"{path} is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def vocab_size(tokenizer: Tokenizer) -> int:
    """Largest id + 1; ids may have gaps."""
    return int(max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)) + 1


class Encoder:
    """Encodes batches of texts: words.py where it applies, else `tokenizers`."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = load_tokenizer(folder)
        whole: dict[str, Any] = msgspec.json.decode(self.tokenizer.to_str())
        self._lengths = _byte_lengths(self.tokenizer, whole)
        self._words = word_encoder(self.tokenizer, whole)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """A text to its ids and sentence starts, in order. A text without any token has empty arrays."""
        if self._lengths is None:
            return [self._with_offsets(text) for text in texts]
        found = []
        for text, ids in zip(texts, self._ids(texts), strict=True):
            starts = _starts(text, ids, self._lengths)
            found.append(self._with_offsets(text) if starts is None else (ids, starts))
        return found

    @functools.cached_property
    def _decoded(self) -> NDArray[np.int64] | None:
        return decoded_bytes(self.tokenizer)

    def align(self, text: str, ids: NDArray[np.uint32]) -> Encoded:
        """Ids that were there before, with the sentences of the text that they decode to; one where that cannot be seen."""
        starts = None if self._decoded is None else _starts(text, ids, self._decoded)
        return ids, np.zeros(1, np.uint32) if starts is None else starts

    def _ids(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """The ids of every text: by remembered words where that can be, else in one batch."""
        found = self._words.encode(texts) if self._words else [None] * len(texts)
        left = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        batch = iter(self.tokenizer.encode_batch_fast(left, add_special_tokens=False) if left else [])
        return [np.array(next(batch).ids, np.uint32) if ids is None else ids for ids in found]

    def _with_offsets(self, text: str) -> Encoded:
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        ids = np.array(encoding.ids, np.uint32)
        if not len(ids):
            return ids, np.zeros(0, np.uint32)
        ends = np.maximum.accumulate(np.array(encoding.offsets, np.int64)[:, 1])
        places = np.searchsorted(ends, sentence_starts(text), side="right")
        places[0] = 0
        return ids, np.unique(places[places < len(ids)]).astype(np.uint32)


def _starts(text: str, ids: NDArray[np.uint32], lengths: NDArray[np.int64]) -> NDArray[np.uint32] | None:
    """Tokens at which sentences start, from the bytes of each token; None where they do not add up to the text's."""
    ends = np.cumsum(lengths[ids])
    size = len(text) if text.isascii() else len(text.encode())
    if not len(ids) or int(ends[-1]) != size:
        return None
    starts = _in_bytes(text, sentence_starts(text))
    # The token that holds a sentence's first byte: the first whose end lies behind it.
    places = np.searchsorted(ends, starts, side="right")
    return places[np.diff(places, prepend=-1) > 0].astype(np.uint32)  # np.unique is slow on so few; these are in order


def _in_bytes(text: str, places: list[int]) -> NDArray[np.int64]:
    """Character offsets as UTF-8 byte offsets."""
    if text.isascii():
        return np.array(places, np.int64)
    edges = zip([0, *places[:-1]], places, strict=True)
    return np.cumsum([len(text[start:end].encode()) for start, end in edges])


def _byte_lengths(tokenizer: Tokenizer, whole: dict[str, Any]) -> NDArray[np.int64] | None:
    """UTF-8 bytes of every token of a byte-level tokenizer that changes nothing before; None for others."""
    levels = _byte_level(whole, "pre_tokenizer", "pretokenizers")
    if whole.get("normalizer") or not levels or any(level.get("add_prefix_space") for level in levels):
        return None
    return _alphabet_lengths(tokenizer)


def decoded_bytes(tokenizer: Tokenizer) -> NDArray[np.int64] | None:
    """UTF-8 bytes that every token decodes to, where the decoder is byte-level; None for others."""
    found = _byte_level(msgspec.json.decode(tokenizer.to_str()), "decoder", "decoders")
    return _alphabet_lengths(tokenizer) if found else None


def _byte_level(whole: dict[str, Any], key: str, inner: str) -> list[dict[str, Any]]:
    """The byte-level parts of a step of a tokenizer, which may be a sequence."""
    step = whole.get(key) or {}
    return [part for part in (step, *(step.get(inner) or [])) if part.get("type") == "ByteLevel"]


def _alphabet_lengths(tokenizer: Tokenizer) -> NDArray[np.int64]:
    lengths = np.zeros(vocab_size(tokenizer), np.int64)
    for token, number in tokenizer.get_vocab(with_added_tokens=False).items():
        lengths[number] = len(token)  # one character a byte, in GPT-2's alphabet
    for number, added in tokenizer.get_added_tokens_decoder().items():
        lengths[number] = len(added.content.encode())
    return lengths
