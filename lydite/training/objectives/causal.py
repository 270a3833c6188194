"""Causal language modelling: predict each token from those before it.

Three ways to lay out documents (`layout`):

- `blocks`: the documents as one stream with the end-of-document token between them, cut into blocks of `context` tokens
  (nanoGPT's way). Every token is predicted once an epoch; a block may begin inside a document and hold the next one too.
- `packed`: whole documents side by side in rows of `context` positions, none seeing another: positions start again at 0,
  and attention is block-diagonal. Only documents longer than a row are cut. Rows are filled by best fit, so little is
  padding. The loss equals that of each document alone, from BOS on; a tokenizer without a BOS of its own has its
  end-of-document token there, with which a text that is scored begins too.
- `streams`: the stream cut into `streams` long lanes; row b of a step continues row b of the step before, and the network's
  state is handed on (truncated backpropagation through time, for the LSTM). While training a row begins from nothing with
  probability `reset_prob`: every text that is scored begins so, and a network that never does drifts to states from which
  alone it predicts well.

Labels are the inputs moved by one here, in the data; nothing shifts them later.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lydite.errors import ModelError, UserError
from lydite.training.batch import IGNORE, Example, Loss, Part, TrainBatch, pad, padded_length
from lydite.training.objectives.base import Documents, Objective, Stateless, generator
from lydite.training.objectives.forward import inner, token_loss
from lydite.training.objectives.packing import Packing, check_causal, check_packing
from lydite.training.objectives.streams import Blocks, Stream
from lydite.types import Record


class Causal(Record, frozen=True, kw_only=True):
    """Settings of `causal`."""

    context: int = 1024
    """Positions of a row."""
    layout: Literal["blocks", "packed", "streams"] = "blocks"
    streams: int = 0
    """Lanes of `streams`: the number of rows of a step, over all processes."""
    reset_prob: float = 0.05
    """Of `streams`: how likely a row of a step begins without the state of the step before."""
    end_of_document: bool = True
    """Whether the end-of-document token stands behind each document (and the tokenizer's BOS, if it is another, before)."""

    def __post_init__(self) -> None:
        if self.context < 1:
            raise ValueError("context must be 1 or more")
        if (self.layout == "streams") != (self.streams > 0):
            raise ValueError('layout = "streams" and streams = N, the rows of a step, go together')
        if not 0 <= self.reset_prob <= 1:
            raise ValueError("reset_prob must be between 0 and 1")


def borders(tokenizer: Any, end_of_document: bool) -> tuple[list[int], list[int]]:
    """Token ids that stand before and after each document."""
    if not end_of_document:
        return [], []
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if eos is None:
        raise UserError(
            "the tokenizer has no eos_token to end a document with; set end_of_document = false or give it one"
        )
    return [] if bos is None or bos == eos else [bos], [eos]


def packed_borders(tokenizer: Any, end_of_document: bool) -> tuple[list[int], list[int]]:
    """`borders` of documents of which none sees another: something stands before each, or its first token would never be
    predicted, and what a text that is scored begins with would never be seen."""
    before, after = borders(tokenizer, end_of_document)
    return before or after, after


def labels_around(tokenizer: Any, settings: Causal) -> int:
    """How many labels each document has beside its own tokens: its end, and BOS where it follows another document. (-1: its
    first token is none.)"""
    if settings.layout == "packed":
        return sum(map(len, packed_borders(tokenizer, settings.end_of_document))) - 1
    return sum(map(len, borders(tokenizer, settings.end_of_document)))


class CausalBlocks(Stateless):
    """Layout `blocks`."""

    def __init__(self, documents: Documents, tokenizer: Any, settings: Causal, seed: int) -> None:
        stream = Stream(documents, *borders(tokenizer, settings.end_of_document))
        if len(stream) < 2:
            raise UserError("a stream of one token has nothing to predict; train on more text")
        self.context = settings.context
        self._blocks = Blocks(stream, min(settings.context, len(stream) - 1), seed, overlap=1)

    def num_examples(self, epoch: int) -> int:
        return self._blocks.num_blocks

    def example(self, epoch: int, index: int) -> Example:
        tokens = self._blocks.read(epoch, index)
        return Example({"tokens": tokens}, len(tokens) - 1)

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        return shifted([example.fields["tokens"] for example in examples], self.context)

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        check_causal(network, batch)
        total, _ = token_loss(network, batch.inputs, batch.targets["tokens"])
        return Loss({"tokens": Part(total, batch.counts["tokens"])})


def shifted(rows: Sequence[np.ndarray], context: int) -> TrainBatch:
    """Rows of n + 1 tokens as n inputs and n labels. What is padded stands behind all labels, so no mask is needed."""
    inputs = pad([row[:-1] for row in rows], 0, context)
    labels = pad([row[1:] for row in rows], IGNORE, context)
    count = sum(len(row) - 1 for row in rows)
    return TrainBatch({"input_ids": inputs}, {"tokens": labels}, count, {"tokens": count})


class CausalPacked(Stateless):
    """Layout `packed`."""

    def __init__(self, documents: Documents, tokenizer: Any, settings: Causal, seed: int) -> None:
        self.context = settings.context
        stream = Stream(documents, *packed_borders(tokenizer, settings.end_of_document))
        self._packing = Packing(stream, settings.context, seed)

    def num_examples(self, epoch: int) -> int:
        return self._packing.num_rows(epoch)

    def example(self, epoch: int, index: int) -> Example:
        pieces = self._packing.row(epoch, index)
        fields = {
            "tokens": np.concatenate([piece[:-1] for piece in pieces]),
            "labels": np.concatenate([piece[1:] for piece in pieces]),
            "positions": np.concatenate([np.arange(len(piece) - 1) for piece in pieces]),
        }
        return Example(fields, len(fields["tokens"]))

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        tokens, labels, positions = (
            [example.fields[name] for example in examples] for name in ("tokens", "labels", "positions")
        )
        width = padded_length(max(map(len, tokens)), self.context)
        # Padding is one more document, whose positions start at 0.
        filled = [np.concatenate([row, np.arange(width - len(row))]) for row in positions]
        inputs = {"input_ids": pad(tokens, 0, self.context), "position_ids": pad(filled, 0, self.context)}
        count = sum(map(len, tokens))
        return TrainBatch(inputs, {"tokens": pad(labels, IGNORE, self.context)}, count, {"tokens": count})

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        check_causal(network, batch)
        check_packing(network, batch)
        total, _ = token_loss(network, batch.inputs, batch.targets["tokens"])
        return Loss({"tokens": Part(total, batch.counts["tokens"])})


class CausalStreams(Stateless):
    """Layout `streams`: example `index` is step index // rows of lane index % rows.

    The state at the end of each lane's last step is kept here, by lane, so that micro-batches and processes may share out
    the lanes as they like (each the same ones every step); it is None at the first step of an epoch. A state is what the
    network gives as `output.state` and takes as `state`: for each layer some tensors [B, H], as LSTMs have two.
    """

    def __init__(self, documents: Documents, tokenizer: Any, settings: Causal, seed: int) -> None:
        self.rows = self._rows = settings.streams
        self.context = settings.context
        self._reset_prob, self._seed = settings.reset_prob, seed
        self._stream = Stream(documents, *borders(tokenizer, settings.end_of_document))
        self._lane = (len(self._stream) - 1) // self._rows
        """Tokens that each lane predicts; the fewer than `rows` left over at the end are not."""
        if self._lane < 1:
            raise UserError(f"{len(self._stream)} tokens are too few for {self._rows} streams; set fewer streams")
        self._state: dict[int, tuple[int, list[list[Tensor]]]] = {}
        """By lane: its last step, and the state, for each layer its tensors [H]."""

    def num_examples(self, epoch: int) -> int:
        return self._rows * -(-self._lane // self.context)

    def example(self, epoch: int, index: int) -> Example:
        step, lane = divmod(index, self._rows)
        start = lane * self._lane + step * self.context
        tokens = self._stream.read(start, min(start + self.context, (lane + 1) * self._lane) + 1)
        reset = generator(self._seed, epoch, index).random() < self._reset_prob
        return Example({"tokens": tokens, "place": np.array([step, lane, reset])}, len(tokens) - 1)

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        batch = shifted([example.fields["tokens"] for example in examples], self.context)
        batch.targets["places"] = torch.from_numpy(np.stack([example.fields["place"] for example in examples]))
        return batch

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        places = [(step, lane) for step, lane, _ in batch.targets["places"].tolist()]
        state = self._gather(places)
        if state is not None and network.training:
            resets = batch.targets["places"][:, 2:].bool()
            state = tuple(tuple(part.masked_fill(resets, 0) for part in layer) for layer in state)
        inputs: dict[str, Any] = dict(batch.inputs)
        if state is not None:
            inputs["state"] = state
        total, output = token_loss(network, inputs, batch.targets["tokens"])
        if getattr(output, "state", None) is None:
            raise ModelError(
                f'{type(inner(network)).__name__} hands on no state; set layout = "blocks", or take lydite_lstm'
            )
        self._keep(places, output.state)
        return Loss({"tokens": Part(total, batch.counts["tokens"])})

    def _gather(self, places: list[tuple[int, int]]) -> tuple[tuple[Tensor, ...], ...] | None:
        """The state before this step, the lanes' in the rows' order."""
        steps = {step for step, _ in places}
        assert len(steps) == 1, "the rows of a batch of streams are of one step"
        step = steps.pop()
        if step == 0:
            return None
        kept = [self._state[lane] for _, lane in places]
        assert all(last == step - 1 for last, _ in kept), "a step of carried streams was left out"
        layers = zip(*(layers for _, layers in kept), strict=True)
        return tuple(tuple(torch.stack(rows) for rows in zip(*layer, strict=True)) for layer in layers)

    def _keep(self, places: list[tuple[int, int]], state: Sequence[Sequence[Tensor]]) -> None:
        for row, (step, lane) in enumerate(places):
            self._state[lane] = step, [[tensor[row].detach() for tensor in layer] for layer in state]

    def carried(self) -> dict[str, Tensor]:
        """`last` [rows], -1 where this process does not have the lane, and `state.LAYER.NUMBER` [rows, H]."""
        if not self._state:
            return {}
        last = torch.full((self._rows,), -1, dtype=torch.int64)
        out = {
            f"state.{i}.{j}": tensor.new_zeros(self._rows, *tensor.shape)
            for i, layer in enumerate(next(iter(self._state.values()))[1])
            for j, tensor in enumerate(layer)
        }
        for lane, (step, layers) in self._state.items():
            last[lane] = step
            for i, layer in enumerate(layers):
                for j, tensor in enumerate(layer):
                    out[f"state.{i}.{j}"][lane] = tensor
        return {"last": last, **out}

    def carry(self, kept: dict[str, Tensor]) -> None:
        self._state = {}
        places = sorted(tuple(map(int, name.split(".")[1:])) for name in kept if name != "last")
        for lane, step in enumerate(kept["last"].tolist() if kept else []):
            if step >= 0:
                layers: list[list[Tensor]] = [[] for _ in range(places[-1][0] + 1)]
                for i, j in places:
                    layers[i].append(kept[f"state.{i}.{j}"][lane].clone())
                self._state[lane] = step, layers


def make_causal(documents: Documents, tokenizer: Any, settings: Causal, seed: int) -> Objective:
    """The objective of the layout."""
    if settings.layout == "blocks":
        return CausalBlocks(documents, tokenizer, settings, seed)
    if settings.layout == "packed":
        return CausalPacked(documents, tokenizer, settings, seed)
    return CausalStreams(documents, tokenizer, settings, seed)
