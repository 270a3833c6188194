"""Numbers and foreign text, made fit to be read.

Models and data files say anything: control characters that move a terminal's cursor, marks that turn the reading
direction of what follows, lone surrogates that no encoder takes, a megabyte on one line. `clean` shows all of that
instead of obeying it.
"""

import math
import re
from collections.abc import Iterable, Sequence

from lydite.types import Estimate

_BIDI = {
    "\u061c": "ALM", "\u200e": "LRM", "\u200f": "RLM", "\u202a": "LRE", "\u202b": "RLE", "\u202c": "PDF",
    "\u202d": "LRO", "\u202e": "RLO", "\u2066": "LRI", "\u2067": "RLI", "\u2068": "FSI", "\u2069": "PDI",
}  # fmt: skip
_STRANGE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]"
)
# Spreadsheets of East Asian languages take the wide forms too.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def _shown(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if character in _BIDI:
        return f"⟦{_BIDI[character]}⟧"
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else "\ufffd"


def clean(text: str) -> str:
    """`text` with control characters, direction marks and lone surrogates shown as visible signs; newline and tab stay."""
    return text if text.isprintable() else _STRANGE.sub(_shown, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`clean`, with white space squeezed to single spaces."""
    return " ".join(clean(text).split())


def sheet_text(text: str) -> str:
    """`one_line` for a cell of a CSV file. A spreadsheet would run what begins like a formula, so a quote stands before it."""
    shown = one_line(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def cut_middle(text: str, width: int) -> str:
    """At most `width` characters; the middle goes, because heads and tails of names tell them apart."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + text[len(text) - tail :]


def decimals(estimates: Iterable[Estimate]) -> int:
    """Decimals that show two digits of the narrowest interval's half-width; 3 for values within [-1, 1]."""
    found = list(estimates)
    values = [abs(e.value) for e in found if e.value is not None]
    widths = [(e.interval[1] - e.interval[0]) / 2 for e in found if e.interval and e.interval[1] > e.interval[0]]
    if not values or max(values) <= 1:
        return 3
    if not widths:
        return 2 if max(values) < 100 else 1
    return min(max(math.ceil(-math.log10(min(widths))) + 1, 0), 3)


def number(value: float | None, places: int) -> str:
    """A number with a fixed count of decimals; "–" for none, powers of ten from 100,000 on."""
    if value is None:
        return "–"
    if abs(value) >= 1e5:
        return f"{value:.2e}".replace("e+0", "e").replace("e+", "e")
    return f"{value:.{places}f}"


def interval(estimate: Estimate, places: int) -> str:
    """ "[0.784, 0.838]", or nothing where there is none."""
    if estimate.interval is None:
        return ""
    return f"[{number(estimate.interval[0], places)}, {number(estimate.interval[1], places)}]"


def half_width(estimate: Estimate, places: int) -> str:
    """ "±0.027": the longer arm of the interval."""
    if estimate.interval is None or estimate.value is None:
        return ""
    low, high = estimate.interval
    return f"±{number(max(high - estimate.value, estimate.value - low), places)}"


def join_words(words: Sequence[str], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def plural(count: int, noun: str, many: str | None = None) -> str:
    """ "1 sample", "2,000 samples"."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"
