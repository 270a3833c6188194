"""The characters that a tokenizer gives tokens of their own, counted from the text, and how the rest is kept out."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lydite.data.tokenizers.families import Family
from lydite.data.tokenizers.settings import TokenizerSettings
from lydite.errors import DataError

OnProgress = Callable[[str, int, int], None]
"""Hears what is being done, how many characters are done, and of how many (0: not known)."""
EVERY = 1 << 20


@dataclass(frozen=True)
class Alphabet:
    """Characters after normalization, the most frequent first."""

    kept: tuple[str, ...]
    cut: re.Pattern[str] | None
    """Matches what no training text may hold: the other characters, and the names of special tokens."""
    total: int
    """Characters before normalization."""
    distinct: int
    coverage: float
    """Share of the text that the kept ones are."""

    def clean(self, texts: Iterable[str]) -> Iterator[str]:
        """The texts in parts between what is cut, so that nothing is learned across a gap."""
        for text in texts:
            yield from filter(None, self.cut.split(text)) if self.cut else (text,)


def count_characters(
    texts: Iterable[str], settings: TokenizerSettings, family: Family, normalizer: Any, on_progress: OnProgress
) -> Alphabet:
    """Reads the texts once. Raises DataError if they hold nothing."""
    counts: Counter[str] = Counter()
    done = 0
    for text in texts:
        counts.update(text if normalizer is None else normalizer.normalize_str(text))
        if done // EVERY != (done := done + len(text)) // EVERY:
            on_progress("counting characters", done, 0)
    total = counts.total()
    if all(map(str.isspace, counts)):
        raise DataError("the files hold no text; nothing can be learned from them")
    order = sorted(counts, key=lambda character: (-counts[character], character))
    # Merged pieces need room too: where bytes spell the rest, single characters take half of it at most.
    room = settings.num_pieces(family) * (0.5 if settings.has_bytes else 1)
    covered, kept = 0, []
    for character in order:
        room -= _cost(character, settings)
        if covered >= settings.coverage * total or room < 0:
            break
        covered += counts[character]
        kept.append(character)
    cut = [re.escape(name) for name in (*family.specials, *settings.also(family))]
    if len(kept) < len(order):
        # Applied before normalization, which leaves nearly all rare characters as they are.
        cut.append(f"[{''.join(map(re.escape, order[len(kept) :]))}]+")
    return Alphabet(tuple(kept), re.compile("|".join(cut)) if cut else None, done, len(order), covered / total)


def _cost(character: str, settings: TokenizerSettings) -> int:
    """Tokens that a character takes: in bytes itself (a beginning of its bytes is shared with sixty others) or what is there
    already, in WordPiece one for beginnings and one for the rest of words."""
    if settings.kind == "bpe":
        return 0 if character.isascii() else 1 if character <= "\uffff" else 2
    if settings.kind == "wordpiece":
        return 1 + continues(character)
    return 1


def continues(character: str) -> bool:
    """Whether WordPiece can meet a character within a word: not white space, nor what BERT makes a word of its own, which
    punctuation, symbols of ASCII and Chinese characters are."""
    if character.isascii():
        return character.isalnum()
    return unicodedata.category(character)[0] not in "PZC" and not "\u3400" <= character <= "\u9fff"
