"""Text generation: prompts in batches of like lengths, through transformers' `generate`.

Contract: the same rules as for scoring decide what stands before the prompt; a prompt that leaves no room for
`max_new_tokens` is cut from the left and counted; text is cut before the first stop string, also where that spans
several tokens; sampled requests are generated one by one, each with a generator keyed by (seed, sample, index), so that
their text does not depend on what else is asked.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from lydite.engine.tokens import Encoder
from lydite.types import Completion, Decoding, Failure, GenerateRequest

MAX_ROWS = 32
_TAIL = 4
"""Prompt tokens that are decoded along with new ones, because some tokenizers drop a leading space."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    index: int
    ids: list[int]
    num_truncated: int


class StopStrings(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """A row is done when one of the strings occurs in the text generated so far."""

    def __init__(self, encoder: Encoder, stops: Sequence[str], start: int) -> None:
        self.encoder = encoder
        self.stops = stops
        self.start = start
        """Where new tokens begin in the rows."""
        self.tail = max(len(stop.encode()) for stop in stops) + 8

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """input_ids [rows, length] -> [rows], whether each is done."""
        recent = input_ids[:, max(self.start, input_ids.shape[1] - self.tail) :].tolist()
        texts = [self.encoder.decode(ids) for ids in recent]
        done = [any(stop in text for stop in self.stops) for text in texts]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)


