"""lm-evaluation-harness's aggregations as Metrics: what one document's value is, and how values become a number.

Their metrics are a value a document (a number, or a tuple such as (log-likelihood, words)) and a function of all
values. Those with sums become statistics with `finish`, the others `finish_rows`, so that intervals, groups and
comparisons work as for any task; the number itself is theirs (tests hold the two together).

A function that a task brings along gets its own values back, repeated as a resample wants. That works for values made
of numbers; where they hold texts or rows, the metric is left out, with a warning.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from lm_eval.api import metrics as theirs

from lydite.metrics.choice import BRIER
from lydite.types import Metric, Score

PROPORTIONS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")
"""Metrics that are 0 or 1 for each document."""


@dataclass(frozen=True)
class Reading:
    """A Metric, and how a document's value is read for it: (value of the Score, statistics), None: it has none."""

    metric: Metric
    read: Callable[[Any], tuple[float, tuple[float, ...]] | None]


def reading(name: str, metric: str, aggregation: Callable[..., Any], higher_is_better: bool) -> Reading:
    """How their metric `metric`, aggregated by `aggregation`, is called `name` and computed here."""
    base = Metric(name=name, higher_is_better=higher_is_better)
    if aggregation is theirs.mean or aggregation is theirs.nanmean:
        return Reading(replace(base, unit="proportion" if metric in PROPORTIONS else ""), _number)
    if aggregation is theirs.brier_score:
        return Reading(replace(base, bounds=BRIER.bounds), _brier)
    if aggregation in (theirs.perplexity, theirs.weighted_perplexity, theirs.bits_per_byte):
        bits = aggregation is theirs.bits_per_byte
        made = replace(base, finish=_bits if bits else _exp_rate, unit="bits" if bits else "")
        return Reading(made, functools.partial(_rate, made))
    if aggregation is theirs.f1_score or aggregation is theirs.matthews_corrcoef:
        finish = _f1 if aggregation is theirs.f1_score else _mcc
        return Reading(replace(base, finish_rows=finish), _gold_and_guess)
    if aggregation is theirs.median:
        return Reading(replace(base, finish_rows=_median), _alone)
    if (corpus := _corpus_metric(aggregation)) is not None:
        made = replace(base, finish=functools.partial(_from_segments, corpus))
        return Reading(made, functools.partial(_segment, corpus, made))
    return Reading(replace(base, finish_rows=functools.partial(_own, aggregation)), _numbers)


# --------------------------------------------------------------------------------------------- means


def _number(value: Any) -> tuple[float, tuple[float, ...]] | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return (number, ()) if math.isfinite(number) else None


def _alone(value: Any) -> tuple[float, tuple[float, ...]] | None:
    read = _number(value)
    return None if read is None else (read[0], (read[0],))


def _brier(value: Any) -> tuple[float, tuple[float, ...]] | None:
    """(gold, probabilities): the sum over choices of (p - [gold])^2."""
    gold, probs = value
    if not isinstance(gold, int | np.integer) or not 0 <= gold < len(probs):
        return None
    return float(sum((p - (i == gold)) ** 2 for i, p in enumerate(probs))), ()


# --------------------------------------------------------------------------------------------- rates


def _exp_rate(sums: Any) -> Any:
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.exp(sums[..., 0] / sums[..., 1])


