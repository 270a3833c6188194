"""Which process answers which requests: shares of equal cost that keep together what has a common beginning.

Requests are put in the order of their texts, in which neighbours share the longest prefixes, and the row is cut into
contiguous shares. Each request costs what the engine would compute for it after its predecessor in that row: the bytes
that are new, and the tokens that it may generate. Only what stands on both sides of a cut is computed twice; so a cut moves
from the even place to where less is shared (between two passages, not inside one) if that saves more than it costs.

Contract: every position is in exactly one share; the requests of a sample stay together, because the engine decides
from all of them where scoring starts (tokens.py). No model and no tokenizer is needed: a token is taken as four bytes.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lydite.engine.plan import common
from lydite.types import GenerateRequest, LabelRequest, Message, Request, ScoreRequest

_BYTES_PER_TOKEN = 4
"""Of UTF-8, in English as in Chinese, roughly."""


def shares(requests: Sequence[Request], num_shares: int) -> list[list[int]]:
    """The positions of each share, ascending; shares may be empty where there are few samples."""
    samples: dict[str, list[int]] = {}
    for position, request in enumerate(requests):
        samples.setdefault(request.sample_id, []).append(position)
    texts = [_text(request) for request in requests]
    units = sorted(samples.values(), key=lambda members: texts[members[0]])
    costs, overlaps = _costs(requests, texts, units)
    edges = [0, *_cuts(costs, overlaps, num_shares), len(units)]
    return [sorted(position for unit in units[a:b] for position in unit) for a, b in pairwise(edges)]


def _text(request: Request) -> bytes:
    """All that the model reads of a request, in one text that begins as its tokens do."""
    if isinstance(request, ScoreRequest):
        text = _messages(request.messages) + request.context + request.continuation
    elif isinstance(request, GenerateRequest):
        text = _messages(request.messages) + request.prompt
    elif isinstance(request, LabelRequest):
        text = request.text + (request.text_pair or "")
    else:
        text = request.passage + request.question
    return text.encode("utf-8", "surrogatepass")


def _messages(messages: Sequence[Message]) -> str:
    return "".join(f"{message.role}\n{message.content}\n" for message in messages)


def _costs(
    requests: Sequence[Request], texts: Sequence[bytes], units: Sequence[Sequence[int]]
) -> tuple[list[float], list[int]]:
    """For each unit the estimated tokens that are new in it, and how many bytes it shares with the unit before."""
    costs, overlaps = [], []
    last = np.zeros(0, dtype=np.uint8)
    for members in units:
        cost, overlap = 0.0, None
        for position in sorted(members, key=texts.__getitem__):
            request, text = requests[position], np.frombuffer(texts[position], dtype=np.uint8)
            shared = common(last, text)
            overlap = shared if overlap is None else overlap
            cost += 1 + (len(text) - shared) / _BYTES_PER_TOKEN
            if isinstance(request, GenerateRequest):
                cost += request.decoding.max_new_tokens * request.decoding.num_beams
            last = text
        costs.append(cost)
        overlaps.append(overlap or 0)
    return costs, overlaps


def _cuts(costs: Sequence[float], overlaps: Sequence[int], num_shares: int) -> list[int]:
    """Ascending numbers of the units before which the row is cut: where it is even, but for what is computed twice."""
    before = np.concatenate([[0.0], np.cumsum(costs)])  # cost of all units before each cut
    twice = np.asarray([*overlaps, 0]) / _BYTES_PER_TOKEN
    cuts = [0]
    for number in range(1, num_shares):
        loss = np.abs(before - before[-1] * number / num_shares) + twice
        cuts.append(cuts[-1] + int(loss[cuts[-1] :].argmin()))
    return cuts[1:]
