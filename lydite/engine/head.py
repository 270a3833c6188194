"""The output head: log-probabilities of given tokens from hidden states, without ever holding all logits.

The vocabulary is gone through in stretches with a running log-sum-exp in float32, so memory grows with neither
vocabulary x positions nor the number of scored tokens; the most likely token falls out of the same pass.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lydite.engine.linear import PackedLinear
from lydite.engine.memory import Stretch

HEAD_ROWS = 1024
"""Many rows against a short stretch: the stretch of weights is read once for all of them (measured: docs/benchmarks.md)."""
HEAD_LOGITS = 4_194_304
"""Logits that exist at one time (16 MB in float32)."""


class Head:
    """From hidden states to log-probabilities of given tokens, without ever holding all logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.module = model.get_output_embeddings()
        config = model.config.get_text_config().to_dict()
        self.vocab_size = int(config["vocab_size"])
        self.softcap: float | None = config.get("final_logit_softcapping")
        self.factor = 1.0
        if config.get("logit_scale") is not None:  # Cohere
            self.factor *= config["logit_scale"]
        if config.get("logits_scaling") is not None:  # Granite
            self.factor /= config["logits_scaling"]

    def logits(self, states: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """states [N, D] -> (start, stop, logits [N, stop - start] in float32), stretch by stretch of the vocabulary."""
        for start, stop, out in self._stretches(states):
            if self.factor != 1.0:
                out = out * self.factor
            if self.softcap is not None:
                out = torch.tanh(out / self.softcap) * self.softcap
            yield start, stop, out.float()

    def _stretches(self, states: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """As `logits`, before the model's own scaling."""
        module = self.module
        if isinstance(module, PackedLinear):
            for number, (start, stop, _) in enumerate(module.parts):
                yield start, stop, module.part(states, number)
        elif type(module) is nn.Linear:
            # Where few rows are read, as in decoding, the weights stream from memory once whatever the stretch; in the probe
            # states are float32 whatever the weights are, and a stretch is converted as it is used.
            few = len(states) < 64 and module.weight.dtype == states.dtype
            step = HEAD_LOGITS // (max(len(states), 1) if few else HEAD_ROWS)
            stretch = Stretch(module.weight, states.dtype)
            for start in range(0, self.vocab_size, step):
                stop = min(self.vocab_size, start + step)
                bias = None if module.bias is None else module.bias[start:stop].to(states.dtype)
                yield start, stop, nn.functional.linear(states, stretch.rows(start, stop), bias)
        else:
            yield 0, self.vocab_size, module(states)

    def read(self, states: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [M] of `tokens` [M] given the states of `rows` [M], and whether each is the most likely.

        `rows` must be sorted; states are [N, D].
        """
        logprobs = torch.empty(len(rows), dtype=torch.float32, device=states.device)
        greedy = torch.empty(len(rows), dtype=torch.bool, device=states.device)
        distinct, which = torch.unique_consecutive(rows, return_inverse=True)
        for start in range(0, len(distinct), HEAD_ROWS):
            chunk = distinct[start : start + HEAD_ROWS]
            first, last = torch.searchsorted(
                which, torch.tensor([start, start + len(chunk)], device=which.device)
            ).tolist()
            here = slice(first, last)
            logprobs[here], greedy[here] = self._read_chunk(states[chunk], which[here] - start, tokens[here])
        return logprobs, greedy

    def _read_chunk(self, states: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Running log-sum-exp over stretches of the vocabulary; `rows` index `states`."""
        best = torch.full((len(states),), torch.finfo(torch.float32).min, device=states.device)
        total = torch.zeros(len(states), device=states.device)
        found = torch.full((len(rows),), torch.nan, device=states.device)
        for start, stop, logits in self.logits(states):
            inside = ((tokens >= start) & (tokens < stop)).nonzero().squeeze(1)
            found[inside] = logits[rows[inside], tokens[inside] - start]
            top = torch.maximum(best, logits.amax(dim=1))
            total = total * torch.exp(best - top) + logits.sub_(top[:, None]).exp_().sum(dim=1)
            best = top
        return found - (best + torch.log(total))[rows], found >= best[rows]


class OwnLogits(Head):
    """The states are the model's own logits already."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def logits(self, states: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        yield 0, self.vocab_size, states.float()
