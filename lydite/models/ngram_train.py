"""n-gram models from tokens: counting by sorting, then one of three ways to share out what was never seen.

    kneser_ney       interpolated modified Kneser-Ney (Chen and Goodman 1998, section 4.1.6): three discounts for each
                     length, D_k = k - (k + 1) Y n_(k+1) / n_k with Y = n_1 / (n_1 + 2 n_2), where n_k is how many
                     n-grams have the count k. Below the highest length a count is the number of different words before
                     the n-gram; n-grams that begin a text have none before them and keep their plain count. Where n_1,
                     n_2 or n_3 is zero, or a discount falls outside [0, k], the discounts of that length are 0.5, 1, 1.5
                     (KenLM's --discount_fallback); the model says so. Single words are interpolated with the uniform
                     distribution over all words that can be predicted.
    witten_bell      interpolated Witten-Bell (Bell, Cleary and Witten 1990): p(w | h) = (c(hw) + T(h) p(w | h')) /
                     (c(h) + T(h)), T(h) the number of different words seen after h.
    stupid_backoff   Brants et al. 2007: c(hw) / c(h), else 0.4 times the score of the shorter context. Scores that do
                     not sum to one: the model's rule is `stupid_backoff`, and it is compared with nothing else.

Contract: each document is bos, its tokens, eos; no n-gram crosses from one to the next. The bos is context only and is
never predicted, unless the tokenizer has one token for both ends. Everything is exact counting: the same documents give
the same model. Memory: about 60 bytes a token and 30 a distinct n-gram.

V: vocabulary; M: n-grams of one length; T: tokens of all documents with their ends.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lydite.errors import DataError
from lydite.models.ngram_table import Floats, Ints, Level, NgramTable

Smoothing = Literal["kneser_ney", "witten_bell", "stupid_backoff"]
SMOOTHINGS: tuple[Smoothing, ...] = ("kneser_ney", "witten_bell", "stupid_backoff")
FALLBACK = (0.5, 1.0, 1.5)
"""Discounts where counts of counts give none: those of KenLM's lmplz."""
ALPHA = 0.4
"""Of stupid backoff, as Brants et al. chose it."""
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Counts:
    """The distinct n-grams of one length, sorted by (context, last word)."""

    words: Ints
    parents: Ints
    """[M] the n-gram without its last word, a number on the level below."""
    suffixes: Ints
    """[M] the n-gram without its first word, likewise."""
    counts: Ints


@dataclass(frozen=True)
class Trained:
    """A table, and what a reader should know of how it came about."""

    table: NgramTable
    discounts: tuple[tuple[float, float, float], ...]
    """D1, D2, D3+ for each length from 1 up; empty for other smoothings than Kneser-Ney."""
    fallbacks: tuple[int, ...]
    """Lengths whose counts of counts gave no discounts."""
    num_tokens: int
    """Predicted tokens, the end of each document included."""
    num_documents: int


def train_ngram(
    documents: Sequence[npt.NDArray[np.integer]],
    *,
    order: int,
    vocab_size: int,
    bos: int,
    eos: int,
    smoothing: Smoothing = "kneser_ney",
    on_progress: OnProgress | None = None,
) -> Trained:
    """An n-gram model of `documents` (token ids without special tokens). `on_progress` hears (what, done, of how many).

    Raises DataError where there is nothing to count or a token is none of the vocabulary.
    """
    assert order >= 1
    assert smoothing in SMOOTHINGS
    tokens, room = _join(documents, vocab_size, bos, eos)
    tell = on_progress or (lambda what, done, total: None)
    first = np.bincount(tokens, minlength=vocab_size)
    first[bos] -= len(documents)  # where a text begins nothing was predicted
    levels = [Counts(np.arange(vocab_size), np.zeros(vocab_size, dtype=np.int64), np.empty(0, dtype=np.int64), first)]
    ids = tokens
    for n in range(2, order + 1):
        tell("counting", n - 1, order)
        level, ids = _extend(tokens, ids, room, n, vocab_size)
        levels.append(level)
    tell("counting", order, order)
    never = None if bos == eos else bos
    if smoothing == "kneser_ney":
        table, discounts, fallbacks = _kneser_ney(levels, never)
    else:
        table = _witten_bell(levels, never) if smoothing == "witten_bell" else _stupid_backoff(levels)
        discounts, fallbacks = (), ()
    return Trained(table, discounts, fallbacks, len(tokens) - len(documents), len(documents))


# ------------------------------------------------------------------------------------------ counting


def _join(documents: Sequence[npt.NDArray[np.integer]], vocab_size: int, bos: int, eos: int) -> tuple[Ints, Ints]:
    """All documents with their ends in one array [T], and how many tokens of its own document each has from itself on."""
    if not len(documents):
        raise DataError("there are no documents to count; name a corpus that has some")
    sizes = np.array([len(document) + 2 for document in documents], dtype=np.int64)
    ends = np.cumsum(sizes)
    tokens = np.empty(int(ends[-1]), dtype=np.int64)
    for document, end in zip(documents, ends.tolist(), strict=True):
        start = end - len(document) - 2
        tokens[start] = bos
        tokens[start + 1 : end - 1] = document
        tokens[end - 1] = eos
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= vocab_size:
        raise DataError(
            f"token {high if high >= vocab_size else low} is none of the vocabulary's {vocab_size}; "
            "the corpus and the tokenizer do not belong together"
        )
    return tokens, np.repeat(ends, sizes) - np.arange(len(tokens))


