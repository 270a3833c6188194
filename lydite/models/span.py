"""Extractive heads of transformers (...ForQuestionAnswering): the span of a passage that answers a question.

A passage longer than the model is read in windows that overlap by `doc_stride` tokens. A span's score is the sum of its
start and end logits, compared over all windows as in BERT's own code for SQuAD (Devlin et al. 2019); it lies within the
passage, ends where it begins or later, and is at most `max_answer_tokens` long. The score of no answer is that of the
classification token, the lowest of all windows, and `no_answer_prob` is the logistic function of its distance to the best
span: above one half the head says that there is no answer, and the text is empty.

Contract: `passage[start:end]` is the text; where a passage is read in windows nothing of it is dropped.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForQuestionAnswering, PreTrainedModel

from lydite.engine.budget import batch_rows
from lydite.engine.joined import Joined, PairTokenizer
from lydite.errors import ModelError
from lydite.models.checkpoint import CheckpointSettings, open_checkpoint, read_settings, said_of
from lydite.models.heads import HeadRunner
from lydite.types import Failure, ModelInfo, Output, Request, Span, SpanRequest, Usage


class SpanSettings(CheckpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set key=value` may say about a span head."""

    doc_stride: int = 128
    """Tokens of the passage that two windows share."""
    max_answer_tokens: int = 30
    no_answer: bool = True
    """False: the head was trained on answerable questions only, so the best span always is the answer."""


@dataclass(frozen=True, slots=True)
class _Window:
    """One window of a passage: what the network reads, and the characters [start, end) of its passage tokens."""

    owner: int
    row: Joined
    offsets: list[tuple[int, int]]


@dataclass
class _Best:
    """The best span of the windows so far."""

    missing: int
    score: float = -math.inf
    chars: tuple[int, int] = (0, 0)
    null: float = math.inf
    is_number: bool = True


