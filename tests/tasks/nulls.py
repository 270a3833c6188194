"""Models that know nothing, and a way to let one take a task."""

import hashlib
import math
import random

from lydite.types import Completion, Failure, GenerateRequest, LogProbs, ScoreRequest


def _words(request):
    return tuple(request.continuation.split()) or ("",)


def constant(request):
    """The same probability for everything, whatever its length."""
    if isinstance(request, GenerateRequest):
        return Completion(text="A", num_tokens=1, finish="stop")
    return LogProbs(tokens=("x",), logprobs=(-7.0,), greedy=False, rule="null")


def per_character(request):
    """The same probability for every character, so that corrections for length see ties."""
    size = len(request.continuation.strip())
    return LogProbs(tokens=("x",), logprobs=(-2.0 * size,), greedy=False, rule="null")


def by_hash(request):
    """A probability that depends on the text and nothing else."""
    digest = hashlib.sha256(repr(request).encode()).digest()
    value = int.from_bytes(digest[:8], "big") / 2**64
    if isinstance(request, GenerateRequest):
        return Completion(text=random.Random(digest).choice(["A", "B", "C", "D", "12"]), num_tokens=1, finish="stop")
    return LogProbs(tokens=("x",), logprobs=(math.log(value + 1e-12),), greedy=value > 0.99, rule="null")


def broken(request):
    """What a model that computes NaN must answer."""
    return Failure(reason="NaN")


def empty(request):
    return Completion(text="", num_tokens=0, finish="stop")


def echo(request):
    """Says the prompt again."""
    return Completion(text=request.prompt, num_tokens=1, finish="length")


def take(task, model, view=None):
    """{metric: [Score, ...]} of all samples."""
    scores = {}
    for sample in task.samples("test"):
        requests = task.views[view or next(iter(task.views))](sample, task.prompt(sample))
        assert all(isinstance(request, ScoreRequest | GenerateRequest) for request in requests)
        for score in task.score(sample, [model(request) for request in requests]):
            assert score.sample_id == sample.id
            scores.setdefault(score.metric, []).append(score)
    return scores


def mean(scores):
    return sum(score.value for score in scores) / len(scores)
