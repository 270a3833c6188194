"""GPT-2's regular expression in numpy: where the words of many texts start.

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

Runs of one kind are words. Of white space before something else the last character stands alone, or, if it is a space, goes
with what follows. An apostrophe that begins a word takes one of seven endings with it, even out of a longer run of letters.

Only for characters whose kind (letter, number, white space, other) every engine sees alike: `KNOWN`.
"""

import functools
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

Starts = NDArray[np.bool_]

KNOWN = (
    "\t\n\r\x20-\x7e\xa0-\u017e\u2010-\u2027\u2030-\u205e\u2190-\u22f1\u2460-\u249b\u2500-\u2595\u25a0-\u25f7\u2600-\u2613"
    "\u2619-\u2671\u3000-\u303d\u3041-\u3094\u309b-\u309e\u30a1-\u30fe\u4e00-\u9fa5\uff01-\uff5e\uffe0-\uffe6"
)
"""Characters whose kind has been the same since Unicode 3.2 (2002), and that no rule on capitals makes equal to ASCII."""
UNKNOWN = regex.compile(f"[^{KNOWN}]")
BETWEEN = "\x00"
"""Stands between two texts, and is a word by itself; no known character."""
_STRANGE, _BORDER, _SPACE, _OTHER, _LETTER, _NUMBER = range(6)


@functools.cache
def kinds() -> NDArray[np.uint8]:
    """The kind of every 16-bit character, 0 where it is not known."""
    found = np.zeros(1 << 16, np.uint8)
    known = "".join(
        regex.findall(f"[{KNOWN}]", "".join(map(chr, range(0xD800))) + "".join(map(chr, range(0xE000, 0x10000))))
    )
    found[_codes(known)] = _OTHER
    for kind, expression in ((_SPACE, r"\s+"), (_LETTER, r"\p{L}+"), (_NUMBER, r"\p{N}+")):
        found[_codes("".join(regex.findall(expression, known)))] = kind
    found[ord(BETWEEN)] = _BORDER
    return found


def _codes(text: str) -> NDArray[np.uint16]:
    return np.frombuffer(text.encode("utf-16-le"), "<u2")


def characters(text: str) -> NDArray[Any]:
    """A number a character, of the first 65,536: uint8 of ASCII, else uint16."""
    return np.frombuffer(text.encode(), np.uint8) if text.isascii() else _codes(text)


def widths(codes: NDArray[Any]) -> NDArray[np.int64]:
    """UTF-8 bytes of characters of 16 bits."""
    return np.asarray(1 + (codes > 0x7F).astype(np.int64) + (codes > 0x7FF))


def word_starts(codes: NDArray[Any]) -> Starts:
    """Whether a word starts at each character of texts with BETWEEN between them: [characters].

    All characters but BETWEEN must be known.
    """
    kind = kinds()[codes]
    kind = np.append(kind, np.uint8(_BORDER))  # as if another text came
    starts = np.empty(len(kind), bool)
    starts[0] = True
    np.not_equal(kind[1:], kind[:-1], out=starts[1:])
    starts[kind == _BORDER] = True
    space = kind == _SPACE
    last = np.flatnonzero(space[:-1] & (kind[1:] > _SPACE))
    starts[last] = True
    starts[last[codes[last] == ord(" ")] + 1] = False
    _shorten(codes, kind, starts)
    return starts[:-1]


def _shorten(codes: NDArray[Any], kind: NDArray[np.uint8], starts: Starts) -> None:
    """Apostrophes with the endings of short forms, where a word starts with one."""
    marks = np.flatnonzero(codes == ord("'"))
    marks = marks[starts[marks] & (kind[marks + 1] == _LETTER)]
    next_one = codes[marks + 1]
    next_two = np.append(codes, [0, 0])[marks + 2]
    ends = np.where(np.isin(next_one, [ord(c) for c in "stmd"]), 2, 0)
    for first, second in ("re", "ve", "ll"):
        ends[(next_one == ord(first)) & (next_two == ord(second))] = 3
    hits, ends = marks[ends > 0], ends[ends > 0]
    starts[hits + 1] = False
    starts[hits + ends] = True
