"""A task and models small enough to read, for tests of the loop itself."""

import hashlib

from lydite.types import (
    Completion,
    Failure,
    GenerateRequest,
    LogProbs,
    Metric,
    ModelInfo,
    Sample,
    Score,
    ScoreRequest,
    Task,
    Usage,
)

ACC = Metric(name="acc", unit="proportion")


def samples(number):
    return [
        Sample(id=f"s{i}", input=f"question {i}", choices=("yes", "no"), gold=(i % 2,), cluster=None)
        for i in range(number)
    ]


def score(sample, outputs):
    if any(isinstance(output, Failure) for output in outputs):
        return [Score(sample_id=sample.id, metric="acc", value=None, status="error", note=outputs[0].reason)]
    totals = [output.total for output in outputs]
    right = totals.index(max(totals)) in sample.gold
    return [Score(sample_id=sample.id, metric="acc", value=float(right))]


def choice_task(number=40, name="coin", **changes):
    def view(sample, context):
        return [
            ScoreRequest(sample_id=sample.id, index=i, context=f"{context}{sample.input}", continuation=f" {choice}")
            for i, choice in enumerate(sample.choices)
        ]

    settings = {
        "name": name,
        "samples": lambda split: samples(number),
        "views": {"score": view},
        "score": score,
        "metrics": (ACC,),
        "chance": lambda sample: {"acc": 0.5},
        "fingerprint": "coin-1",
    }
    return Task(**(settings | changes))


def echo_task(number=6):
    def score_text(sample, outputs):
        return [Score(sample_id=sample.id, metric="acc", value=1.0, answer=outputs[0].text)]

    return choice_task(
        number,
        name="echo",
        views={
            "generate": lambda sample, context: [GenerateRequest(sample_id=sample.id, index=0, prompt=sample.input)]
        },
        score=score_text,
    )


class FakeModel:
    """Log-probabilities from a hash of the text. `order` shuffles the answers; `stop_after` presses Ctrl-C after so
    many requests; `fail` names sample ids that get a Failure."""

    def __init__(self, name="fake", order=None, stop_after=None, fail=(), can=("score", "generate")):
        self.info = ModelInfo(name=name, family="null", rule="null", can=can, fingerprint=f"{name}-weights")
        self.usage = Usage()
        self.order, self.stop_after, self.fail = order, stop_after, fail
        self.seen = []

    def answer(self, requests):
        positions = list(range(len(requests)))
        if self.order is not None:
            self.order.shuffle(positions)
        for position in positions:
            if self.stop_after is not None and len(self.seen) >= self.stop_after:
                raise KeyboardInterrupt
            request = requests[position]
            self.seen.append(request)
            self.usage.tokens_requested += 3
            yield position, self._one(request)

    def _one(self, request):
        if request.sample_id in self.fail:
            return Failure(reason="made to fail")
        if isinstance(request, GenerateRequest):
            return Completion(text=f"{request.seed} {request.decoding.max_new_tokens}", num_tokens=2, finish="stop")
        digest = hashlib.sha256((request.context + request.continuation).encode()).digest()
        return LogProbs(tokens=("t",), logprobs=(-digest[0] / 16,), greedy=False, rule="null")
