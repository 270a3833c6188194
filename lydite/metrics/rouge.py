"""ROUGE-1, -2, -L and -Lsum (Lin 2004), equal to the package rouge-score on English and right for other languages.

ROUGE-n counts shared n-grams, ROUGE-L the longest common subsequence of the whole texts. ROUGE-Lsum takes each line as
a sentence: for each sentence of the reference the union of its longest common subsequences with all sentences of the
answer, every word counted at most as often as either text has it. Where several subsequences are longest, the one is
taken that ROUGE-1.5.5's walk from the end finds; the tests hold all of this to rouge-score at 1e-9.

With several references each type takes the one with the largest F, as rouge-score does. Values are F1 from 0 to 1. The
rule that cuts words is chosen by language (lydite.metrics.words) and named in the signature.

Speed: subsequences are found 64 words at a time by rapidfuzz; those of Lsum, whose positions matter, by the same
bit-parallel step (Hyyrö 2004) over all sentences of the answer at once in one Python integer.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import LCSseq

from lydite.metrics.words import Words, ngrams, words_of
from lydite.types import Metric

TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
METRICS = tuple(Metric(name=name, bounds=(0.0, 1.0)) for name in TYPES)
"""Means of the samples' F1, from 0 to 1."""


@dataclass(frozen=True)
class Overlap:
    """Precision, recall and their harmonic mean."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """2PR / (P + R); 0 where both are 0."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both > 0 else 0.0


def rouge(
    answer: str,
    targets: Sequence[str],
    types: Iterable[str] = TYPES,
    *,
    language: str = "en",
    stem: bool = False,
) -> dict[str, Overlap]:
    """Each type's overlap of the answer with the reference that gives the largest F1 (the first of equals).

    Raises ValueError for an unknown type, no target, or stems that are not English.
    """
    types = tuple(types)
    if unknown := set(types) - set(TYPES):
        raise ValueError(f"no {', '.join(sorted(unknown))}; there are {', '.join(TYPES)}")
    if not targets:
        raise ValueError("ROUGE needs at least one target")
    words = words_of(language, stem=stem)
    said = _Text(answer, words)
    wanted = [_Text(target, words) for target in targets]
    return {name: max((_overlap(name, said, target) for target in wanted), key=lambda one: one.f1) for name in types}


def signature(language: str = "en", *, stem: bool = False, num_references: int = 1) -> str:
    """How ROUGE was computed here, in the manner of sacrebleu; 0 references: their number varies."""
    return f"nrefs:{num_references or 'var'}|score:f1|tok:{words_of(language, stem=stem).name}|sents:lines"


class _Text:
    """A text cut once: its words by line, and all of them."""

    def __init__(self, text: str, words: Words) -> None:
        # rouge-score cuts at "\n" alone; a line without words still counts as a sentence, which changes nothing.
        self.lines = [words(line) for line in text.split("\n") if line]
        self.words = [word for line in self.lines for word in line]


def _overlap(name: str, answer: _Text, target: _Text) -> Overlap:
    if name in ("rouge1", "rouge2"):
        return _ngram_overlap(answer.words, target.words, int(name[-1]))
    if not answer.words or not target.words:
        return Overlap(0.0, 0.0)
    longest = LCSseq.similarity(target.words, answer.words) if name == "rougeL" else _summary_hits(answer, target)
    return Overlap(longest / len(answer.words), longest / len(target.words))


def _ngram_overlap(answer: list[str], target: list[str], order: int) -> Overlap:
    if order == 1:
        said, wanted = Counter[object](answer), Counter[object](target)
    else:
        said, wanted = Counter[object](ngrams(answer, order)), Counter[object](ngrams(target, order))
    if len(said) > len(wanted):
        shared = sum(min(count, said[key]) for key, count in wanted.items() if key in said)
    else:
        shared = sum(min(count, wanted[key]) for key, count in said.items() if key in wanted)
    return Overlap(
        shared / max(len(answer) - order + 1, 1),
        shared / max(len(target) - order + 1, 1),
    )


# ------------------------------------------------------------------------------------------ ROUGE-Lsum


def _summary_hits(answer: _Text, target: _Text) -> int:
    """Words of the unions of longest common subsequences, none counted more often than either text has it."""
    left_answer, left_target = Counter(answer.words), Counter(target.words)
    sentences = _Sentences(answer.lines)
    hits = 0
    for line in target.lines:
        for position in sorted(sentences.union(line)):
            word = line[position]
            if left_answer[word] > 0 and left_target[word] > 0:
                hits += 1
                left_answer[word] -= 1
                left_target[word] -= 1
    return hits


class _Sentences:
    """The sentences of an answer as one row of bits: word j of sentence k is bit starts[k] + j, and above each sentence
    stands an empty bit that takes the carry."""

    def __init__(self, lines: Sequence[Sequence[str]]) -> None:
        self.lines = [line for line in lines if line]
        self.starts: list[int] = []
        self.full = 0
        self.bits: dict[str, int] = {}
        """Word to the bits where it stands."""
        self.holders: dict[str, list[int]] = {}
        """Word to the sentences that hold it."""
        start = 0
        for number, line in enumerate(self.lines):
            self.starts.append(start)
            for offset, word in enumerate(line):
                self.bits[word] = self.bits.get(word, 0) | 1 << (start + offset)
            for word in set(line):
                self.holders.setdefault(word, []).append(number)
            self.full |= ((1 << len(line)) - 1) << start
            start += len(line) + 1

    def union(self, line: Sequence[str]) -> set[int]:
        """Positions in `line` that the longest common subsequence with any of the sentences takes."""
        # A bit of the state is 0 where the subsequence of the words so far with a sentence's start grows at that word.
        state = self.full
        rows: dict[int, list[_Row]] = {}
        for position, word in enumerate(line):
            bits = self.bits.get(word)
            if bits is None:
                continue
            both = state & bits
            following = ((state + both) | (state - both)) & self.full
            row = (position, bits, state ^ following)
            for number in self.holders[word]:
                rows.setdefault(number, []).append(row)
            state = following
        taken: set[int] = set()
        for number, own in rows.items():
            taken.update(_walk(own, self.starts[number], len(self.lines[number])))
        return taken


_Row = tuple[int, int, int]
"""Position in the line of the reference, bits of its word in the answer, bits of the state that it changed."""


def _walk(rows: Sequence[_Row], start: int, column: int) -> list[int]:
    """Positions of the subsequence with one sentence of `column` words, found from the end as ROUGE-1.5.5 does.

    There, at each step: equal words are taken; else one goes left where the table to the left is larger than the table
    above, and up otherwise. The table is larger than the one above from a changed bit on until the next, by turns; so
    the walk goes left as far as the last changed bit, and takes the last equal word from the one before it on. Rows
    whose word the sentence lacks equal the row above and are not in `rows`.
    """
    found = []
    for position, bits, changed in reversed(rows):
        below = (1 << column) - 1
        changed = (changed >> start) & below
        equal = ((bits >> start) & below).bit_length() - 1
        reach = changed.bit_length() - 1 if changed.bit_count() & 1 else column
        if equal >= 0 and equal >= reach - 1:
            found.append(position)
            column = equal
        else:
            column = reach
        if not column:
            break
    return found
