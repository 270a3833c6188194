"""Permutation language modelling (XLNet, Yang et al. 2019): tokens are predicted in a random order, each from those before it in it.

Only the last tokens of the order are predicted, one in K = 6, in spans of 1 to 5 (partial prediction): a span of length L is
drawn, and its place within a context of K * L tokens. All other tokens are seen by every position. Among the targets the order is
random: `perm_mask` says what a position must not see, `target_mapping` which positions are predicted (the second stream).

Rows are text, SEP, CLS, as XLNet has them; those two are never predicted. The segment recurrence of the paper is left out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lydite.errors import ModelError
from lydite.training.batch import IGNORE, Example, Loss, Part, TrainBatch, pad, real_positions
from lydite.training.objectives import noise
from lydite.training.objectives.base import Documents, Stateless, generator
from lydite.training.objectives.forward import inner, token_loss
from lydite.training.objectives.streams import Source, SourceSettings, make_source
from lydite.training.objectives.words import pad_id, special


class Permuted(SourceSettings, frozen=True, kw_only=True):
    """Settings of `permutation`."""

    k: int = 6
    """One token in k is predicted."""
    max_span_length: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 2 or self.max_span_length < 1:
            raise ValueError("k must be 2 or more, max_span_length 1 or more")


class PermutationLM(Stateless):
    """The objective `permutation`."""

    def __init__(self, documents: Documents, tokenizer: Any, settings: Permuted, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self._ends = [special(tokenizer, "sep_token"), special(tokenizer, "cls_token")]
        self._pad = pad_id(tokenizer)
        self._source: Source = make_source(documents, settings.context - 2, settings, seed, between=self._ends[:1])

    def num_examples(self, epoch: int) -> int:
        return len(self._source)

    def example(self, epoch: int, index: int) -> Example:
        """`order`: by position its place among the targets, -1 for what is only seen."""
        text = self._source.read(epoch, index)
        rng = generator(self._seed, epoch, index)
        ordinary = np.flatnonzero(text != self._ends[0])
        found = noise.choose_context_spans(len(ordinary), self._settings.k, self._settings.max_span_length, rng)
        order = np.full(len(text) + 2, -1, dtype=np.int64)
        order[ordinary[found]] = rng.permutation(len(found))
        return Example({"input_ids": np.concatenate([text, self._ends]), "order": order}, len(text) + 2)

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        rows = [example.fields["input_ids"] for example in examples]
        orders = pad([example.fields["order"] for example in examples], -1, self._settings.context)
        ids = pad(rows, self._pad, self._settings.context)
        places = [np.flatnonzero(example.fields["order"] >= 0) for example in examples]
        where = pad(places, -1)
        labels = torch.where(where < 0, IGNORE, ids.gather(1, where.clamp(min=0)))
        inputs = {
            "input_ids": ids,
            "perm_mask": perm_mask(orders),
            "target_mapping": target_mapping(where, ids.shape[1]),
        }
        mask = real_positions(rows, ids.shape[1])
        if mask is not None:
            inputs["attention_mask"] = mask
        return TrainBatch(inputs, {"tokens": labels}, sum(map(len, rows)), {"tokens": sum(map(len, places))})

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        kind = getattr(getattr(inner(network), "config", None), "model_type", None)
        if kind != "xlnet":
            raise ModelError(f"permutation trains XLNet's two streams, not {type(inner(network)).__name__}")
        total, _ = token_loss(network, batch.inputs, batch.targets["tokens"])
        return Loss({"tokens": Part(total, batch.counts["tokens"])})


def perm_mask(orders: Tensor) -> Tensor:
    """orders [B, L] -> float32 [B, L, L], 1 where a row must not see a column: a target that is not before it in the order.

    A target does not see itself in the stream that predicts; the network lets it in the stream that does not.
    """
    return ((orders[:, None] >= 0) & (orders[:, None] >= orders[:, :, None])).float()


def target_mapping(places: Tensor, length: int) -> Tensor:
    """places [B, P] of targets, -1 for none -> float32 [B, P, L], one row a target with a single 1."""
    return (places[:, :, None] == torch.arange(length)).float()
