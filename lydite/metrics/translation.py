"""Translations against references: BLEU, chrF, chrF++ and TER, by sacrebleu, as corpus metrics and by sentence.

sacrebleu cuts the texts and counts; its statistics of each segment are kept, and the corpus score is a function of
their sums written here over many resamples at once, held to sacrebleu's own by the tests. Values are sacrebleu's over
100, from 0 to 1 (TER: edits by word of the reference, from 0 up). sacrebleu's signature goes into ours.

Axes have names: a Segment is one answer with its own references, so that references of many segments can never be given
the other way round, the field's oldest mistake with sacrebleu.

The tokenizer of BLEU follows the language of the target: `zh` for Chinese; `char` for languages written without spaces
between words (Japanese, Thai, Lao, Khmer, Burmese) and Korean, since the morphological ones need dictionaries that may
be missing; `13a` else. TER cuts Chinese and Japanese by character (tercom's normalisation with Asian support).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lydite.types import Metric

BY_CHARACTER = ("ja", "ko", "th", "lo", "km", "my")
_ORDERS = 4
_CHAR_ORDERS, _BETA = 6, 2


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One translated text and what it is compared with."""

    answer: str
    targets: tuple[str, ...]
    """All references of this segment."""


@dataclass(frozen=True)
class Translation:
    """A metric for one language of targets."""

    metric: Metric
    stats: Callable[[Segment], tuple[float, ...]]
    """A segment's sufficient statistics."""
    sentence: Callable[[Any], float]
    """The value of one segment from its statistics."""
    signature: Callable[[int], str]
    """Number of references (0: it varies) to sacrebleu's signature."""

    def judge(self, answer: str, targets: Sequence[str]) -> tuple[float, tuple[float, ...]]:
        """Value of the segment and its statistics."""
        stats = self.stats(Segment(answer=answer, targets=tuple(targets)))
        return self.sentence(np.asarray(stats)), stats

    def corpus(self, segments: Sequence[Segment]) -> float:
        """Value of all segments together."""
        assert self.metric.finish is not None
        return float(self.metric.finish(np.sum([self.stats(segment) for segment in segments], axis=0)))


def translation_metric(name: str, language: str = "en") -> Translation:
    """bleu, chrf, chrf++ or ter for targets in a language (ISO 639-1)."""
    return {"bleu": _bleu, "chrf": _chrf6, "chrf++": _chrf62, "ter": _ter}[name](language)


NAMES = ("bleu", "chrf", "chrf++", "ter")


# ----------------------------------------------------------------------------------------------- BLEU


def bleu_tokenizer(language: str) -> str:
    """sacrebleu's name of the tokenizer for a language."""
    return "zh" if language == "zh" else "char" if language in BY_CHARACTER else "13a"


def bleu_score(sums: Any, *, effective_order: bool = False) -> Any:
    """BLEU from sums [..., 10] of (length of answers, of closest references, 4 matches, 4 totals), from 0 to 1.

    Papineni et al. 2002 with sacrebleu's exponential smoothing: the k-th order without a match counts 1 / (2^k total).
    `effective_order`, for single sentences, averages over the orders that the answer is long enough for.
    """
    sums = np.asarray(sums, dtype=float)
    said, wanted = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2 : 2 + _ORDERS], sums[..., 2 + _ORDERS :]
    possible = totals > 0
    halvings = np.cumsum((matches == 0) & possible, axis=-1)
    safe = np.where(possible, totals, 1)
    precision = np.where(matches > 0, matches, 2.0**-halvings) / safe
    logs = np.where(possible, np.log(precision), 0.0)
    orders = np.maximum(possible.sum(-1), 1)
    mean = np.exp(logs.sum(-1) / (orders if effective_order else _ORDERS))
    complete = possible.all(-1) | effective_order
    with np.errstate(over="ignore"):
        brevity = np.where(said < wanted, np.exp(1 - wanted / np.where(said > 0, said, 1)), 1.0)
    # sacrebleu gives 0 where nothing matches at all, and (to its float) where an order has no n-grams.
    return np.where((matches > 0).any(-1) & complete & (said > 0), brevity * mean, 0.0)