class SpanModel:
    """Answers SpanRequests with one extractive head."""

    def __init__(self, info: ModelInfo, tokenizer: PairTokenizer, runner: HeadRunner, chosen: SpanSettings) -> None:
        self.info = info
        self.usage = Usage(kernel=f"{runner.kernel.name} ({runner.kernel.reason})")
        self.tokenizer = tokenizer
        self.runner = runner
        self.chosen = chosen

    def network(self) -> PreTrainedModel:
        """The transformers model with its ordinary layers, fit for training; what inference had changed is undone."""
        self.runner.kernel.restore()
        return self.runner.model

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one (position, output) for each request, as batches finish."""
        asked = [(i, r) for i, r in enumerate(requests) if isinstance(r, SpanRequest)]
        for index, request in enumerate(requests):
            if not isinstance(request, SpanRequest):
                yield index, Failure(reason=f"a span head cannot answer a {type(request).__name__}")
        texts = list(dict.fromkeys(text for _, r in asked for text in (r.question, r.passage)))
        found = dict(zip(texts, self.tokenizer.encode(texts), strict=True))
        windows: list[_Window] = []
        best: dict[int, _Best] = {}
        for index, request in asked:
            made = self._windows(index, found[request.question].ids, found[request.passage])
            if isinstance(made, Failure):
                yield index, made
                continue
            windows += made
            best[index] = _Best(missing=len(made))
            self.usage.tokens_requested += sum(len(window.row.ids) for window in made)
        before = self.runner.num_computed
        for batch, out in self.runner.run([window.row for window in windows]):
            self.usage.tokens_computed += self.runner.num_computed - before
            before = self.runner.num_computed
            starts, ends = out.start_logits.double().cpu(), out.end_logits.double().cpu()
            for row, i in enumerate(batch):
                owner = windows[i].owner
                self._look(best[owner], windows[i], starts[row], ends[row])
                if not best[owner].missing:
                    request = requests[owner]
                    assert isinstance(request, SpanRequest)
                    yield owner, self._output(best.pop(owner), request.passage)
        assert not best

    def _windows(self, owner: int, question: Sequence[int], passage: Any) -> list[_Window] | Failure:
        ids, offsets = passage.ids, passage.offsets
        if not ids:
            return Failure(reason="the passage is empty")
        longest = self.info.max_tokens
        room = len(ids)
        if longest is not None:
            room = longest - self.tokenizer.num_special(2) - len(question)
        stride = self.chosen.doc_stride
        if room < len(ids) and room <= stride:
            return Failure(
                reason=f"a question of {len(question)} tokens leaves {max(room, 0)} for the passage in the model's "
                f"{longest}, not more than doc_stride {stride}; lower doc_stride"
            )
        windows, begin = [], 0
        while True:
            end = min(len(ids), begin + room)
            windows.append(_Window(owner, self.tokenizer.join(question, ids[begin:end]), offsets[begin:end]))
            if end == len(ids):
                return windows
            begin = end - stride

    def _look(self, best: _Best, window: _Window, starts: torch.Tensor, ends: torch.Tensor) -> None:
        """Compare a window's best span and its score of no answer with those so far."""
        best.missing -= 1
        here = slice(window.row.last, window.row.last + len(window.offsets))
        if window.row.classes is not None:
            best.null = min(best.null, float(starts[window.row.classes] + ends[window.row.classes]))
        scores = starts[here, None] + ends[None, here]  # [starts, ends]
        if not bool(torch.isfinite(scores).all()):
            best.is_number = False
            return
        size = len(window.offsets)
        allowed = torch.ones(size, size, dtype=torch.bool).triu() & torch.ones(size, size, dtype=torch.bool).tril(
            self.chosen.max_answer_tokens - 1
        )
        scores = scores.masked_fill(~allowed, -math.inf)
        place = int(scores.argmax())
        first, last = divmod(place, size)
        if float(scores[first, last]) > best.score:
            best.score = float(scores[first, last])
            best.chars = (window.offsets[first][0], window.offsets[last][1])

    def _output(self, best: _Best, passage: str) -> Output:
        if not best.is_number:
            return Failure(reason="not a number among the head's outputs")
        start, end = best.chars
        found = passage[start:end]  # tokens of SentencePiece reach over the space before them
        start, end = start + len(found) - len(found.lstrip()), end - len(found) + len(found.rstrip())
        if not self.chosen.no_answer or math.isinf(best.null):
            return Span(start=start, end=end, text=passage[start:end])
        none = float(torch.sigmoid(torch.tensor(best.null - best.score, dtype=torch.float64)))
        if none > 0.5:
            return Span(start=0, end=0, text="", no_answer_prob=none)
        return Span(start=start, end=end, text=passage[start:end], no_answer_prob=none)


def load_span(
    folder: Path,
    *,
    name: str,
    source: str,
    dtype: str = "float32",
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> SpanModel:
    """A SpanModel from a local checkpoint folder; arguments and errors as of load_causal, settings: SpanSettings."""
    chosen = read_settings(settings, SpanSettings)
    if chosen.doc_stride < 0 or chosen.max_answer_tokens < 1:
        raise ModelError("doc_stride must be at least 0 and max_answer_tokens at least 1")
    with open_checkpoint(folder, AutoModelForQuestionAnswering, chosen, dtype=dtype, device=device) as opened:
        tokenizer = PairTokenizer(opened.tokenizer)
        pad = opened.tokenizer.pad_token_id
        runner = HeadRunner(
            opened.network,
            pad=0 if pad is None else pad,
            segments=tokenizer.has_segments,
            batch_tokens=chosen.batch_tokens or batch_rows(*opened.size),
            kernel=chosen.kernel,
        )
        said = {"doc_stride": chosen.doc_stride, "max_answer_tokens": chosen.max_answer_tokens}
        said |= {"no_answer": chosen.no_answer}
        info = opened.info(
            name=name,
            source=source,
            rule=("span", "span"),
            can=("span",),
            max_tokens=opened.max_tokens(chosen.max_tokens),
            settings=said | said_of(opened.network, chosen, runner.kernel.name),
        )
    return SpanModel(info, tokenizer, runner, chosen)
