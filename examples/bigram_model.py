"""A model of your own: bigrams of bytes, counted on one page of text, judged on grammar beside a null model.

    python examples/bigram_model.py

A Model has `info`, `usage` and `answer(requests)`. It sees requests only: no task, no gold answer, no metric.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from lydite.evaluate import evaluate
from lydite.models import load_model
from lydite.tasks import load_tasks
from lydite.types import Failure, LogProbs, Model, ModelInfo, Output, Request, ScoreRequest, Usage

TEXT = """The mill stands where two streams meet. Nobody has ground corn in it for thirty years, but the wheel still
turns when the snow melts, and on such nights the children of the village lie awake and listen. Their parents say that
it is only water and old wood. The children know better. They have seen a light in the upper window, and once, when the
moon was full, somebody who was sweeping the yard. In spring a man came with a cart and two horses. He asked who owned
the mill, and since no one could tell him, he moved in. He mended the roof, he oiled the axle, and in the evenings he
sat on the wall and wrote long letters which he never sent. By summer there was bread again."""

START = 0
"""Stands before the first byte of a text; text itself never holds it."""


class BigramModel:
    """log p(byte | the byte before), with one added to every count, so that nothing is impossible."""

    def __init__(self, text: str) -> None:
        counts = np.ones((256, 256))
        data = np.frombuffer(bytes([START]) + text.encode(), dtype=np.uint8)
        np.add.at(counts, (data[:-1], data[1:]), 1)
        self.logprobs = np.log(counts / counts.sum(1, keepdims=True))  # nats; [byte before, byte]
        self.best = self.logprobs.argmax(1)
        self.info = ModelInfo(
            name="bigram",
            family="ngram",
            rule="causal",  # each byte given those before it: may be ranked against any other causal model
            can=("score",),
            parameters=counts.size,
            fingerprint=hashlib.sha256(counts.tobytes()).hexdigest()[:16],  # must differ where answers differ
        )
        self.usage = Usage()

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one (position, output) for each request; the order is free."""
        for position, request in enumerate(requests):
            if isinstance(request, ScoreRequest) and not request.messages:
                yield position, self._score(request)
            else:
                yield position, Failure(reason="a bigram model only scores plain text")

    def _score(self, request: ScoreRequest) -> LogProbs:
        before = (bytes([START]) + request.context.encode())[-1]
        logprobs, greedy = [], True
        for character in request.continuation:
            total = 0.0
            for byte in character.encode():
                total += float(self.logprobs[before, byte])
                greedy = greedy and int(self.best[before]) == byte
                before = byte
            logprobs.append(total)
        self.usage.tokens_requested += len(logprobs)
        self.usage.tokens_computed += len(logprobs)
        return LogProbs(
            tokens=tuple(request.continuation), logprobs=tuple(logprobs), greedy=greedy, rule=self.info.rule
        )


def main() -> None:
    [task], _ = load_tasks(["mini_grammar_en"])
    models: list[Model] = [BigramModel(TEXT), load_model("uniform")]
    for model in models:
        headline = evaluate(model, task).estimates[0]
        print(f"{model.info.name:8} {headline.signature}")


if __name__ == "__main__":
    main()
