"""Sequence to sequence on parallel text: predict the target document from the source document.

Around both stands what the tokenizer puts there (nothing and </s> in T5, <s> and </s> in BART), as `lydite evaluate` and
transformers have it, and a target always ends with the end of a sequence. `label_smoothing` mixes so much of the uniform distribution into each label
(Szegedy et al. 2016; 0.1 in Vaswani et al. 2017) while training; a validation has none. Pairs longer than the network takes are cut at the end, and counted in
`num_truncated`. Examples that stand together in an epoch are of like length, so that batches hold little padding.

Contract: document i of `documents` (sources) belongs to document i of `targets`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from lydite.errors import DataError, UserError
from lydite.training.batch import Example, Ints, Loss, TrainBatch
from lydite.training.objectives.base import Documents, Stateless
from lydite.training.objectives.sequences import pair_batch, pair_example, pair_loss
from lydite.training.objectives.streams import document_lengths, grouped_order
from lydite.training.objectives.words import around, pad_id, special
from lydite.types import Record


class Seq2Seq(Record, frozen=True, kw_only=True):
    """Settings of `seq2seq`."""

    max_source_length: int = 256
    """Positions, special tokens included."""
    max_target_length: int = 256
    label_smoothing: float = 0.1
    group: int = 64
    """So many pairs in a row are of like length; best a multiple of the batch size."""

    def __post_init__(self) -> None:
        if min(self.max_source_length, self.max_target_length) < 4 or self.group < 1:
            raise ValueError("max_source_length and max_target_length must be 4 or more, group 1 or more")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError("label_smoothing must be 0 or more and below 1")


class SequenceToSequence(Stateless):
    """The objective `seq2seq`."""

    def __init__(
        self, documents: Documents, tokenizer: Any, settings: Seq2Seq, seed: int, targets: Documents | None = None
    ) -> None:
        if targets is None:
            raise UserError("seq2seq needs target documents beside the source documents; name both corpora")
        if len(documents) != len(targets):
            raise DataError(f"{len(documents)} source documents and {len(targets)} target documents do not align")
        self._documents, self._targets, self._settings, self._seed = documents, targets, settings, seed
        self._pad = pad_id(tokenizer)
        self._source, self._target = around(tokenizer), around(tokenizer, target=True)
        eos = special(tokenizer, "eos_token")
        if eos not in self._target[1]:
            self._target = self._target[0], [*self._target[1], eos]
        sources = document_lengths(documents) + _size(self._source)
        wanted = document_lengths(targets) + _size(self._target)
        self.num_truncated = int(((sources > settings.max_source_length) | (wanted > settings.max_target_length)).sum())
        """Pairs of which either side is cut."""
        limits = settings.max_source_length, settings.max_target_length
        # Longest side first: what is sorted by it has like lengths on the other side too, within each.
        self._sizes = np.minimum(sources, limits[0]) * (limits[1] + 1) + np.minimum(wanted, limits[1])
        self._order: tuple[int, Ints] | None = None

    def num_examples(self, epoch: int) -> int:
        return len(self._documents)

    def example(self, epoch: int, index: int) -> Example:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, grouped_order(self._sizes, self._seed, epoch, self._settings.group)
        number = int(self._order[1][index])
        source = _between(self._source, self._documents[number], self._settings.max_source_length)
        return pair_example(source, _between(self._target, self._targets[number], self._settings.max_target_length))

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        return pair_batch(examples, self._pad, (self._settings.max_source_length, self._settings.max_target_length))

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        return pair_loss(network, batch, self._settings.label_smoothing)


Around = tuple[list[int], list[int]]
"""Ids before and behind a text."""


def _size(around: Around) -> int:
    return len(around[0]) + len(around[1])


def _between(around: Around, ids: Any, most: int) -> Ints:
    """A document, cut at the end so that it fits with what stands around it."""
    return np.concatenate([around[0], ids[: most - _size(around)], around[1]]).astype(np.int64)
