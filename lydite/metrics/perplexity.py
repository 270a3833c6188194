"""Metrics of held-out text: total surprise divided by words, bytes or documents, summed over the corpus first.

A sample's statistics are (nats of surprise, units). The corpus value is a function of their sums, so long documents
weigh more than short ones, as in lm-evaluation-harness. Bits per byte compares models with different vocabularies.
"""

import math
import re
from typing import Any

import numpy as np

from lydite.types import Metric, Score


def _exp_rate(sums: Any) -> Any:
    return np.exp(sums[..., 0] / sums[..., 1])


def _bits(sums: Any) -> Any:
    return sums[..., 0] / sums[..., 1] / math.log(2)


BITS_PER_BYTE = Metric(name="bits_per_byte", higher_is_better=False, unit="bits", finish=_bits)
BYTE_PERPLEXITY = Metric(name="byte_perplexity", higher_is_better=False, finish=_exp_rate)
WORD_PERPLEXITY = Metric(name="word_perplexity", higher_is_better=False, finish=_exp_rate)
PERPLEXITY = Metric(name="perplexity", higher_is_better=False, finish=_exp_rate)
"""exp of the mean surprise of a whole target. One target a document: for last words this is a perplexity per word,
not per token. The name is the one that lm-evaluation-harness prints for LAMBADA."""

LARGEST_RATE = math.log(np.finfo(np.float64).max)


def num_words(text: str) -> int:
    r"""Pieces between runs of white space, counted as lm-evaluation-harness does: white space at either end of the
    text adds an empty piece, which counts."""
    return len(re.split(r"\s+", text))


def num_bytes(text: str) -> int:
    """Length in UTF-8."""
    return len(text.encode("utf-8"))


def rate_score(metric: Metric, sample_id: str, nats: float, units: int) -> Score:
    """The Score of `nats` of surprise over `units`; an error where the text has no unit or the value overflows."""
    assert metric.finish is not None, f"{metric.name} is not a rate"
    if units == 0:
        return Score(sample_id=sample_id, metric=metric.name, value=None, status="error", note="nothing to count")
    if metric is not BITS_PER_BYTE and nats / units > LARGEST_RATE:
        note = f"{nats / units:.0f} nats a unit: the perplexity has no floating-point number"
        return Score(sample_id=sample_id, metric=metric.name, value=None, status="error", note=note)
    stats = (nats, float(units))
    return Score(sample_id=sample_id, metric=metric.name, value=float(metric.finish(np.array(stats))), stats=stats)
