"""The next token: from logits to a choice.

Order of the steps, as in transformers: penalties, temperature, top-k, top-p, min-p, typical; each works on what the one
before has left. Contract: a choice depends on the row's own logits, tokens and generator only, never on its batch; a
sampled row draws one number a token, so that its text can be repeated from its seed.

V: size of the vocabulary.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lydite.types import Decoding, GenerateRequest


def make_generator(request: GenerateRequest) -> np.random.Generator:
    """A generator of its own for each (seed, sample, index)."""
    key = f"{request.seed}\n{request.sample_id}\n{request.index}"
    return np.random.Generator(np.random.Philox(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big")))


def penalise(logits: Tensor, decoding: Decoding, prompt: Sequence[int], new: Sequence[int]) -> Tensor:
    """logits [V] with the penalties for tokens seen before (repetition: Keskar et al. 2019; presence: as OpenAI's)."""
    if decoding.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*prompt, *new}), dtype=torch.int64, device=logits.device)
        values = logits[seen]
        factor = decoding.repetition_penalty
        logits = logits.index_copy(0, seen, torch.where(values < 0, values * factor, values / factor))
    if decoding.presence_penalty != 0.0 and new:
        seen = torch.tensor(sorted(set(new)), dtype=torch.int64, device=logits.device)
        logits = logits.index_add(0, seen, torch.full_like(logits[seen], -decoding.presence_penalty))
    return logits


def probabilities(logits: Tensor, decoding: Decoding) -> Tensor:
    """logits [V], penalties applied, to the distribution [V] (float64) that a sampled token is drawn from.

    A temperature of 0 leaves the most likely token alone.
    """
    scores = logits.double()
    if decoding.temperature == 0.0:
        return torch.nn.functional.one_hot(scores.argmax(), len(scores)).double()
    scores = scores / decoding.temperature
    if 0 < decoding.top_k < len(scores):
        scores = scores.masked_fill(scores < scores.topk(decoding.top_k).values[-1], -torch.inf)
    if decoding.top_p < 1.0:
        ordered, which = scores.softmax(-1).sort(descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered  # the mass of all likelier tokens
        before[0] = -1.0  # the most likely token always stays
        scores = scores.index_fill(0, which[before >= decoding.top_p], -torch.inf)
    if decoding.min_p > 0.0:
        probs = scores.softmax(-1)
        scores = scores.masked_fill(probs < decoding.min_p * probs.max(), -torch.inf)
    if decoding.typical_p < 1.0:
        scores = scores.masked_fill(~_typical(scores, decoding.typical_p), -torch.inf)
    return scores.softmax(-1)


def _typical(scores: Tensor, mass: float) -> Tensor:
    """[V], which tokens are locally typical (Meister et al. 2023): the smallest set, nearest to the entropy first, that
    holds the mass."""
    logprobs = scores.log_softmax(-1)
    probs = logprobs.exp()
    entropy = -(probs * logprobs.masked_fill(probs == 0, 0.0)).sum()
    which = (-logprobs - entropy).abs().argsort(stable=True)
    count = int((probs[which].cumsum(-1) < mass).sum()) + 1
    return torch.zeros_like(scores, dtype=torch.bool).index_fill(0, which[:count], True)


def draw(probs: Tensor, generator: np.random.Generator) -> int:
    """One token, by inverting the cumulative distribution at a uniform number."""
    total = probs.cumsum(-1)
    point = generator.random() * float(total[-1])
    token = int(torch.searchsorted(total, torch.tensor(point, dtype=total.dtype, device=total.device), right=True))
    last = int(probs.nonzero()[-1])  # rounding could step past the last token that has any mass
    return min(token, last)


def has_penalty(decoding: Decoding) -> bool:
    """Whether greedy decoding must look at all logits of a row."""
    return decoding.repetition_penalty != 1.0 or decoding.presence_penalty != 0.0


def choose(
    logits: Tensor, decoding: Decoding, prompt: Sequence[int], new: Sequence[int], generator: np.random.Generator
) -> int:
    """The next token of one row from its logits [V]."""
    logits = penalise(logits, decoding, prompt, new)
    if not decoding.do_sample:
        return int(logits.argmax())
    return draw(probabilities(logits, decoding), generator)
