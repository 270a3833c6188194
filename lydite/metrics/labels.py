"""Metrics of classification and regression over a whole data set, from statistics of each sample.

A sample of a task with K labels carries a confusion row block [K, K + 1], flattened: its gold label is the row, its
prediction the column, and the last column means "no label could be read". A prediction tied between labels is shared
between their columns, as accuracy shares ties; a model that answers everything alike then has MCC 0 wherever the gold
labels stand. Correlations carry (prediction, gold).

Undefined values follow scikit-learn: an F1 without any predicted or gold sample is 0, an MCC with an empty margin is 0.
A correlation of a constant is undefined (NaN here, a missing value in an Estimate), as in scipy.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lydite.types import Metric


def confusion(gold: int, shares: Sequence[float] | None, size: int) -> tuple[float, ...]:
    """Statistics [size * (size + 1)] of one sample; `shares` of the prediction over labels, None: no label was read."""
    row = [0.0] * (size * (size + 1))
    start = gold * (size + 1)
    if shares is None:
        row[start + size] = 1.0
    else:
        assert len(shares) == size, "one share a label"
        row[start : start + size] = shares
    return tuple(row)


def _matrix(sums: Any) -> Any:
    """Sums [..., K * (K + 1)] as matrices [..., K, K + 1]."""
    sums = np.asarray(sums, dtype=np.float64)
    size = (math.isqrt(4 * sums.shape[-1] + 1) - 1) // 2
    return sums.reshape(*sums.shape[:-1], size, size + 1)


def _ratio(top: Any, bottom: Any) -> Any:
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), 0.0)


def _accuracy(sums: Any) -> Any:
    matrix = _matrix(sums)
    return _ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum((-2, -1)))


def _mcc(sums: Any) -> Any:
    """Matthews' correlation for any number of labels (Gorodkin 2004, equation 8; scikit-learn's matthews_corrcoef)."""
    matrix = _matrix(sums)
    gold, predicted = matrix.sum(-1), matrix.sum(-2)
    total = matrix.sum((-2, -1))
    right = np.trace(matrix, axis1=-2, axis2=-1)
    # The column "no label" has no gold count, so it is in the spread of the predictions and nowhere else.
    covariance = right * total - (gold * predicted[..., :-1]).sum(-1)
    spread = (total**2 - (predicted**2).sum(-1)) * (total**2 - (gold**2).sum(-1))
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0.0)))


def _f1s(sums: Any) -> Any:
    """F1 of each label against the rest [..., K]."""
    matrix = _matrix(sums)
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    return _ratio(2 * right, matrix.sum(-1) + matrix.sum(-2)[..., :-1])


def _f1(sums: Any) -> Any:
    return _f1s(sums)[..., 1]


def _macro_f1(sums: Any) -> Any:
    return _f1s(sums).mean(-1)


MCC = Metric(name="mcc", finish=_mcc)
"""Matthews' correlation coefficient, from -1 to 1; 0 is chance (Matthews 1975)."""
F1_POSITIVE = Metric(name="f1", finish=_f1)
"""F1 of the label with index 1 over all samples: precision and recall of the positive class."""
MACRO_F1 = Metric(name="macro_f1", finish=_macro_f1)
"""Unweighted mean over all labels of each label's F1 against the rest."""
ACC_F1 = Metric(name="acc_f1", finish=lambda sums: (_accuracy(sums) + _f1(sums)) / 2)
"""Mean of accuracy and F1: what GLUE's average takes of MRPC and QQP."""
ACC_MACRO_F1 = Metric(name="acc_macro_f1", finish=lambda sums: (_accuracy(sums) + _macro_f1(sums)) / 2)
"""Mean of accuracy and macro F1: what SuperGLUE's average takes of CB."""

# ----------------------------------------------------------------------------------- correlations


def weighted_ranks(values: Any, weights: Any) -> Any:
    """Mean rank [n] of each value, where it stands `weights` [n] times; equal values share theirs."""
    _, place = np.unique(values, return_inverse=True)
    sizes = np.bincount(place, weights=weights)
    ends = np.cumsum(sizes)
    return (ends - (sizes - 1) / 2)[place]


def _correlation(x: Any, y: Any, weights: Any) -> float:
    total = weights.sum()
    dx, dy = x - (weights @ x) / total, y - (weights @ y) / total
    spread = math.sqrt(float(weights @ dx**2) * float(weights @ dy**2))
    scale = float(weights @ x**2) * float(weights @ y**2)
    # Equal values leave a rest of rounding, which would pass for a spread.
    return float(weights @ (dx * dy)) / spread if spread > 1e-14 * math.sqrt(scale) else math.nan


def _pearson(rows: Any, weights: Any) -> float:
    return _correlation(rows[:, 0], rows[:, 1], weights)


def _spearman(rows: Any, weights: Any) -> float:
    drawn = weights > 0
    rows, weights = rows[drawn], weights[drawn]
    return _correlation(weighted_ranks(rows[:, 0], weights), weighted_ranks(rows[:, 1], weights), weights)


PEARSON = Metric(name="pearson", finish_rows=_pearson)
"""Pearson's correlation of prediction and gold value."""
SPEARMAN = Metric(name="spearman", finish_rows=_spearman)
"""Spearman's rank correlation; equal values share their mean rank."""
PEARSON_SPEARMAN = Metric(
    name="pearson_spearman", finish_rows=lambda rows, weights: (_pearson(rows, weights) + _spearman(rows, weights)) / 2
)
"""Mean of both: what GLUE's average takes of STS-B."""

Finish = Callable[[Any], Any]


def ratio_of(name: str, over: int, under: int, *, higher_is_better: bool = True) -> Metric:
    """The sum of one statistic over that of another (0 where the latter is 0)."""

    def finish(sums: Any) -> Any:
        sums = np.asarray(sums, dtype=np.float64)
        return _ratio(sums[..., over], sums[..., under])

    return Metric(name=name, finish=finish, higher_is_better=higher_is_better)
