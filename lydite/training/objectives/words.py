"""What objectives ask of a tokenizer: ids of special tokens, and where words begin.

A word is what a reader would call one as far as the tokens tell: WordPiece marks what continues (`##`), byte-level BPE and
SentencePiece mark what begins (`Ġ`, `▁`). Beyond the marks, a run of letters and digits, a run of punctuation and a run of
white space are words of their own, and so is every Chinese, Japanese or Korean character (the bytes of a character that
stands in several byte tokens stay together; a token of several characters is one word, since it cannot be cut).
"""

import unicodedata
from typing import Any, NamedTuple

import numpy as np

from lydite.errors import UserError
from lydite.training.objectives.noise import Bools, Ints

_CONTINUES, _LETTER, _PUNCTUATION, _CHARACTER, _SPACE, _SPECIAL, _MARK = range(7)
"""Kinds of characters. `_CONTINUES`: of whatever kind the one before is; `_MARK`: any kind may follow in the same word."""
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTED]
_BYTES = {chr(byte): byte for byte in _PRINTED} | {chr(256 + n): byte for n, byte in enumerate(_OTHERS)}
"""How byte-level tokenizers write bytes: printable ones as themselves, the others from U+0100 on (Radford et al. 2019)."""


def special(tokenizer: Any, name: str) -> int:
    """The id of `mask_token`, `cls_token` ...; UserError where the tokenizer has none."""
    found = getattr(tokenizer, f"{name}_id")
    if found is None:
        raise UserError(f"the tokenizer has no {name}, which this objective needs; train one of a family that has it")
    return int(found)


def pad_id(tokenizer: Any) -> int:
    """The id to fill rows with; any will do where the tokenizer has none, since padding is never looked at."""
    return 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


def around(tokenizer: Any, *, target: bool = False) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and behind a text (or a target text): BART's <s> and </s>."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer(text_target="a")["input_ids"] if target else tokenizer("a")["input_ids"]
    starts = [i for i in range(len(full)) if full[i : i + len(plain)] == plain]
    return (full[: starts[0]], full[starts[0] + len(plain) :]) if plain and starts else ([], [])


def ordinary_ids(tokenizer: Any) -> Ints:
    """All ids but those of special tokens: what a token may be replaced with at random."""
    ids = np.setdiff1d(np.arange(len(tokenizer)), np.array(sorted(tokenizer.all_special_ids), dtype=np.int64))
    if not len(ids):
        raise UserError("the tokenizer has nothing but special tokens")
    return ids


class _Token(NamedTuple):
    begins: bool
    first: int
    last: int


class Words:
    """Finds the words in token ids of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        mark = _marks(tokenizer)
        specials = set(tokenizer.all_special_ids)
        texts = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        table = [
            _Token(True, _SPECIAL, _SPECIAL) if number in specials or text is None else _read(text, mark)
            for number, text in enumerate(texts)
        ]
        self._begins = np.array([token.begins for token in table])
        self._first = np.array([token.first for token in table])
        self._last = np.array([token.last for token in table])
        self.is_special: Bools = self._first == _SPECIAL
        """By id."""

    def starts(self, ids: Ints) -> Bools:
        """Whether each token begins a word, [n]; the first always does, special tokens are words of their own."""
        first, last = self._first[ids], self._last[ids]
        last = last[np.maximum.accumulate(np.where(last == _CONTINUES, 0, np.arange(len(ids))))]
        out: Bools = self._begins[ids] | (first == _CHARACTER)
        known = (first[1:] != _CONTINUES) & (last[:-1] != _MARK)
        out[1:] |= (known & (first[1:] != last[:-1])) | (last[:-1] == _SPECIAL)
        out[:1] = True
        return out

    def words(self, ids: Ints) -> tuple[Ints, Ints]:
        """(starts, lengths in tokens) of all words that are no special tokens."""
        starts = np.flatnonzero(self.starts(ids))
        lengths = np.diff(np.append(starts, len(ids)))
        usable = ~self.is_special[ids[starts]]
        return starts[usable], lengths[usable]


def _marks(tokenizer: Any) -> str:
    """How the tokenizer marks words: "##", "bytes", "▁", or "" (tokens are plain text)."""
    layout = tokenizer.backend_tokenizer.to_str()
    if '"type":"WordPiece"' in layout:
        return "##"
    if '"type":"ByteLevel"' in layout:
        return "bytes"
    return "▁" if "▁" in layout else ""


def _read(text: str, mark: str) -> _Token:
    if mark == "##":
        body = text.removeprefix("##")
        return _Token(body == text, *_kinds(body, body == text))
    if mark == "bytes":
        data = bytes(_BYTES[char] for char in text if char in _BYTES)
        return _from_bytes(data)
    if mark == "▁":
        if len(text) == 6 and text.startswith("<0x"):  # a byte that stands for itself
            return _from_bytes(bytes([int(text[3:5], 16)]))
        body = text.lstrip("▁")
        return _Token(body != text, *(_kinds(body, True) if body else (_SPACE, _MARK)))
    return _Token(False, *_kinds(text, True))


def _from_bytes(data: bytes) -> _Token:
    """A token of byte-level BPE: a leading space begins a word; a byte inside a character continues one."""
    body = data.removeprefix(b" ")
    if not body:
        return _Token(True, _SPACE, _MARK)
    if 0x80 <= body[0] < 0xC0:
        after = body.lstrip(bytes(range(0x80, 0xC0)))
        return _Token(False, _CONTINUES, _kinds(_decoded(after), True)[1] if after else _CONTINUES)
    return _Token(body != data, *_kinds(_decoded(body), True))


def _decoded(data: bytes) -> str:
    """Text of bytes whose last character may be incomplete; its first byte says to which script it belongs."""
    whole = data.decode("utf-8", errors="ignore")
    cut = data[len(whole.encode("utf-8")) :]
    return whole + ("一" if cut and 0xE3 <= cut[0] <= 0xF0 else "x" if cut else "")


def _kinds(text: str, separate: bool) -> tuple[int, int]:
    """Kinds of the first and last character; what is not `separate` continues whatever came before."""
    if not text:
        return _CONTINUES, _CONTINUES
    return (_kind(text[0]) if separate else _CONTINUES), _kind(text[-1])


def _kind(char: str) -> int:
    code = ord(char)
    if 0x2E80 <= code <= 0x2FFF or 0x3040 <= code <= 0x9FFF or 0xAC00 <= code <= 0xD7AF or 0xF900 <= code <= 0xFAFF:
        return _CHARACTER
    if 0x20000 <= code <= 0x3FFFF:
        return _CHARACTER
    if char.isspace():
        return _SPACE
    if unicodedata.category(char)[0] in "PS":
        return _PUNCTUATION
    return _LETTER
