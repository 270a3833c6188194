"""A task as a Python file: spell a word backwards, scored letter by letter.

    lydite evaluate MODEL --tasks examples/python_task.py
    lydite tasks examples/python_task.py

Lydite calls `task()`. Python is for what six lines of TOML cannot say: samples made by code, a metric of your own.
"""

from collections.abc import Iterator, Sequence

from lydite.types import Completion, Decoding, Failure, GenerateRequest, Metric, Output, Sample, Score, Task

WORDS = ("lamp", "river", "button", "candle", "market", "silver", "window", "garden", "pocket", "thunder", "basket")

EXACT = Metric(name="exact_match", unit="proportion")
# Sums over the samples decide: right letters / letters. Long words therefore count more than short ones.
LETTERS = Metric(name="letters_right", bounds=(0, 1), finish=lambda sums: sums[..., 0] / sums[..., 1])


def samples(split: str) -> Iterator[Sample]:
    """The first four words are examples (split "shots"), the others are evaluated ("test")."""
    for word in WORDS[:4] if split == "shots" else WORDS[4:]:
        yield Sample(id=word, input=f"{word} spelled backwards is", targets=(word[::-1],))


def view(sample: Sample, context: str) -> list[GenerateRequest]:
    """What the model is asked. `context` is the whole prompt, with examples where they were asked for."""
    decoding = Decoding(max_new_tokens=12, stop_strings=("\n",))
    return [GenerateRequest(sample_id=sample.id, index=0, prompt=context, decoding=decoding)]


def score(sample: Sample, outputs: Sequence[Output]) -> list[Score]:
    """One Score for each metric. A failed request is no score at all, never a wrong answer."""
    [output] = outputs
    if isinstance(output, Failure):
        return [
            Score(sample_id=sample.id, metric=metric.name, value=None, status="error", note=output.reason)
            for metric in (EXACT, LETTERS)
        ]
    assert isinstance(output, Completion)
    wanted, found = sample.targets[0], (output.text.split() or [""])[0].strip(".,!\"'").lower()
    right = sum(a == b for a, b in zip(wanted, found, strict=False))
    return [
        Score(sample_id=sample.id, metric=EXACT.name, value=float(found == wanted), answer=found),
        Score(
            sample_id=sample.id,
            metric=LETTERS.name,
            value=right / len(wanted),
            stats=(right, len(wanted)),
            answer=found,
        ),
    ]


def task() -> Task:
    """What `--tasks python_task.py` loads."""
    return Task(
        name="backwards",
        samples=samples,
        prompt=lambda sample: sample.input,
        shot=lambda sample: (sample.input, f" {sample.targets[0]}"),
        delimiter="\n",
        shots=2,
        views={"generate": view},
        score=score,
        metrics=(EXACT, LETTERS),
        source="written for this example",
        licence="Apache-2.0",
    )


if __name__ == "__main__":
    from lydite.adapt.prompt import prompted
    from lydite.evaluate import evaluate
    from lydite.models import load_model

    for estimate in evaluate(load_model("random"), prompted(task())).estimates:
        print(estimate.signature)
