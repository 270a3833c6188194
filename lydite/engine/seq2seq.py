"""Scores and texts of encoder-decoders: the context in the encoder, the continuation in the decoder.

Two rules, which are never compared with each other:

* `seq2seq`: the encoder reads the context with the tokenizer's special tokens around it; the decoder begins as it was
  trained to (its start token, then what the tokenizer puts before every target, or the configured forced BOS: BART's <s>)
  and is scored on the continuation.
* `seq2seq:sentinel`, for models that know span corruption only (T5 and its kin before any fine-tuning): the encoder reads
  the context with <extra_id_0> behind it, the decoder begins with <extra_id_0>, and what follows is scored.

The continuation is tokenized by itself, as it is written. Its end is scored only where the request writes it (`</s>`).
What the encoder makes of a context is computed once, for all continuations; equal decoder rows are computed once; rows
run in batches of like lengths. A context longer than the encoder is cut from the left and counted; a continuation longer
than the decoder needs windows, as in tokens.py, each beginning like the first.

Contract: that of score.py; no probability is carried across the border of encoder and decoder, so the chain rule holds
within the continuation only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from lydite.engine.reader import Place, Reader, Tally, like_lengths, padded
from lydite.engine.score import Scored
from lydite.engine.tokens import Encoder, Ids, disjoint, slide
from lydite.errors import ModelError
from lydite.types import Failure, ScoreRequest

Rule = Literal["seq2seq", "seq2seq:sentinel"]
SENTINEL = "<extra_id_0>"


@dataclass(frozen=True, slots=True)
class PairWindow:
    """What encoder and decoder read; target[first:] are scored, each given the source and all of the target before it."""

    source: Ids
    target: Ids
    first: int


@dataclass(frozen=True, slots=True)
class PairText:
    """A request as windows."""

    windows: list[PairWindow]
    num_truncated: int = 0
    join: Literal["clean"] = "clean"

    @property
    def num_positions(self) -> int:
        """Token positions that a naive loop would compute."""
        return sum(len(window.source) + len(window.target) - 1 for window in self.windows)


class PairEncoder(Encoder):
    """Turns requests into sources and targets.

    `start`: the ids that every target begins with, before the forced sentinel of the sentinel rule.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int | None,
        start: Sequence[int],
        rule: Rule = "seq2seq",
        chat_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(tokenizer, max_tokens=max_tokens, chat_options=chat_options)
        self.rule = rule
        self.sentinel: tuple[int, ...] = ()
        if rule == "seq2seq:sentinel":
            known = tokenizer.get_vocab().get(SENTINEL)
            if known is None:
                raise ModelError(f"rule=seq2seq:sentinel needs the token {SENTINEL}, which the tokenizer does not have")
            self.sentinel = (known,)
        self.start = (*start, *self.sentinel)
        around = len(self.prefix) + len(self.sentinel) + len(self.suffix)
        if max_tokens is not None and max_tokens < max(around + 1, len(self.start) + 1):
            raise ModelError(f"max_tokens={max_tokens} leaves no room between the special tokens; raise it")

    @property
    def settings(self) -> dict[str, Any]:
        """As the base class says them, with what differs here."""
        names = self.tokenizer.convert_ids_to_tokens
        said = super().settings
        del said["bos"]
        source = [*names(list(self.prefix)), "...", *names([*self.sentinel, *self.suffix])]
        stride = None if self.max_tokens is None else (self.max_tokens + 1 - len(self.start)) // 2
        return said | {
            "encoder": " ".join(source),
            "decoder": " ".join([*names(list(self.start)), "..."]),
            "max_context_stride": stride,
        }

    def encode_pairs(self, requests: Sequence[ScoreRequest]) -> list[PairText | Failure]:
        """One PairText, or the reason why there is none, for each request."""
        contexts = [self.render(r.messages) if r.messages else r.context for r in requests]
        found = self._tokenize([*contexts, *(r.continuation for r in requests)])
        sources: dict[str, tuple[Ids, int] | Failure] = {}
        answers: list[PairText | Failure] = []
        for request, context in zip(requests, contexts, strict=True):
            if context not in sources:
                sources[context] = self.source(found[context].ids)
            source = sources[context]
            if isinstance(source, Failure):
                answers.append(source)
            else:
                target = np.asarray(found[request.continuation].ids, dtype=np.int32)
                answers.append(self._windows_of(request, source, target))
        return answers

    def source(self, ids: Sequence[int]) -> tuple[Ids, int] | Failure:
        """What the encoder reads of a context, and how many of its tokens were cut off on the left."""
        behind = [*self.sentinel, *self.suffix]
        around = len(self.prefix) + len(behind)
        dropped = 0 if self.max_tokens is None else max(0, len(ids) + around - self.max_tokens)
        whole = [*self.prefix, *ids[dropped:], *behind]
        if not whole:  # a tokenizer that adds nothing, and an empty context
            whole = list(self.lead)
        if not whole:
            return Failure(reason="the context is empty and the tokenizer has neither BOS nor EOS for the encoder")
        return np.asarray(whole, dtype=np.int32), dropped

    def _windows_of(self, request: ScoreRequest, source: tuple[Ids, int], target: Ids) -> PairText | Failure:
        if not request.continuation:
            return Failure(reason="the continuation is empty")
        if not len(target):
            return Failure(reason=f"the continuation {request.continuation!r} has no tokens of its own")
        ids, dropped = source
        front = np.asarray(self.start, dtype=np.int32)
        limit = None if self.max_tokens is None else self.max_tokens + 1  # the last token is never an input
        if limit is None or len(front) + len(target) <= limit:
            return PairText([PairWindow(ids, np.concatenate([front, target]), len(front))], dropped)
        if request.window == "none":
            return Failure(
                reason=f"the continuation has {len(target)} tokens, more than the model's {self.max_tokens} can hold; "
                "ask for windows (max_context or disjoint)"
            )
        cut = slide if request.window == "max_context" else disjoint
        spans = cut(len(target), 0, limit - len(front))
        windows = [PairWindow(ids, np.concatenate([front, target[a:b]]), len(front) + s - a) for a, s, b in spans]
        return PairText(windows, dropped)