def _extend(tokens: Ints, ids: Ints, room: Ints, n: int, vocab_size: int) -> tuple[Counts, Ints]:
    """n-grams from those one shorter; ids [T] is the number of the (n-1)-gram that begins at each position."""
    spots = np.flatnonzero(room >= n)
    keys = ids[spots] * vocab_size + tokens[spots + n - 1]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    new = np.ones(len(keys), dtype=np.bool_)
    new[1:] = keys[1:] != keys[:-1]
    heads = np.flatnonzero(new)
    longer = np.full(len(tokens), -1, dtype=np.int64)
    longer[spots[order]] = np.cumsum(new) - 1
    parents, words = np.divmod(keys[heads], vocab_size)
    suffixes = ids[spots[order[heads]] + 1]
    return Counts(words, parents, suffixes, np.diff(heads, append=len(keys))), longer


# ----------------------------------------------------------------------------------------- smoothing


def _kneser_ney(
    levels: Sequence[Counts], never: int | None
) -> tuple[NgramTable, tuple[tuple[float, float, float], ...], tuple[int, ...]]:
    discounts, fallbacks, found = [], [], []
    lower = _uniform(len(levels[0].words), never)
    for n, level in enumerate(levels, start=1):
        counts = level.counts
        if n < len(levels):
            before = np.bincount(levels[n].suffixes, minlength=len(counts))
            counts = before if n == 1 else np.where(before > 0, before, counts)  # nothing stands before a text's start
        chosen = modified_discounts(counts)
        if chosen is None:
            chosen = FALLBACK
            fallbacks.append(n)
        discounts.append(chosen)
        taken = np.array([0.0, *chosen])[np.minimum(counts, 3)]
        contexts = 1 if n == 1 else len(levels[n - 2].words)
        totals, freed = _by_context(level, counts, contexts), _by_context(level, taken, contexts)
        share = freed / np.maximum(totals, 1)
        below = lower if n == 1 else lower[level.suffixes]
        probs = (counts - taken) / np.maximum(totals, 1)[level.parents] + share[level.parents] * below
        found.append((probs, np.where(totals > 0, share, 1.0)))
        lower = probs
    return _table(levels, found), tuple(discounts), tuple(fallbacks)


def modified_discounts(counts: Ints) -> tuple[float, float, float] | None:
    """D1, D2, D3+ from the counts of counts (Chen and Goodman 1998, equation 26); None where they give none."""
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == k)) for k in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return None
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 <= d <= k for k, d in enumerate(found, start=1)) else None


def _witten_bell(levels: Sequence[Counts], never: int | None) -> NgramTable:
    found = []
    lower = _uniform(len(levels[0].words), never)
    for n, level in enumerate(levels, start=1):
        contexts = 1 if n == 1 else len(levels[n - 2].words)
        totals = _by_context(level, level.counts, contexts)
        kinds = _by_context(level, (level.counts > 0).astype(np.int64), contexts)
        whole = np.maximum(totals + kinds, 1)
        below = lower if n == 1 else lower[level.suffixes]
        probs = (level.counts + kinds[level.parents] * below) / whole[level.parents]
        found.append((probs, np.where(totals > 0, kinds / whole, 1.0)))
        lower = probs
    return _table(levels, found)


def _stupid_backoff(levels: Sequence[Counts]) -> NgramTable:
    found = []
    for n, level in enumerate(levels, start=1):
        contexts = 1 if n == 1 else len(levels[n - 2].words)
        totals = _by_context(level, level.counts, contexts)
        found.append((level.counts / np.maximum(totals, 1)[level.parents], np.full(contexts, ALPHA)))
    return _table(levels, found, missing=float(np.log(ALPHA)))


def _uniform(vocab_size: int, never: int | None) -> Floats:
    """[V] equal shares for all words that can be predicted."""
    shares = np.full(vocab_size, 1.0)
    if never is not None:
        shares[never] = 0.0
    found: Floats = shares / float(shares.sum())
    return found


def _by_context(level: Counts, values: npt.NDArray[np.generic], contexts: int) -> Floats:
    """[contexts] the sum of [M] values over the n-grams of each context."""
    return np.bincount(level.parents, weights=values, minlength=contexts).astype(np.float64)


def _table(levels: Sequence[Counts], found: Sequence[tuple[Floats, Floats]], *, missing: float = 0.0) -> NgramTable:
    """Probabilities [M] and shares of the contexts below, as a table of logarithms."""
    with np.errstate(divide="ignore"):
        logs = [(np.log(probs).astype(np.float32), np.log(share).astype(np.float32)) for probs, share in found]
    none = np.empty(0, dtype=np.float32)
    made = []
    for n, (level, (logprobs, _)) in enumerate(zip(levels, logs, strict=True), start=1):
        contexts = 1 if n == 1 else len(levels[n - 2].words)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(level.parents, minlength=contexts))]).astype(np.int64)
        backoffs = logs[n][1] if n < len(levels) else none
        made.append(Level(level.words.astype(np.int32), offsets, logprobs, backoffs))
    return NgramTable(made, missing=missing)