class Watch(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Notes rows whose logits are not numbers (`generate` would go on with them) and lets them run on zeros."""

    def __init__(self) -> None:
        self.broken: Tensor | None = None
        """[rows], or [rows x beams]"""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        bad = scores.isnan().any(dim=-1)
        self.broken = bad if self.broken is None else self.broken | bad
        return scores.masked_fill(bad[:, None], 0.0)

    def rows(self, count: int) -> list[bool]:
        """For each of `count` prompts, whether it met one."""
        assert self.broken is not None
        return [bool(bad) for bad in self.broken.view(count, -1).any(dim=1)]


class Generator:
    """Generates with one transformers decoder; `batch_tokens` bounds rows x (prompt + new tokens) of a batch."""

    def __init__(self, model: PreTrainedModel, encoder: Encoder, *, batch_tokens: int) -> None:
        self.model = model
        self.encoder = encoder
        self.batch_tokens = batch_tokens
        self.eos = _eos_ids(model, encoder)
        pad = encoder.tokenizer.pad_token_id
        self.pad = pad if pad is not None else (min(self.eos) if self.eos else 0)
        model.generation_config = GenerationConfig()  # a checkpoint's own decoding defaults must not leak in
        self.num_computed = 0
        self.num_generated = 0

    def generate(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, Completion | Failure]]:
        """Yields (index, Completion) as batches finish."""
        texts = [self.encoder.render(r.messages) if r.messages else r.prompt for r in requests]
        ready: dict[Decoding, list[_Prompt]] = {}
        for index, ids in enumerate(self.encoder.prompt_ids(texts)):
            prompt = self._fit(index, ids, requests[index].decoding)
            if isinstance(prompt, Failure):
                yield index, prompt
            else:
                ready.setdefault(requests[index].decoding, []).append(prompt)
        for decoding, prompts in ready.items():
            for batch in self._batches(prompts, decoding):
                for prompt, answer in zip(batch, self._run(batch, requests, decoding), strict=True):
                    yield prompt.index, answer

    def _fit(self, index: int, ids: list[int], decoding: Decoding) -> _Prompt | Failure:
        longest = self.encoder.max_tokens
        if not ids:
            return Failure(reason="the prompt is empty and the tokenizer has neither BOS nor EOS to begin with")
        if longest is None:
            return _Prompt(index, ids, 0)
        room = longest - decoding.max_new_tokens
        if room < 1 + len(self.encoder.prefix):
            return Failure(
                reason=f"max_new_tokens {decoding.max_new_tokens} leaves no room for a prompt in the model's {longest} tokens"
            )
        return _Prompt(index, *self.encoder.fit(ids, room))

    def _batches(self, prompts: list[_Prompt], decoding: Decoding) -> Iterator[list[_Prompt]]:
        """Prompts of like lengths together; sampled ones alone."""
        queue = sorted(prompts, key=lambda p: len(p.ids), reverse=True)
        while queue:
            width = (len(queue[0].ids) + decoding.max_new_tokens) * max(1, decoding.num_beams)
            count = 1 if decoding.do_sample else max(1, min(MAX_ROWS, self.batch_tokens // width))
            yield queue[:count]
            queue = queue[count:]

    def _run(
        self, batch: list[_Prompt], requests: Sequence[GenerateRequest], decoding: Decoding
    ) -> list[Completion | Failure]:
        width = max(len(prompt.ids) for prompt in batch)
        ids = torch.full((len(batch), width), self.pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(batch):
            ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
            mask[row, width - len(prompt.ids) :] = 1
        watch, stops = Watch(), StoppingCriteriaList()
        if decoding.stop_strings:
            stops.append(StopStrings(self.encoder, decoding.stop_strings, width))
        with torch.inference_mode(), torch.random.fork_rng():
            if decoding.do_sample:
                torch.manual_seed(_seed(requests[batch[0].index]))
            out = self.model.generate(
                ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                generation_config=self._config(decoding),
                stopping_criteria=stops,
                logits_processor=LogitsProcessorList([watch]),
            )
        self.num_computed += int(mask.sum())
        return [
            Failure(reason="not a number among the model's probabilities")
            if bad
            else self._finish(prompt, row, decoding)
            for prompt, row, bad in zip(batch, out[:, width:].tolist(), watch.rows(len(batch)), strict=True)
        ]

    def _config(self, decoding: Decoding) -> GenerationConfig:
        options: dict[str, Any] = {
            "max_new_tokens": decoding.max_new_tokens,
            "do_sample": decoding.do_sample,
            "num_beams": decoding.num_beams,
            "repetition_penalty": decoding.repetition_penalty,
            "eos_token_id": sorted(self.eos) or None,
            "pad_token_id": self.pad,
        }
        if decoding.do_sample:
            options |= {"temperature": decoding.temperature, "top_k": decoding.top_k, "top_p": decoding.top_p}
        if decoding.num_beams > 1:
            options["length_penalty"] = decoding.length_penalty
        return GenerationConfig(**options)

    def _finish(self, prompt: _Prompt, new: list[int], decoding: Decoding) -> Completion:
        """Cut at the end-of-sequence token and before the first stop string."""
        end = next((i for i, token in enumerate(new) if token in self.eos), None)
        ids = new if end is None else new[:end]
        text, count = self._text(prompt, ids, skip_special=True), len(ids)
        stopped = end is not None
        raw = self._text(prompt, ids)
        if any(stop in raw for stop in decoding.stop_strings):
            stopped = True
            low, high = 1, len(ids)  # the fewest tokens whose text holds a stop string
            while low < high:
                middle = (low + high) // 2
                found = any(stop in self._text(prompt, ids[:middle]) for stop in decoding.stop_strings)
                low, high = (low, middle) if found else (middle + 1, high)
            count = low
            text = self._text(prompt, ids[:count], skip_special=True)
            text = text[: min((text.find(stop) for stop in decoding.stop_strings if stop in text), default=len(text))]
        self.num_generated += count + (end is not None)
        return Completion(
            text=text, num_tokens=count, finish="stop" if stopped else "length", num_truncated=prompt.num_truncated
        )

    def _text(self, prompt: _Prompt, ids: list[int], *, skip_special: bool = False) -> str:
        """What the new tokens add to the prompt's text."""
        before = prompt.ids[-_TAIL:]
        head = self.encoder.decode(before, skip_special=skip_special)
        whole = self.encoder.decode(before + ids, skip_special=skip_special)
        return whole[len(head) :] if whole.startswith(head) else self.encoder.decode(ids, skip_special=skip_special)


def _eos_ids(model: PreTrainedModel, encoder: Encoder) -> frozenset[int]:
    """All tokens that end a text: the generation config's, the model config's and the tokenizer's."""
    found: set[int] = set()
    tokenizer = encoder.tokenizer.eos_token_id
    for given in (model.generation_config.eos_token_id, model.config.get_text_config().eos_token_id, tokenizer):
        found.update([given] if isinstance(given, int) else given or [])
    return frozenset(found)


def _seed(request: GenerateRequest) -> int:
    key = f"{request.seed}\n{request.sample_id}\n{request.index}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
