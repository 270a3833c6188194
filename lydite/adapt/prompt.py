"""Prompting: the same task with examples before the question, or as messages for a model's chat template.

Which examples a sample gets depends on (task, seed) alone, or on (task, sample, seed) when asked, by hashing; the
order of evaluation, a limit, and the number of processes cannot change a prompt. Examples come from the split that
the benchmark sets aside, and never contain the question itself, not even under another id.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from lydite.errors import DataError, TaskError
from lydite.types import Context, Message, Sample, Task

ShotsBy = Literal["first_n", "task", "sample"]
SHOTS_BY: tuple[ShotsBy, ...] = ("first_n", "task", "sample")


def prompted(
    task: Task, *, shots: int | None = None, seed: int = 0, shots_by: ShotsBy | None = None, chat: bool = False
) -> Task:
    """The task with `shots` examples before each question (None: what the task says), as text or as messages.

    `shots_by`: "first_n" takes the first examples of the split; "task" draws once, the same for all samples; "sample"
    draws anew for each. None: what the benchmark says, else "task". Only where a sample's own question was drawn does
    the next example take its place. `chat`: the description becomes the system message, examples become turns, and
    answers lose their leading space; tasks without any context (pairs, held-out text) stay plain text.

    Renders one prompt, so that missing data or a broken template is found before a model is loaded. Raises TaskError
    where shots are negative, DataError where the split has too few.
    """
    wanted = task.shots if shots is None else shots
    if wanted < 0:
        raise TaskError(f"{task.name}: the number of shots must be 0 or more, not {wanted}")
    if task.shot is None:
        # A run over many tasks asks for shots once; those that cannot take any (pairs, held-out text) do without.
        wanted = 0
    by: ShotsBy = shots_by or task.settings.get("shots_by", "task")
    if by not in SHOTS_BY:
        raise TaskError(f"unknown shots_by {by!r}; known: {', '.join(SHOTS_BY)}")
    first = next(iter(task.samples("test")), None)
    if first is None:
        raise DataError(f"{task.name} has no samples to evaluate; its data file is empty")
    pick = _picker(task, wanted, by, seed) if wanted else _no_shots
    # Kept without shots too, so that prompting a prompted task again finds the benchmark's own way.
    settings = {**task.settings, "shots": wanted} | ({"shots_by": by} if wanted else {})
    if wanted and by != "first_n":
        settings["shots_seed"] = seed
    prompt = _as_text(task, pick)
    if chat and prompt(first) != "":
        settings["chat"] = True
        prompt = _as_messages(task, pick)
    prompt(first)
    return replace(task, prompt=prompt, shots=wanted, settings=settings)


def bare(task: Task) -> Task:
    """The task whose prompt is a sample's input alone: what a translation model reads that was trained on pairs of
    sentences. Raises TaskError for tasks that are not answered in written text."""
    if "generate" not in task.views:
        raise TaskError(f"{task.name} is not answered in written text, so its input alone (prompt=input) asks nothing")
    return replace(
        task,
        prompt=lambda sample: sample.input,
        shot=None,
        shots=0,
        description="",
        views={"generate": task.views["generate"]},
        settings={**task.settings, "prompt": "input"},
    )


Pick = Callable[[Sample], Sequence[Sample]]
"""Sample to its examples, in the order of the prompt."""


def _no_shots(sample: Sample) -> Sequence[Sample]:
    return ()


def _picker(task: Task, wanted: int, by: ShotsBy, seed: int) -> Pick:
    """Reads the split with the examples once."""
    pool = list(task.samples("shots"))
    questions = [_asked(task, example) for example in pool]

    def pick(sample: Sample) -> Sequence[Sample]:
        own = _asked(task, sample)
        order: Iterator[int] = iter(range(len(pool)))
        if by != "first_n":
            order = _draws((task.name, seed) if by == "task" else (task.name, sample.id, seed), len(pool))
        other = (pool[index] for index in order if questions[index] != own and pool[index].id != sample.id)
        chosen = tuple(itertools.islice(other, wanted))
        if len(chosen) < wanted:
            raise DataError(
                f"{task.name}: {wanted} shots are wanted, and there are {len(chosen)} examples besides sample "
                f"{sample.id}; ask for fewer with --shots"
            )
        return chosen

    return pick


def _draws(key: tuple[object, ...], size: int) -> Iterator[int]:
    """The numbers below `size`, each once, in an order that depends on the key alone."""
    drawn: set[int] = set()
    for turn in itertools.count():
        if len(drawn) == size:
            return
        digest = hashlib.sha256("\x1f".join(map(str, (*key, turn))).encode()).digest()
        index = int.from_bytes(digest[:8], "big") % size
        if index not in drawn:
            drawn.add(index)
            yield index


def _question(task: Task, sample: Sample) -> str:
    """The question alone, without description or examples."""
    if task.shot is not None:
        return task.shot(sample)[0]
    context = task.prompt(sample)
    assert isinstance(context, str), f"{task.name} has messages and no solved form of a sample"
    return context.removeprefix(task.description)


def _asked(task: Task, sample: Sample) -> str:
    """What makes a question the same: its text, or its choices where all of it is in them."""
    return _question(task, sample).strip() or "\x1f".join(sample.choices)


def _solved(task: Task, sample: Sample) -> tuple[str, str]:
    assert task.shot is not None, f"{task.name} takes no shots"
    return task.shot(sample)


def _as_text(task: Task, pick: Pick) -> Callable[[Sample], Context]:
    def prompt(sample: Sample) -> Context:
        solved = ["".join(_solved(task, example)) + task.delimiter for example in pick(sample)]
        return "".join([task.description, *solved, _question(task, sample)])

    return prompt


def _as_messages(task: Task, pick: Pick) -> Callable[[Sample], Context]:
    def prompt(sample: Sample) -> Context:
        description = task.description.strip()
        messages = [Message(role="system", content=description)] if description else []
        for example in pick(sample):
            question, answer = _solved(task, example)
            messages.append(Message(role="user", content=question))
            messages.append(Message(role="assistant", content=answer.lstrip(" ")))
        return (*messages, Message(role="user", content=_question(task, sample)))

    return prompt