def _bits(sums: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[..., 0] / sums[..., 1] / math.log(2)


def _rate(metric: Metric, value: Any) -> tuple[float, tuple[float, ...]] | None:
    """(log-likelihood, units), or a log-likelihood that counts as one unit."""
    nats, units = value if isinstance(value, tuple | list) else (value, 1)
    if not math.isfinite(nats):
        return None
    stats = (-float(nats), float(units))
    assert metric.finish is not None
    return _finite(float(metric.finish(np.array(stats)))), stats


def _finite(value: float) -> float:
    """A document that has no value of its own (no words) still counts in the sums."""
    return value if math.isfinite(value) else 0.0


# ------------------------------------------------------------------------------------ classification


def _gold_and_guess(value: Any) -> tuple[float, tuple[float, ...]] | None:
    gold, guess = value
    if not isinstance(gold, int | np.integer):
        return None
    return float(gold == guess), (float(gold), float(guess))


def _f1(rows: Any, weights: Any) -> float:
    """F1 of class 1, as scikit-learn's f1_score by default; 0 where there is nothing to find."""
    gold, guess = rows[:, 0] == 1, rows[:, 1] == 1
    hits = float(weights[gold & guess].sum())
    total = float(weights[gold].sum() + weights[guess].sum())
    return 2 * hits / total if total else 0.0


def _mcc(rows: Any, weights: Any) -> float:
    """Matthews correlation of several classes (Gorodkin 2004), as scikit-learn's; 0 where one side is constant."""
    classes = np.unique(rows)
    gold, guess = np.searchsorted(classes, rows[:, 0]), np.searchsorted(classes, rows[:, 1])
    table = np.bincount(gold * len(classes) + guess, weights=weights, minlength=len(classes) ** 2)
    table = table.reshape(len(classes), len(classes))
    size, right, truth, said = table.sum(), np.trace(table), table.sum(axis=1), table.sum(axis=0)
    spread = (size**2 - said @ said) * (size**2 - truth @ truth)
    return float((right * size - truth @ said) / math.sqrt(spread)) if spread > 0 else 0.0


def _median(rows: Any, weights: Any) -> float:
    """The upper of the two middle values where their number is even."""
    order = np.argsort(rows[:, 0], kind="stable")
    reached = np.cumsum(weights[order])
    place = int(np.searchsorted(reached, float(int(reached[-1]) // 2), side="right"))
    return float(rows[order[min(place, len(order) - 1)], 0])


# --------------------------------------------------------------------------------------- corpus texts


def _corpus_metric(aggregation: Callable[..., Any]) -> Any:
    """sacrebleu's metric with the options that they use, or None."""
    from sacrebleu import metrics as sacrebleu

    made: dict[Any, Callable[[], Any]] = {
        theirs.bleu: sacrebleu.BLEU,
        theirs.chrf: sacrebleu.CHRF,
        theirs.chrfpp: lambda: sacrebleu.CHRF(word_order=2),
        theirs.ter: sacrebleu.TER,
    }
    return made[aggregation]() if aggregation in made else None


def _segment(corpus: Any, metric: Metric, value: Any) -> tuple[float, tuple[float, ...]] | None:
    """(reference or references, answer): sacrebleu's statistics of one segment."""
    references, answer = value
    references = [references] if isinstance(references, str) else list(references)
    answer = answer if isinstance(answer, str) else answer[0]
    # The same entry that sacrebleu's own significance tests use; a test holds it to `corpus_score`.
    [stats] = corpus._extract_corpus_statistics([answer], [[reference] for reference in references])
    stats = tuple(float(count) for count in stats)
    assert metric.finish is not None
    return _finite(float(metric.finish(np.array(stats)))), stats


def _from_segments(corpus: Any, sums: Any) -> Any:
    """sacrebleu's score, from 0 to 100, from summed statistics [..., k]."""

    def score(stats: Any) -> float:
        numbers = [int(count) if float(count).is_integer() else float(count) for count in stats]
        return float(corpus._compute_score_from_stats(numbers).score)

    return np.apply_along_axis(score, -1, np.asarray(sums, dtype=np.float64))


# ---------------------------------------------------------------------------------------- their own


def _numbers(value: Any) -> tuple[float, tuple[float, ...]] | None:
    """A number or a tuple of numbers; the value of a Score is the first of them."""
    items = value if isinstance(value, tuple | list) else (value,)
    read = [_number(item) for item in items]
    found = tuple(item[0] for item in read if item is not None)
    return (found[0], found) if found and len(found) == len(read) else None


def _own(aggregation: Callable[..., Any], rows: Any, weights: Any) -> float:
    """A function that a task brings along, on values repeated by their weights; not a number where it fails."""
    items = [tuple(row) if len(row) > 1 else row[0] for row in rows.tolist()]
    repeated = [item for item, times in zip(items, weights, strict=True) for _ in range(round(times))]
    try:
        return float(aggregation(repeated))
    except (ArithmeticError, ValueError, LookupError, TypeError):
        return math.nan


def scores_of(
    sample_id: str,
    readings: Mapping[tuple[str, str], Reading],
    values: Mapping[tuple[str, str], Any],
    answers: Mapping[str, str],
) -> list[Score]:
    """One Score for each (metric, filter); an error where the document has no value. `answers`: by filter."""
    scores = []
    for key, one in readings.items():
        read = one.read(values[key]) if key in values else None
        name = one.metric.name
        if read is None:
            note = (
                f"lm-eval's value is {values[key]!r:.80}" if key in values else "lm-eval gives this document no value"
            )
            scores.append(Score(sample_id=sample_id, metric=name, value=None, status="error", note=note))
        else:
            value, stats = read
            scores.append(Score(sample_id=sample_id, metric=name, value=value, stats=stats, answer=answers[key[1]]))
    return scores


def carried(
    readings: Mapping[tuple[str, str], Reading], values: Mapping[tuple[str, str], Any]
) -> list[tuple[str, str]]:
    """The keys whose values, as this document has them, a run folder can hold."""
    own = {key for key, one in readings.items() if one.read is _numbers and key in values}
    return [key for key in readings if key not in own or _numbers(values[key]) is not None]
