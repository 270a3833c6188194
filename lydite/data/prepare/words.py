"""Byte-level tokenizers by remembered words: the same ids as `tokenizers`, in less time on text whose words repeat.

A byte-level tokenizer cuts a text into words by a regular expression, and its model turns each word into tokens without
looking at the others. So the tokens of a word can be kept. What must agree is the cutting. It does where both engines agree
on what is a letter, a number and white space, so only texts of characters whose kind has not changed in any version of
Unicode since 2005 go this way; all others, texts that spell an added token, and Chinese, whose "words" are whole clauses that
hardly ever repeat, go through `tokenizers`. And the first texts are encoded both ways: a difference ends it.
"""

import json
import re
from array import array
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lydite.data.prepare.ngrams import is_han

_GPT2_ASCII = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII).findall
"""The same on ASCII, by `re`, which is faster."""
GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""What ByteLevel cuts by when nothing else is said (Radford et al. 2019)."""
_UNSAFE = re.compile("[^\t\n\r\x20-\x7e\xa0-\u017e\u2010-\u2027\u2030-\u205e\u3000-\u303f\u4e00-\u9fa5\uff01-\uff5e]")
_MOST = 1 << 19
"""Words that are remembered."""
_CHECKED = 8
"""Texts that are encoded both ways."""


class _Words(dict[str, bytes]):
    """Word to its ids, four bytes each."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._model = tokenizer.model
        self._letters = _byte_letters()

    def __missing__(self, word: str) -> bytes:
        if len(self) >= _MOST:
            self.clear()
        letters = word.encode().decode("latin-1").translate(self._letters)
        ids = array("I", [token.id for token in self._model.tokenize(letters)]).tobytes()
        self[word] = ids
        return ids


class WordEncoder:
    """`encode` gives the ids of a text, or None where `tokenizers` has to."""

    def __init__(self, tokenizer: Tokenizer, pattern: str) -> None:
        self._tokenizer = tokenizer
        cutter = regex.compile(pattern)
        assert cutter.groups == 0, "findall gives whole words"
        self._find = cutter.findall
        self._find_ascii = _GPT2_ASCII if pattern == GPT2 else None
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values() if not token.special]
        self._added = regex.compile("|".join(map(regex.escape, added))).search if added else None
        self._words = _Words(tokenizer)
        self._left = _CHECKED
        self._agrees = True

    def encode(self, text: str) -> NDArray[np.uint32] | None:
        """Ids [tokens]."""
        if not self._agrees or _UNSAFE.search(text) or (self._added and self._added(text)):
            return None
        if not text.isascii() and is_han(text):
            return None
        words = self._find_ascii(text) if self._find_ascii and text.isascii() else self._find(text)
        if sum(map(len, words)) != len(text):  # an expression that passes over characters
            return None
        ids = np.frombuffer(b"".join(map(self._words.__getitem__, words)), np.uint32)
        if self._left:
            self._left -= 1
            self._agrees = ids.tolist() == self._tokenizer.encode(text, add_special_tokens=False).ids
            if not self._agrees:
                return None
        return ids


def word_encoder(tokenizer: Tokenizer) -> WordEncoder | None:
    """For tokenizers that cut by one regular expression and are byte-level; None for all others."""
    whole: dict[str, Any] = json.loads(tokenizer.to_str())
    model, cutter = whole["model"], whole.get("pre_tokenizer") or {}
    if whole.get("normalizer") or model["type"] != "BPE" or model.get("dropout") or model.get("byte_fallback"):
        return None
    parts = cutter.get("pretokenizers") if cutter.get("type") == "Sequence" else [cutter]
    pattern = _pattern(parts or [])
    return WordEncoder(tokenizer, pattern) if pattern else None


def _pattern(parts: list[dict[str, Any]]) -> str | None:
    """The expression of ByteLevel alone, or of Split before it."""
    last = parts[-1] if parts else {}
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if len(parts) == 1 and last.get("use_regex", True):
        return GPT2
    first = parts[0]
    if len(parts) != 2 or first.get("type") != "Split" or last.get("use_regex", True):
        return None
    pattern = first["pattern"].get("Regex")
    if pattern is None or first.get("invert") or first.get("behavior") != "Isolated":
        return None
    try:
        return pattern if regex.compile(pattern).groups == 0 else None
    except regex.error:
        return None


def _byte_letters() -> dict[int, str]:
    """GPT-2's letter for every byte: printable ones stand for themselves, the others follow from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}
