"""What a summary does with its article: compression, coverage, density, novel n-grams, repetition.

    compression   words of the articles / words of the summaries, over the corpus
    coverage      share of a summary's words that lie in fragments copied from the article
    density       mean length of the fragment that a word of the summary lies in: sum of squared lengths / words
    novel_1, _2   share of a summary's n-grams that the article does not have
    repetition    share of a summary's trigrams that it has had before

Coverage, density and the greedy fragments are those of Grusky, Naaman and Artzi (2018, Newsroom, section 4); words are
cut by language (lydite.metrics.words), where Newsroom cut them with spaCy. They describe; no direction is better in
itself, so compare them with the same numbers of the reference summaries. A summary without words has 0 of each.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from lydite.metrics.words import Words, ngrams
from lydite.types import Metric


def _ratio(sums: Any) -> Any:
    """Sums (words of articles, words of summaries) [..., 2] to their ratio; NaN, that is undefined, without words."""
    article, summary = np.moveaxis(np.asarray(sums, dtype=float), -1, 0)
    return np.where(summary > 0, article / np.where(summary > 0, summary, 1), np.nan)


COMPRESSION = Metric(name="compression", finish=_ratio)
COVERAGE = Metric(name="coverage", bounds=(0.0, 1.0))
DENSITY = Metric(name="density", unit="words")
NOVEL_1 = Metric(name="novel_1", bounds=(0.0, 1.0))
NOVEL_2 = Metric(name="novel_2", bounds=(0.0, 1.0))
REPETITION = Metric(name="repetition", bounds=(0.0, 1.0), higher_is_better=False)
METRICS = (COMPRESSION, COVERAGE, DENSITY, NOVEL_1, NOVEL_2, REPETITION)

Described = tuple[float, tuple[float, ...]]
"""Value and statistics."""


def describe(article: str, summary: str, words: Words) -> dict[str, Described]:
    """Each metric's value and statistics for one summary."""
    source, said = words(article), words(summary)
    lengths = fragments(source, said)
    size = max(len(said), 1)
    trigrams = ngrams(said, 3)
    return {
        "compression": (len(source) / len(said) if said else 0.0, (float(len(source)), float(len(said)))),
        "coverage": (sum(lengths) / size, ()),
        "density": (sum(length**2 for length in lengths) / size, ()),
        "novel_1": (_novel(source, said, 1), ()),
        "novel_2": (_novel(source, said, 2), ()),
        "repetition": (1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0, ()),
    }


def fragments(article: Sequence[str], summary: Sequence[str]) -> list[int]:
    """Lengths of the fragments shared with the article: at each place of the summary the longest run of words that the
    article has too, then on from its end (Newsroom, figure 3)."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(article):
        places[word].append(place)
    lengths, start = [], 0
    while start < len(summary):
        longest = 0
        for place in places.get(summary[start], ()):
            # A run that is to be longer must agree where the longest so far ends.
            if summary[start + longest : start + longest + 1] != list(article[place + longest : place + longest + 1]):
                continue
            longest = max(longest, _run(article, place, summary, start))
        if longest:
            lengths.append(longest)
        start += max(longest, 1)
    return lengths


def _run(article: Sequence[str], place: int, summary: Sequence[str], start: int) -> int:
    length, most = 0, min(len(article) - place, len(summary) - start)
    while length < most and article[place + length] == summary[start + length]:
        length += 1
    return length


def _novel(article: Sequence[str], summary: Sequence[str], order: int) -> float:
    said, known = ngrams(summary, order), set(ngrams(article, order))
    return sum(gram not in known for gram in said) / len(said) if said else 0.0
