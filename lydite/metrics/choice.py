"""Metrics of questions with choices: from log-probabilities or probabilities over the choices to one value a sample.

Ties are shared: where t choices are equally good and g of them are gold, the sample scores g / t. So a model that
likes everything alike lands on chance, wherever the gold choice stands; the field's `argmax` gives it the score of
whatever position comes first. Values closer than TIE count as equal.
"""

import math
from collections.abc import Sequence

from lydite.types import Metric

ACC = Metric(name="acc", unit="proportion")
"""The choice with the largest log p(choice | context) is gold."""
ACC_NORM = Metric(name="acc_norm", unit="proportion")
"""The same after division by the number of characters of the choice, without the space before it (as in lm-eval)."""
ACC_BYTES = Metric(name="acc_bytes", unit="proportion")
"""The same after division by the number of UTF-8 bytes of the choice."""
ACC_PMI = Metric(name="acc_pmi", unit="proportion")
"""The same with log p(choice | context) - log p(choice | neutral context): what the question adds to a choice that may
be likely anyway (pointwise mutual information, Holtzman et al. 2021; lm-eval's acc_mutual_info is the case of a
neutral context that is empty)."""
BRIER = Metric(name="brier", higher_is_better=False, bounds=(0.0, 2.0))
"""Sum over choices of (p - target)^2, where p is the softmax of the log-probabilities; from 0 to 2 (Brier 1950)."""
MARGIN = Metric(name="margin", unit="nats")
"""Log-probability of the best gold choice minus that of the best other one; its size says how near a tie was."""

TIE = 1e-9
"""Nats (or nats a character) below which two choices are equally good: rounding, not preference."""


def best(values: Sequence[float]) -> list[int]:
    """Indices of the largest value and of those tied with it."""
    top = max(values)
    return [index for index, value in enumerate(values) if top - value <= TIE]


def accuracy(values: Sequence[float], gold: Sequence[int]) -> float:
    """1 where the best value is gold, 0 where it is not, the gold share of a tie."""
    tied = best(values)
    return len(set(tied) & set(gold)) / len(tied)


def softmax(logprobs: Sequence[float]) -> list[float]:
    """Probabilities over the choices alone."""
    top = max(logprobs)
    weights = [math.exp(value - top) for value in logprobs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def brier(probs: Sequence[float], gold: Sequence[int]) -> float:
    """Multi-class Brier score; several gold choices share the target evenly."""
    target = 1 / len(set(gold))
    return math.fsum((prob - (target if index in gold else 0.0)) ** 2 for index, prob in enumerate(probs))


def margin(logprobs: Sequence[float], gold: Sequence[int]) -> float:
    """Nats between the best gold choice and the best other one; negative where the answer is wrong."""
    right = max(value for index, value in enumerate(logprobs) if index in gold)
    wrong = max(value for index, value in enumerate(logprobs) if index not in gold)
    return right - wrong


def guessing(num_choices: int, num_gold: int) -> dict[str, float]:
    """What an even guess over the choices gets, by metric. The margin has no such value."""
    acc = num_gold / num_choices
    return {
        "acc": acc,
        "acc_norm": acc,
        "acc_bytes": acc,
        "acc_pmi": acc,
        "brier": 1 / num_gold - 1 / num_choices,
    }