class PairScorer:
    """Scores windows with one encoder-decoder."""

    def __init__(self, reader: Reader, *, pad: int) -> None:
        self.reader = reader
        self.pad = pad

    def score(self, windows: Sequence[PairWindow]) -> Iterator[tuple[int, Scored]]:
        """Yields (index, Scored) as soon as a window is read; each window exactly once."""
        # source -> decoder input -> windows that read it
        rows: dict[bytes, dict[bytes, list[int]]] = {}
        for number, window in enumerate(windows):
            inputs = rows.setdefault(window.source.tobytes(), {})
            inputs.setdefault(window.target[:-1].tobytes(), []).append(number)
        sources = [np.frombuffer(key, dtype=np.int32) for key in rows]
        decoders = list(rows.values())
        tally = Tally([len(window.target) - window.first for window in windows])
        for batch in like_lengths([len(ids) for ids in sources], self.reader.batch_tokens):
            states = self._encode([sources[i] for i in batch])
            made = [
                (state, ids, numbers)
                for state, i in zip(states, batch, strict=True)
                for ids, numbers in decoders[i].items()
            ]
            yield from self._decode(made, windows, tally)

    def _encode(self, sources: Sequence[Ids]) -> list[Tensor]:
        """For each source its states [T, D]."""
        ids, mask = padded(sources, self.pad)
        device = self.reader.model.device
        with torch.inference_mode():
            out = self.reader.model.get_encoder()(
                input_ids=ids.to(device), attention_mask=mask.to(device)
            ).last_hidden_state
        self.reader.num_computed += int(mask.sum())
        return [out[row, : len(source)] for row, source in enumerate(sources)]

    def _decode(
        self,
        rows: Sequence[tuple[Tensor, bytes, list[int]]],
        windows: Sequence[PairWindow],
        tally: Tally,
    ) -> Iterator[tuple[int, Scored]]:
        """Decoder rows (states of the source, input ids, the windows that read them), in batches of like lengths."""
        size = np.dtype(np.int32).itemsize
        lengths = [len(ids) // size for _, ids, _ in rows]
        longest = max(len(states) for states, _, _ in rows)
        # The states of the source are copied for each row, so they count too.
        most = max(1, 4 * self.reader.batch_tokens // longest)
        for batch in like_lengths(lengths, self.reader.batch_tokens, most):
            ids, mask = padded([np.frombuffer(rows[i][1], dtype=np.int32) for i in batch], self.pad)
            states, there = _stacked([rows[i][0] for i in batch])
            places = [
                Place(
                    row * ids.shape[1] + at, int(windows[number].target[at + 1]), number, at + 1 - windows[number].first
                )
                for row, i in enumerate(batch)
                for number in rows[i][2]
                for at in range(windows[number].first - 1, len(windows[number].target) - 1)
            ]
            out = self.reader.states(
                {
                    "encoder_outputs": BaseModelOutput(last_hidden_state=states),
                    "attention_mask": there,
                    "decoder_input_ids": ids,
                    "decoder_attention_mask": mask,
                    "use_cache": False,
                }
            )
            self.reader.num_computed += int(mask.sum())
            for place, (logprob, greedy) in zip(places, self.reader.read(out, places), strict=True):
                scored = tally.add(place.owner, place.slot, logprob, greedy)
                if scored is not None:
                    yield place.owner, scored


def _stacked(states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """States [T, D] of several sources as one batch [B, T, D], and the mask of what is no padding [B, T]."""
    out = torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
    mask = torch.zeros(out.shape[:2], dtype=torch.int64, device=out.device)
    for row, one in enumerate(states):
        mask[row, : len(one)] = 1
    return out, mask


def start_ids(config: dict[str, Any], generation: dict[str, Any], prefix: Sequence[int]) -> tuple[int, ...]:
    """What the decoder reads before a target: its start token, then the forced BOS or what stands before every target.

    The generation config goes first, then the model's (as in transformers' generate); BOS where neither names a start.
    """
    known = [generation, config]
    start = next((c["decoder_start_token_id"] for c in known if c.get("decoder_start_token_id") is not None), None)
    if start is None:
        start = next((c["bos_token_id"] for c in known if c.get("bos_token_id") is not None), None)
    if start is None:
        raise ModelError("the model does not say how its decoder begins; set decoder_start_token_id in its config.json")
    forced = next((c["forced_bos_token_id"] for c in known if c.get("forced_bos_token_id") is not None), None)
    if forced is not None:
        return (int(start), int(forced))
    return (int(start), *(token for token in prefix if token != start))
