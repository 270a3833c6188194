"""BERTScore: words of answer and reference matched by the cosine of their contextual vectors (Zhang et al. 2020).

For each token of the answer the most similar token of the reference, averaged: precision; the other way round: recall.
As in the authors' package (bert_score 0.3, without idf weights and without baseline): special tokens may be matched but do
not count, an empty text has 0, and of several references each number takes its best. The encoder comes in as an argument
(lydite.models.encoder); name and layer are part of the scorer's name, since numbers by other encoders do not compare.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lydite.judge.second_pass import Triple
from lydite.types import Metric

METRICS = (
    Metric(name="bertscore_f1", bounds=(-1.0, 1.0)),
    Metric(name="bertscore_precision", bounds=(-1.0, 1.0)),
    Metric(name="bertscore_recall", bounds=(-1.0, 1.0)),
)


class TokenVectors(Protocol):
    """What BERTScore asks of an encoder."""

    name: str
    layer: int

    def embed(self, texts: Sequence[str]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """For each text the vectors of its tokens [tokens, hidden] and whether each is a special one [tokens]."""
        ...


class BertScore:
    """The scorer for an encoder."""

    metrics: tuple[Metric, ...] = METRICS

    def __init__(self, encoder: TokenVectors) -> None:
        self.encoder = encoder
        self.name = f"bertscore:{encoder.name}@{encoder.layer}"

    def score(self, triples: Sequence[Triple]) -> list[Mapping[str, float]]:
        """F1, precision and recall for each triple."""
        texts = list(dict.fromkeys(text for one in triples for text in (one.answer, *one.targets)))
        vectors = dict(zip(texts, self.encoder.embed(texts), strict=True))
        found: list[Mapping[str, float]] = []
        for one in triples:
            pairs = [match(vectors[one.answer], vectors[target]) for target in one.targets]
            best = np.max(np.asarray(pairs), axis=0)
            found.append({metric.name: float(value) for metric, value in zip(METRICS, best, strict=True)})
        return found


def match(
    answer: tuple[NDArray[Any], NDArray[Any]], target: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[float, float, float]:
    """F1, precision and recall of two texts, each (vectors [tokens, hidden], special [tokens])."""
    (said, said_special), (wanted, wanted_special) = answer, target
    if said_special.all() or wanted_special.all():
        return 0.0, 0.0, 0.0
    similar = _unit(said) @ _unit(wanted).T
    precision = float(similar.max(axis=1)[~said_special].mean())
    recall = float(similar.max(axis=0)[~wanted_special].mean())
    both = precision + recall
    return (2 * precision * recall / both if both else 0.0), precision, recall


def _unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """Rows of length 1, in double precision."""
    vectors = vectors.astype(np.float64)
    unit: NDArray[Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