def _bleu(language: str) -> Translation:
    tokenizer = bleu_tokenizer(language)

    def stats(segment: Segment) -> tuple[float, ...]:
        return _counts(_sacrebleu("BLEU", tokenize=tokenizer), segment)

    return Translation(
        Metric(name="bleu", finish=bleu_score, bounds=(0.0, 1.0)),
        stats,
        lambda one: float(bleu_score(one, effective_order=True)),
        lambda refs: f"nrefs:{refs or 'var'}|case:mixed|eff:no|tok:{tokenizer}|smooth:exp|version:{_version()}",
    )


# ----------------------------------------------------------------------------------------------- chrF


def chrf_score(sums: Any) -> Any:
    """chrF2 from sums of (n-grams of the answer, of the reference, shared) for each order [..., 3 orders], from 0 to 1.

    Mean precision and recall over the orders that both sides have, then F with beta 2 (Popović 2015; with two orders of
    words after those of characters, chrF++, Popović 2017; sacrebleu's effective order).
    """
    sums = np.asarray(sums, dtype=float)
    answer, reference, shared = np.moveaxis(sums.reshape(*sums.shape[:-1], sums.shape[-1] // 3, 3), -1, 0)
    counted = (answer > 0) & (reference > 0)
    orders = np.maximum(counted.sum(-1), 1)
    precision = np.where(counted, shared / np.maximum(answer, 1), 0).sum(-1) / orders
    recall = np.where(counted, shared / np.maximum(reference, 1), 0).sum(-1) / orders
    bottom = _BETA**2 * precision + recall
    return np.where(bottom > 0, (1 + _BETA**2) * precision * recall / np.where(bottom > 0, bottom, 1), 0.0)


CHRF = Metric(name="chrf", finish=chrf_score, bounds=(0.0, 1.0))
CHRF_PLUS = Metric(name="chrf++", finish=chrf_score, bounds=(0.0, 1.0))


def _chrf6(language: str) -> Translation:
    return _character(CHRF, 0)


def _chrf62(language: str) -> Translation:
    return _character(CHRF_PLUS, 2)


def _character(metric: Metric, word_order: int) -> Translation:
    def stats(segment: Segment) -> tuple[float, ...]:
        return _counts(_sacrebleu("CHRF", char_order=_CHAR_ORDERS, word_order=word_order, beta=_BETA), segment)

    def signature(refs: int) -> str:
        options = f"nrefs:{refs or 'var'}|case:mixed|eff:yes|nc:{_CHAR_ORDERS}|nw:{word_order}|space:no"
        return f"{options}|version:{_version()}"

    return Translation(metric, stats, lambda one: float(chrf_score(one)), signature)


# ------------------------------------------------------------------------------------------------ TER


def ter_score(sums: Any) -> Any:
    """TER from sums [..., 2] of (edits to the reference that needs fewest, mean length of the references) (Snover et al.
    2006); without reference words 1 where there are edits."""
    edits, length = np.moveaxis(np.asarray(sums, dtype=float), -1, 0)
    return np.where(length > 0, edits / np.where(length > 0, length, 1), (edits > 0).astype(float))


def _ter(language: str) -> Translation:
    asian = language in ("zh", "ja")

    def stats(segment: Segment) -> tuple[float, ...]:
        return _counts(_sacrebleu("TER", normalized=asian, asian_support=asian), segment)

    def signature(refs: int) -> str:
        kind = "norm:yes|punct:yes|asian:yes" if asian else "norm:no|punct:yes|asian:no"
        return f"nrefs:{refs or 'var'}|case:lc|tok:tercom|{kind}|version:{_version()}"

    return Translation(
        Metric(name="ter", finish=ter_score, higher_is_better=False),
        stats,
        lambda one: float(ter_score(one)),
        signature,
    )


# ------------------------------------------------------------------------------------------- sacrebleu


def _counts(metric: Any, segment: Segment) -> tuple[float, ...]:
    # The same entry that sacrebleu's own significance tests use; tests hold it to `corpus_score`.
    [stats] = metric._extract_corpus_statistics([segment.answer], [[target] for target in segment.targets])
    return tuple(float(count) for count in stats)


@functools.cache
def _sacrebleu(kind: str, **options: Any) -> Any:
    import sacrebleu.metrics

    return {"BLEU": sacrebleu.metrics.BLEU, "CHRF": sacrebleu.metrics.CHRF, "TER": sacrebleu.metrics.TER}[kind](
        **options
    )


def _version() -> str:
    import sacrebleu

    return str(sacrebleu.__version__)
