"""What the model thinks of every token of given texts, the most likely ones beside it: `echo` of the OpenAI protocol.

Scoring proper (score.py) keeps one number a token. Here the top of each distribution is wanted too, so the head is read
row by row of a packed pass; what several texts begin with is still computed once.

V: size of the vocabulary; D: width of a state.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from lydite.engine import attention
from lydite.engine.attention import Store
from lydite.engine.plan import Keep, make_plan
from lydite.engine.run import Likelihood
from lydite.engine.score import Scorer
from lydite.engine.tokens import Window

_ROWS = 64
"""Whose logits exist at one time."""


def echo(scorer: Scorer, texts: Sequence[Sequence[int]], num_top: int) -> list[list[Likelihood] | None]:
    """For each text of T tokens T likelihoods: of its tokens from the second on, and of the most likely next one.

    `num_top` (1 or more): how many of the most likely tokens to name at each place. None: not a number among them.
    """
    found: list[list[Likelihood | None]] = [[None] * len(ids) for ids in texts]
    for states, places in _states(scorer, texts):
        for start in range(0, len(states), _ROWS):
            logits = torch.cat([part for _, _, part in scorer.head.logits(states[start : start + _ROWS])], dim=1)
            total = logits.logsumexp(1, keepdim=True)
            values, which = logits.topk(num_top, dim=1)
            tops = [
                tuple(zip(tokens, numbers, strict=True))
                for tokens, numbers in zip(which.tolist(), (values - total).tolist(), strict=True)
            ]
            for row in range(start, min(start + _ROWS, len(states))):
                for text, place in places[row]:
                    ids, top = texts[text], tops[row - start]
                    token = ids[place + 1] if place + 1 < len(ids) else top[0][0]
                    found[text][place] = Likelihood(float(logits[row - start, token] - total[row - start]), top)
    answers = [_whole(one) for one in found]
    if len(texts) > 1 and None in answers:  # not-a-number spreads inside a block
        return [echo(scorer, [ids], num_top)[0] for ids in texts]
    return answers


def _states(scorer: Scorer, texts: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, list[list[tuple[int, int]]]]]:
    """Batches of states [N, D], and for each row the places (text, token) that it follows."""
    if not scorer.can_decode:
        for number, ids in enumerate(texts):
            states = scorer.forward(torch.tensor([list(ids)], device=scorer.model.device))
            scorer.num_computed += len(ids)
            yield states, [[(number, place)] for place in range(len(ids))]
        return
    windows = [Window(np.asarray([*ids, 0], dtype=np.int32), 1) for ids in texts]
    store = Store([], _keep_nothing)
    for batch in make_plan(windows, batch_tokens=scorer.batch_tokens):
        with attention.attached(scorer.model), torch.inference_mode():
            states = scorer.forward_packed(batch, store)
        scorer.num_computed += len(batch.ids)
        places: list[list[tuple[int, int]]] = [[] for _ in range(len(states))]
        for read in batch.reads:
            for step in range(read.count):
                places[read.row + step].append((read.path, read.slot + step))
        yield states, places


def _keep_nothing(keep: Keep, layer: int, keys: Tensor, values: Tensor) -> None:
    raise AssertionError("nothing was to be kept")


def _whole(found: Sequence[Likelihood | None]) -> list[Likelihood] | None:
    known = [one for one in found if one is not None and np.isfinite(one.logprob)]
    return known if len(known) == len(found) else None
