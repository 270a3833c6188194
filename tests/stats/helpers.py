"""Scores from plain numbers, and metrics to test with."""

import numpy as np

from lydite.types import Metric, Score

ACC = Metric(name="acc", unit="proportion")
MEAN = Metric(name="mean")


def _perplexity(sums):
    return np.exp(sums[..., 0] / sums[..., 1])


def _f1(sums):
    hits, false, missed = sums[..., 0], sums[..., 1], sums[..., 2]
    return 2 * hits / (2 * hits + false + missed)


PERPLEXITY = Metric(name="perplexity", higher_is_better=False, finish=_perplexity)
F1 = Metric(name="f1_corpus", finish=_f1)


def scores(metric, values, first=0):
    return [
        Score(sample_id=str(first + i), metric=metric.name, value=None, status="error")
        if value is None
        else Score(sample_id=str(first + i), metric=metric.name, value=float(value))
        for i, value in enumerate(values)
    ]


def stat_scores(metric, rows):
    return [
        Score(sample_id=str(i), metric=metric.name, value=0.0, stats=tuple(map(float, row)))
        for i, row in enumerate(rows)
    ]
