"""Text through transformers' own `generate`: beam search, and models that the packed path cannot run.

Contract: the same as decode.py's. Rows of like lengths are padded on the left and generated together; sampled requests
one by one, each with a generator keyed by (seed, sample, index), so that their text does not depend on what else is asked.
"""

from collections.abc import Iterator, Sequence
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

from lydite.engine.constrain import Constraint
from lydite.engine.sampling import has_penalty, make_generator, penalise, probabilities
from lydite.engine.stops import has_stop
from lydite.engine.texts import Prompt, Texts
from lydite.types import Completion, Decoding, Failure, GenerateRequest

MAX_ROWS = 32


class StopStrings(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """A row is done when something in the text generated so far ends it."""

    def __init__(self, texts: Texts, decoding: Decoding, start: int) -> None:
        self.texts = texts
        self.decoding = decoding
        self.start = start
        """Where new tokens begin in the rows."""

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """input_ids [rows, length] -> [rows], whether each is done."""
        done = [self.texts.has_stop(ids, self.decoding) for ids in input_ids[:, self.start :].tolist()]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)


class Complete(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """A row is done when its constraint lets nothing follow; on the way each constraint is told what was chosen."""

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self.constraints = constraints

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """input_ids [rows, length] -> [rows], whether each is done."""
        for constraint, token in zip(self.constraints, input_ids[:, -1].tolist(), strict=True):
            if not constraint.is_done:  # done rows go on with padding
                constraint.accept(token)
        done = [constraint.is_done for constraint in self.constraints]
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


class Warp(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Our own constraints, penalties and sampling steps, so that every path means the same by them."""

    def __init__(
        self, decoding: Decoding, start: int, first: Sequence[int], constraints: Sequence[Constraint] = ()
    ) -> None:
        self.decoding = decoding
        self.start = start
        self.first = first
        """Where each prompt begins behind its padding."""
        self.constraints = constraints
        """One a row, or none at all."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        out = scores.clone()
        beams = len(scores) // len(self.first)
        for row, ids in enumerate(input_ids.tolist()):
            prompt, new = ids[self.first[row // beams] : self.start], ids[self.start :]
            if self.constraints:
                out[row] = self.constraints[row].apply(scores[row])
            out[row] = penalise(out[row], self.decoding, prompt, new)
            if self.decoding.do_sample:
                out[row] = probabilities(out[row], self.decoding).log().to(scores.dtype)
        return out


class PlainGenerator:
    """Generates with one transformers decoder; `batch_tokens` bounds rows x (prompt + new tokens) of a batch."""

    def __init__(self, model: PreTrainedModel, texts: Texts, *, batch_tokens: int) -> None:
        self.model = model
        self.texts = texts
        self.batch_tokens = batch_tokens
        pad = texts.encoder.tokenizer.pad_token_id
        self.pad = pad if pad is not None else (min(texts.eos) if texts.eos else 0)
        model.generation_config = GenerationConfig()  # a checkpoint's own decoding defaults must not leak in
        self.num_computed = 0

    def generate(
        self, prompts: Sequence[Prompt], requests: Sequence[GenerateRequest]
    ) -> Iterator[tuple[Prompt, Completion | Failure]]:
        """Yields each prompt with its answer as batches finish."""
        ready: dict[Decoding, list[Prompt]] = {}
        for prompt in prompts:
            ready.setdefault(requests[prompt.index].decoding, []).append(prompt)
        for decoding, some in ready.items():
            for batch in self._batches(some, decoding):
                yield from zip(batch, self._run(batch, requests, decoding), strict=True)

    def _batches(self, prompts: list[Prompt], decoding: Decoding) -> Iterator[list[Prompt]]:
        """Prompts of like lengths together; sampled ones alone."""
        queue = sorted(prompts, key=lambda p: len(p.ids), reverse=True)
        while queue:
            width = (len(queue[0].ids) + decoding.max_new_tokens) * max(1, decoding.num_beams)
            count = 1 if decoding.do_sample else max(1, min(MAX_ROWS, self.batch_tokens // width))
            yield queue[:count]
            queue = queue[count:]

    def _run(
        self, batch: list[Prompt], requests: Sequence[GenerateRequest], decoding: Decoding
    ) -> list[Completion | Failure]:
        inputs, first, width = self._inputs(batch)
        watch, stops = Watch(), StoppingCriteriaList()
        if has_stop(decoding):
            stops.append(StopStrings(self.texts, decoding, width))
        each = [self._constraint(decoding) for _ in batch]
        constraints = [constraint for constraint in each if constraint is not None]
        if constraints:
            stops.append(Complete(constraints))
        processors = LogitsProcessorList([watch])
        if decoding.do_sample or has_penalty(decoding) or constraints:
            processors.append(Warp(decoding, width, first, constraints))
        with torch.inference_mode(), torch.random.fork_rng():
            if decoding.do_sample:
                torch.manual_seed(int(make_generator(requests[batch[0].index]).integers(2**62)))
            out = self.model.generate(
                **{key: value.to(self.model.device) for key, value in inputs.items()},
                generation_config=self._config(decoding),
                stopping_criteria=stops,
                logits_processor=processors,
            )
        self.num_computed += int(inputs["attention_mask"].sum())
        return [
            Failure(reason="not a number among the model's probabilities")
            if bad
            else self._answer(prompt, row, decoding, constraint)
            for prompt, row, bad, constraint in zip(
                batch,
                out[:, width:].tolist(),
                watch.rows(len(batch)),
                each,
                strict=True,
            )
        ]

    def _inputs(self, batch: list[Prompt]) -> tuple[dict[str, Tensor], list[int], int]:
        """What `generate` is given, where each prompt begins in its rows, and where new tokens do."""
        width = max(len(prompt.ids) for prompt in batch)
        ids = torch.full((len(batch), width), self.pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(batch):
            ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
            mask[row, width - len(prompt.ids) :] = 1
        return {"input_ids": ids, "attention_mask": mask}, [width - len(prompt.ids) for prompt in batch], width

    def _constraint(self, decoding: Decoding) -> Constraint | None:
        constraint = self.texts.constraints.make(decoding)
        assert not isinstance(constraint, Failure), "forms that cannot be used have failed before"
        return constraint

    def _answer(
        self, prompt: Prompt, new: list[int], decoding: Decoding, constraint: Constraint | None
    ) -> Completion | Failure:
        if constraint is None:
            return self.texts.finish(prompt, new, decoding)
        if constraint.failure is not None:
            return constraint.failure
        return self.texts.finish(prompt, new[: constraint.num_accepted], decoding, complete=constraint.is_done)

    def _config(self, decoding: Decoding) -> GenerationConfig:
        options: dict[str, Any] = {
            "max_new_tokens": decoding.max_new_tokens,
            "do_sample": decoding.do_sample,
            "num_beams": decoding.num_beams,
            "eos_token_id": sorted(self.texts.eos) or None,
            "pad_token_id": self.pad,
        }
        if decoding.do_sample:
            options["top_k"] = 0  # Warp has done it all; elsewhere transformers would warn
        if decoding.num_beams > 1:
            options["length_penalty"] = decoding.length_penalty
        return GenerationConfig(**options)
