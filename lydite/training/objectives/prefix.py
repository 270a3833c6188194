"""Prefix language modelling: the first part of a text is seen whole, the rest is predicted token by token.

A text is cut at a random place. With `architecture = "encoder-decoder"` the prefix goes to the encoder and the rest to the
decoder (T5, Raffel et al. 2020). With `decoder`, a network of one stack attends to all of the prefix from everywhere and
causally to the rest (UniLM, Dong et al. 2019); loss on the rest alone. The end-of-sequence token stands where a document ends.

What stands before and behind a text that is scored stands here too: for an encoder-decoder the tokenizer's special tokens around
the prefix and before the rest, for a decoder what stands before documents in `causal`. A decoder is scored causally all through,
as any decoder is; its prefix of one token is that case.

The mask of a decoder is a matrix for each row, which transformers hands through to its attention; whether the network heeds
it is tried once, and refused if not.
"""

import inspect
from collections.abc import Sequence
from typing import Any, Literal
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from lydite.errors import ModelError
from lydite.training.batch import IGNORE, Example, Loss, Part, TrainBatch, pad
from lydite.training.objectives.base import Documents, Stateless, generator
from lydite.training.objectives.causal import borders, packed_borders
from lydite.training.objectives.forward import inner, run, token_logits, token_loss
from lydite.training.objectives.sequences import pair_batch, pair_example, pair_loss
from lydite.training.objectives.streams import DocumentSource, SourceSettings, make_source
from lydite.training.objectives.words import around, pad_id, special

_CHECKED: WeakSet[nn.Module] = WeakSet()


class Prefix(SourceSettings, frozen=True, kw_only=True):
    """Settings of `prefix`."""

    architecture: Literal["encoder-decoder", "decoder"] = "decoder"


class PrefixLM(Stateless):
    """The objective `prefix`."""

    def __init__(self, documents: Documents, tokenizer: Any, settings: Prefix, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self._eos, self._pad = special(tokenizer, "eos_token"), pad_id(tokenizer)
        self._around, self._front = around(tokenizer), around(tokenizer, target=True)[0]
        is_stream = settings.layout == "stream"
        if settings.architecture == "encoder-decoder":
            self._before: list[int] = []
            room = settings.context - max(sum(map(len, self._around)), len(self._front))
        else:
            self._before = (borders if is_stream else packed_borders)(tokenizer, True)[0]
            # Inputs and labels are one text moved by one: a stream has a token more to read, a document its end.
            room = settings.context + 1 if is_stream else settings.context - len(self._before)
        self._source = make_source(documents, max(2, room), settings, seed, between=[self._eos], before=self._before)

    def num_examples(self, epoch: int) -> int:
        return len(self._source)

    def example(self, epoch: int, index: int) -> Example:
        """The prefix has at least one token, and so has the rest."""
        text = self._source.read(epoch, index)
        if isinstance(self._source, DocumentSource):
            before = self._before if self._source.is_start(epoch, index) else []
            after = [self._eos] if self._source.is_end(epoch, index) else []
            text = np.concatenate([before, text, after]).astype(np.int64)
        cut = int(generator(self._seed, epoch, index).integers(1, len(text)))
        if self._settings.architecture == "encoder-decoder":
            source = np.concatenate([self._around[0], text[:cut], self._around[1]]).astype(np.int64)
            return pair_example(source, np.concatenate([self._front, text[cut:]]).astype(np.int64))
        return Example({"tokens": text, "cut": np.array(cut)}, len(text) - 1)

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        context = self._settings.context
        if self._settings.architecture == "encoder-decoder":
            return pair_batch(examples, self._pad, (context, context))
        rows = [example.fields["tokens"] for example in examples]
        cuts = torch.tensor([int(example.fields["cut"]) for example in examples])
        labels = pad([row[1:] for row in rows], IGNORE, context)
        labels[torch.arange(labels.shape[1]) < cuts[:, None] - 1] = IGNORE  # the prefix is not predicted
        inputs = {"input_ids": pad([row[:-1] for row in rows], self._pad, context)}
        count = int((labels != IGNORE).sum())
        targets = {"tokens": labels, "cuts": cuts}
        return TrainBatch(inputs, targets, sum(len(row) - 1 for row in rows), {"tokens": count})

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        if self._settings.architecture == "encoder-decoder":
            return pair_loss(network, batch)
        _check(network, batch)
        total, _ = token_loss(network, _with_mask(network, batch), batch.targets["tokens"])
        return Loss({"tokens": Part(total, batch.counts["tokens"])})


def prefix_mask(cuts: Tensor, length: int) -> Tensor:
    """[B, 1, L, L], True where a row (third) sees a column (fourth): all of the prefix, and what is not later."""
    places = torch.arange(length, device=cuts.device)
    causal = places[:, None] >= places[None]
    return (causal[None] | (places < cuts[:, None])[:, None])[:, None]


def _with_mask(network: nn.Module, batch: TrainBatch) -> dict[str, Tensor]:
    """The network's inputs; the mask as its attention wants it: yes or no, or numbers to add to the scores."""
    ids = batch.inputs["input_ids"]
    mask = prefix_mask(batch.targets["cuts"], ids.shape[1])
    kind = getattr(getattr(inner(network), "config", None), "_attn_implementation", None)
    if kind == "sdpa":
        return {"input_ids": ids, "attention_mask": mask}
    dtype = next(inner(network).parameters()).dtype
    added = torch.zeros(mask.shape, dtype=dtype, device=ids.device).masked_fill_(~mask, torch.finfo(dtype).min)
    return {"input_ids": ids, "attention_mask": added}


def _check(network: nn.Module, batch: TrainBatch) -> None:
    """Raises ModelError where the network does not heed the mask: a change of the prefix's last token must be seen by its first,
    a change of the last token by none before it. Tried once for each network, with the row that has the longest prefix."""
    inside = inner(network)
    if inside in _CHECKED:
        return
    refused = ModelError(
        f'{type(inside).__name__} does not attend as a prefix language model must; set architecture = "encoder-decoder" '
        "for an encoder-decoder, or take a decoder of transformers with sdpa or eager attention"
    )
    if "attention_mask" not in inspect.signature(inside.forward).parameters:
        raise refused
    row = int(batch.targets["cuts"].argmax())
    cut = int(batch.targets["cuts"][row])
    one = TrainBatch(
        {"input_ids": batch.inputs["input_ids"][row : row + 1]}, {"cuts": batch.targets["cuts"][row : row + 1]}, 0, {}
    )
    if cut < 2 or one.inputs["input_ids"].shape[1] <= cut:
        return  # tried with the first batch that can tell
    training = [module for module in inside.modules() if module.training]
    inside.eval()
    try:
        with torch.no_grad():
            before, prefix, last = (_states(inside, one, place) for place in (None, cut - 1, -1))
    finally:
        for module in training:
            module.training = True
    if torch.equal(before[0], prefix[0]) or not torch.equal(before[:-1], last[:-1]):
        raise refused
    _CHECKED.add(inside)


def _states(network: nn.Module, batch: TrainBatch, place: int | None) -> Tensor:
    """Logits [L, V] of the one row, with another token at `place`."""
    inputs = _with_mask(network, batch)
    if place is not None:
        inputs["input_ids"] = inputs["input_ids"].clone()
        inputs["input_ids"][:, place] = (inputs["input_ids"][:, place] + 1) % int(inputs["input_ids"].max() + 1)
    return token_logits(run(network, inputs))[0]
