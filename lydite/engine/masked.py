"""Pseudo-log-likelihoods of masked models: each scored token is masked in turn and read, given all others.

Two rules (`Pll`), which are never compared with each other nor with a likelihood:

* `original` (Salazar et al. 2020, arXiv:1910.14659): only the token itself is masked.
* `within_word_l2r` (Kauf and Ivanova 2023, arXiv:2305.10588): the later tokens of its word are masked too. With the
  original rule the pieces of a rare word give each other away ("souvenir" from "so", "##uven", "##ir"), so long and rare
  words look likely; the corrected rule agrees better with causal models and with frequencies, and is the default here.

A word is what the tokenizer's own pre-tokenizer makes one (a Chinese character is a word for BERT). The tokenizer's special
tokens stand around every text once, are never masked and never scored. All of the context is visible.

The N maskings of a text cost N rows of its length and nothing else: rows of all texts run in batches of like lengths, equal
rows are computed once (two continuations that differ in the masked token only, repeated requests), and the output head
sees the masked positions alone.

Windows where a text is longer than the model: `none` cuts the context from the left; `disjoint` cuts the scored span into
pieces, each scored by itself; `max_context` scores half a window at a time in the middle of a whole one, so that each token
sees at least a quarter of a window on both sides, but for the ends of the text.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from lydite.engine.reader import Place, Reader, Tally, like_lengths, padded
from lydite.engine.score import Scored
from lydite.engine.tokens import Encoder, Ids, Text
from lydite.types import Failure, ScoreRequest

Pll = Literal["original", "within_word_l2r"]


@dataclass(frozen=True, slots=True)
class MaskedWindow:
    """One text with its special tokens, nothing masked yet; ids[first:last] are scored."""

    ids: Ids
    first: int
    last: int
    words: Ids
    """Number of the word of each token; -1 for special tokens and for what belongs to no word."""


@dataclass(frozen=True, slots=True)
class MaskedText:
    """A request as windows; the scored tokens of all windows, in order, are the scored span."""

    windows: list[MaskedWindow]
    join: Literal["clean", "spanned"]
    num_truncated: int = 0

    @property
    def num_positions(self) -> int:
        """Token positions that a naive loop would compute."""
        return sum(len(window.ids) * (window.last - window.first) for window in self.windows)


class MaskedEncoder(Encoder):
    """Turns requests into windows for masked models."""

    @property
    def settings(self) -> dict[str, Any]:
        """As the base class says them, with what differs here."""
        names = self.tokenizer.convert_ids_to_tokens
        said = super().settings
        del said["bos"]
        room = self.room
        around = " ".join([*names(list(self.prefix)), "...", *names(list(self.suffix))])
        return said | {"special_tokens": around, "max_context_stride": None if room is None else max(1, room // 2)}

    @property
    def room(self) -> int | None:
        """Tokens of a text that fit between the special tokens."""
        return None if self.max_tokens is None else self.max_tokens - len(self.prefix) - len(self.suffix)

    def whole(self, text: str) -> Ids:
        """A text's ids with the special tokens around it."""
        return np.asarray([*self.prefix, *self.text_ids([text])[0], *self.suffix], dtype=np.int32)

    def encode_masked(self, requests: Sequence[ScoreRequest]) -> list[MaskedText | Failure]:
        """One MaskedText, or the reason why there is none, for each request; see Encoder.encode for the join."""
        answers: list[MaskedText | Failure | None] = [None] * len(requests)
        for i, text, cut in self.place(requests):
            answers[i] = self._encode_masked(requests[i], text, cut)
        return [answer for answer in answers if answer is not None]

    def _encode_masked(self, request: ScoreRequest, text: Text, cut: int) -> MaskedText | Failure:
        if not request.continuation:
            return Failure(reason="the continuation is empty")
        length = len(text.ids)
        if cut >= length:
            return Failure(reason=f"the continuation {request.continuation!r} has no tokens of its own")
        join: Literal["clean", "spanned"] = "spanned" if text.spanned or cut < text.inside else "clean"
        words = text.words()
        room = length if self.room is None else self.room
        if length <= room:
            return MaskedText([self._window(text.ids, words, (0, cut, length, length))], join)
        if request.window == "none":
            if length - cut > room:
                return Failure(
                    reason=f"the continuation has {length - cut} tokens, more than the model's {self.max_tokens} can "
                    "hold with its special tokens; ask for windows (max_context or disjoint)"
                )
            begin = length - room
            return MaskedText([self._window(text.ids, words, (begin, cut, length, length))], join, begin)
        spans = centred(length, cut, room) if request.window == "max_context" else pieces(length, cut, room)
        return MaskedText([self._window(text.ids, words, span) for span in spans], join)

    def _window(self, ids: Ids, words: Ids, span: tuple[int, int, int, int]) -> MaskedWindow:
        """`span`: begin, first scored, end of the scored, end; the special tokens are put around it."""
        begin, first, last, end = span
        front, back = np.asarray(self.prefix, dtype=np.int32), np.asarray(self.suffix, dtype=np.int32)
        none = [np.full(len(side), -1, dtype=np.int32) for side in (front, back)]
        shift = len(front) - begin
        return MaskedWindow(
            np.concatenate([front, ids[begin:end], back]),
            first + shift,
            last + shift,
            np.concatenate([none[0], words[begin:end], none[1]]),
        )


