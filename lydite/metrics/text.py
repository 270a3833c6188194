"""Metrics of generated text against reference texts: exact match, token F1, chrF.

Exact match and F1 take the best of several references. Normalisation is part of the metric:

    none    white space at either end is dropped
    number  numbers are compared as numbers (1,250.0 = 1250); anything else as text
    squad   SQuAD 1.1: lower case, no ASCII punctuation, no English articles, single spaces (Rajpurkar et al. 2016,
            official evaluation script v1.1). In Chinese and Japanese all Unicode punctuation goes, and every
            ideograph and kana is a token of its own, since there are no spaces to split at (as in MLQA, Lewis et al. 2020)

chrF is computed from sacrebleu's statistics and keeps sacrebleu's signature.
"""

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from lydite.metrics.extract import canonical_number
from lydite.types import Metric

EXACT_MATCH = Metric(name="exact_match", unit="proportion")
F1 = Metric(name="f1", bounds=(0.0, 1.0))
"""Token F1 against the best reference, mean over samples, from 0 to 1."""

Normalization = Literal["none", "number", "squad"]
NORMALIZATIONS: tuple[Normalization, ...] = ("none", "number", "squad")
UNSPACED = ("zh", "ja")
"""Languages written without spaces, in which characters stand in for words."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_UNSPACED_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def squad_tokens(text: str, language: str = "en") -> list[str]:
    """Tokens after SQuAD's normalisation, or its counterpart for languages without spaces."""
    text = text.lower()
    if language in UNSPACED:
        return _UNSPACED_TOKEN.findall("".join(" " if _is_punctuation(char) else char for char in text))
    return _ARTICLES.sub(" ", text.translate(_NO_ASCII_PUNCTUATION)).split()


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")


def normalize(text: str, how: Normalization, language: str = "en") -> str:
    """The form in which texts are compared by exact match."""
    if how == "squad":
        return ("" if language in UNSPACED else " ").join(squad_tokens(text, language))
    if how == "number":
        return canonical_number(text) or text.strip()
    return text.strip()


def exact_match(answer: str, targets: Sequence[str], how: Normalization = "none", language: str = "en") -> float:
    """1 where the answer equals any target after normalisation, else 0."""
    found = normalize(answer, how, language)
    return float(any(found == normalize(target, how, language) for target in targets))


def token_f1(answer: str, targets: Sequence[str], language: str = "en") -> float:
    """Largest F1 between the bags of tokens of the answer and of a target; 0 where they share none."""
    return max(_f1(squad_tokens(answer, language), squad_tokens(target, language)) for target in targets)


def _f1(answer: list[str], target: list[str]) -> float:
    common = sum((Counter(answer) & Counter(target)).values())
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(target)
    return 2 * precision * recall / (precision + recall)


# ----------------------------------------------------------------------------------------------- chrF

_ORDERS, _BETA = 6, 2


def _chrf(sums: Any) -> Any:
    """chrF2 from sums of (n-grams of the answer, of the reference, shared) for orders 1 to 6 [..., 18], from 0 to 1.

    Mean precision and recall over the orders that both sides have, then F with beta 2 (Popović 2015; sacrebleu's
    effective order).
    """
    answer, reference, shared = np.moveaxis(
        np.asarray(sums, dtype=float).reshape(*np.shape(sums)[:-1], _ORDERS, 3), -1, 0
    )
    counted = (answer > 0) & (reference > 0)
    orders = np.maximum(counted.sum(-1), 1)
    precision = np.where(counted, shared / np.maximum(answer, 1), 0).sum(-1) / orders
    recall = np.where(counted, shared / np.maximum(reference, 1), 0).sum(-1) / orders
    bottom = _BETA**2 * precision + recall
    return np.where(bottom > 0, (1 + _BETA**2) * precision * recall / np.where(bottom > 0, bottom, 1), 0.0)


CHRF = Metric(name="chrf", finish=_chrf)
"""Character n-gram F-score of the corpus, from 0 to 1 like every other score here: sacrebleu's number over 100."""


def chrf_stats(answer: str, targets: Sequence[str]) -> tuple[float, ...]:
    """sacrebleu's 18 statistics of one segment, against the reference that fits it best."""
    # The same entry that sacrebleu's own significance tests use; a test holds it to `corpus_score`.
    [stats] = _sacrebleu_chrf()._extract_corpus_statistics([answer], [[target] for target in targets])
    return tuple(float(count) for count in stats)


def chrf_signature(num_references: int) -> str:
    """sacrebleu's signature of the chrF that is computed here; 0 references: their number varies."""
    import sacrebleu

    options = f"nrefs:{num_references or 'var'}|case:mixed|eff:yes|nc:{_ORDERS}|nw:0|space:no"
    return f"{options}|version:{sacrebleu.__version__}"


@functools.cache
def _sacrebleu_chrf() -> Any:
    from sacrebleu.metrics import CHRF as SacrebleuChrf

    return SacrebleuChrf(char_order=_ORDERS, word_order=0, beta=_BETA)


Judge = Callable[[str, Sequence[str]], tuple[float, tuple[float, ...]]]
"""(answer, targets) to (value, statistics); no statistics for means of values."""


def chrf(answer: str, targets: Sequence[str]) -> tuple[float, tuple[float, ...]]:
    """Sentence chrF and its statistics."""
    stats = chrf_stats(answer, targets)
    return float(_chrf(np.array(stats))), stats