def centred(length: int, start: int, room: int) -> list[tuple[int, int, int, int]]:
    """Windows (begin, first scored, end of the scored, end) over `length` tokens that score [start, length), half a
    window at a time, each in the middle of a whole one where the text goes on on both sides."""
    step = max(1, room // 2)
    spans = []
    for first in range(start, length, step):
        last = min(length, first + step)
        begin = min(max(0, first - (room - (last - first)) // 2), length - room)
        spans.append((begin, first, last, begin + room))
    return spans


def pieces(length: int, start: int, room: int) -> list[tuple[int, int, int, int]]:
    """Windows (begin, first scored, end of the scored, end) that cut [start, length) into pieces scored by themselves;
    the first is filled up with context on its left where there is any."""
    spans = []
    for first in range(start, length, room):
        last = min(length, first + room)
        begin = max(0, last - room) if first == start else first
        spans.append((begin, first, last, last))
    return spans


def masking(window: MaskedWindow, position: int, mask: int, pll: Pll) -> Ids:
    """The window's ids with one token masked, and with it the later ones of its word where the rule says so."""
    ids = window.ids.copy()
    ids[position] = mask
    word = window.words[position]
    if pll == "within_word_l2r" and word >= 0:
        later = np.arange(len(ids)) > position
        ids[later & (window.words == word)] = mask
    return ids


class MaskedScorer:
    """Scores windows with one masked model, and fills its masks."""

    def __init__(self, reader: Reader, *, mask: int, pad: int, pll: Pll) -> None:
        self.reader = reader
        self.mask = mask
        self.pad = pad
        self.pll = pll

    def score(self, windows: Sequence[MaskedWindow]) -> Iterator[tuple[int, Scored]]:
        """Yields (index, Scored) as soon as a window's last token is read; each window exactly once."""
        # Rows are kept as hashes and made when they run: those of a long document, all at once, would fill the memory.
        reads: dict[bytes, list[tuple[int, int]]] = {}  # row -> (window, position)
        for number, window in enumerate(windows):
            for position in range(window.first, window.last):
                row = masking(window, position, self.mask, self.pll).tobytes()
                # The position too: where the text holds a mask of its own, one row may stand for two.
                key = hashlib.sha256(row + position.to_bytes(4, "little")).digest()[:16]
                reads.setdefault(key, []).append((number, position))
        tally = Tally([window.last - window.first for window in windows])
        rows = list(reads.values())
        for batch in like_lengths([len(windows[of[0][0]].ids) for of in rows], self.reader.batch_tokens):
            made = [masking(windows[number], at, self.mask, self.pll) for number, at in (rows[i][0] for i in batch)]
            ids, mask = padded(made, self.pad)
            places = [
                Place(row * ids.shape[1] + at, int(windows[number].ids[at]), number, at - windows[number].first)
                for row, i in enumerate(batch)
                for number, at in rows[i]
            ]
            states = self._states(ids, mask)
            for place, (logprob, greedy) in zip(places, self.reader.read(states, places), strict=True):
                scored = tally.add(place.owner, place.slot, logprob, greedy)
                if scored is not None:
                    yield place.owner, scored

    def candidates(self, texts: Sequence[Ids], top_k: int) -> Iterator[tuple[int, list[list[tuple[int, float]]]]]:
        """Yields (index, for each mask of that text the likeliest tokens and their probabilities, best first)."""
        for batch in like_lengths([len(ids) for ids in texts], self.reader.batch_tokens):
            ids, mask = padded([texts[i] for i in batch], self.pad)
            states = self._states(ids, mask)
            for row, i in enumerate(batch):
                places = (texts[i] == self.mask).nonzero()[0] + row * ids.shape[1]
                with torch.inference_mode():
                    chosen = states[torch.from_numpy(places).to(states.device)]
                    logits = torch.cat([part for _, _, part in self.reader.head.logits(chosen)], dim=1)
                    best = logits.softmax(dim=-1).topk(min(top_k, logits.shape[1]), dim=-1)
                found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                yield i, [list(zip(tokens, probs, strict=True)) for tokens, probs in found]

    def _states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.reader.num_computed += int(mask.sum())
        return self.reader.states({"input_ids": ids, "attention_mask": mask})
