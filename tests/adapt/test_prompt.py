"""Few-shot prompts: from the right split, never with the sample, and the same whatever else is asked."""

import random
import subprocess
import sys
from dataclasses import replace

import pytest

from lydite.adapt.prompt import bare, prompted
from lydite.errors import DataError, TaskError
from lydite.tasks.choice import choice_task
from lydite.tasks.generate import generation_task, grader
from lydite.tasks.heldout import heldout_task
from lydite.types import Decoding, Message, Sample


def make(number=30, pool=40, **changes):
    def samples(split):
        if split == "shots":
            # Pool questions 0 to 9 are test questions under another id.
            return [sample(f"p{i}", i, gold=i % 2) for i in range(pool)]
        return [sample(f"t{i}", i if i < 10 else 1000 + i, gold=i % 2) for i in range(number)]

    def sample(id, i, gold):
        return Sample(id=id, input=f"question {i}", choices=("yes", "no"), gold=(gold,))

    task = choice_task("toy", samples, lambda s: f"Q: {s.input}\nA:", description="Answer.\n\n")
    return replace(task, **changes) if changes else task


def prompts(task, order=None):
    samples = list(task.samples("test"))
    if order:
        order.shuffle(samples)
    return {sample.id: task.prompt(sample) for sample in samples}


def test_text_is_description_examples_question():
    task = prompted(make(), shots=2, shots_by="first_n")
    last = list(task.samples("test"))[-1]
    assert task.prompt(last) == ("Answer.\n\nQ: question 0\nA: yes\n\nQ: question 1\nA: no\n\nQ: question 1029\nA:")


@pytest.mark.parametrize("by", ["first_n", "task", "sample"])
def test_the_sample_is_never_among_its_examples(by):
    task = prompted(make(pool=12), shots=8, shots_by=by)
    for sample in task.samples("test"):
        shown = task.prompt(sample)
        assert shown.count(f"Q: {sample.input}\n") == 1
        assert shown.count("Q: ") == 9


def test_examples_are_replaced_only_where_the_own_question_was_drawn():
    task = prompted(make(), shots=5, shots_by="task")
    heads = [prompt.rpartition("Q: ")[0] for prompt in prompts(task).values()]
    common = max(set(heads), key=heads.count)
    assert heads.count(common) >= 25
    assert 1 < len(set(heads)) <= 6


def test_each_sample_draws_its_own_when_asked():
    task = prompted(make(), shots=5, shots_by="sample")
    heads = {prompt.rpartition("Q: ")[0] for prompt in prompts(task).values()}
    assert len(heads) == 30


@pytest.mark.parametrize("by", ["task", "sample"])
def test_order_and_subset_do_not_matter(by):
    whole = prompts(prompted(make(), shots=4, shots_by=by))
    assert prompts(prompted(make(), shots=4, shots_by=by), order=random.Random(1)) == whole
    few = prompts(prompted(make(number=7), shots=4, shots_by=by))
    assert few == {id: whole[id] for id in few}


def test_another_process_makes_the_same_prompts():
    code = (
        "import hashlib; from tests.adapt.test_prompt import make, prompts; from lydite.adapt.prompt import bare, prompted\n"
        "p = prompts(prompted(make(), shots=4, shots_by='sample', seed=3))\n"
        "print(hashlib.sha256(repr(sorted(p.items())).encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_the_seed_and_the_name_change_the_draw():
    drawn = {
        tuple(prompts(prompted(task, shots=4, seed=seed)).values())
        for task in (make(), make(name="other"))
        for seed in (0, 1)
    }
    assert len(drawn) == 4


def test_draws_are_even():
    task = prompted(make(number=2000, pool=20), shots=1, shots_by="sample")
    counts = {}
    for sample in list(task.samples("test"))[10:]:
        shown = task.prompt(sample).split("Q: ")[1]
        counts[shown] = counts.get(shown, 0) + 1
    assert len(counts) == 20
    # 1,990 draws over 20 examples: 99.5 each, standard deviation 9.7.
    assert all(60 < count < 140 for count in counts.values())


def test_defaults_come_from_the_task():
    task = make(shots=3, settings={"shots_by": "first_n"})
    ready = prompted(task)
    assert ready.settings == {"shots": 3, "shots_by": "first_n"}
    assert prompts(ready)["t20"].startswith("Answer.\n\nQ: question 0\n")
    assert prompted(task, shots=0).settings["shots"] == 0
    assert prompted(task, shots_by="task", seed=5).settings == {"shots": 3, "shots_by": "task", "shots_seed": 5}


def test_prompting_twice_is_prompting_once():
    task = make(shots=3, settings={"shots_by": "first_n"})
    assert prompts(prompted(prompted(task, shots=0))) == prompts(prompted(task, shots=0))
    assert prompts(prompted(prompted(task))) == prompts(prompted(task))
    assert prompts(prompted(prompted(task, shots=0), shots=3)) == prompts(prompted(task))
    assert prompts(prompted(prompted(task), chat=True)) == prompts(prompted(task, chat=True))


def test_chat_makes_turns_without_leading_spaces():
    task = prompted(make(), shots=1, shots_by="first_n", chat=True)
    sample = list(task.samples("test"))[-1]
    assert task.prompt(sample) == (
        Message(role="system", content="Answer."),
        Message(role="user", content="Q: question 0\nA:"),
        Message(role="assistant", content="yes"),
        Message(role="user", content="Q: question 1029\nA:"),
    )
    assert task.settings["chat"] is True
    [first, _] = task.views["score"](sample, task.prompt(sample))
    assert (first.messages, first.context, first.continuation) == (task.prompt(sample), "", "yes")


def test_tasks_without_context_stay_plain():
    task = heldout_task("held", lambda split: [Sample(id="1", input="text")])
    ready = prompted(task, shots=5, chat=True)
    assert ready.prompt(next(iter(ready.samples("test")))) == ""
    assert ready.settings == {"shots": 0}


def test_mistakes():
    with pytest.raises(DataError, match="9 shots are wanted, and there are 4 examples besides sample t0"):
        prompted(make(pool=5), shots=9)
    with pytest.raises(TaskError, match="must be 0 or more"):
        prompted(make(), shots=-1)
    with pytest.raises(TaskError, match="unknown shots_by 'luck'"):
        prompted(make(), shots=1, shots_by="luck")
    with pytest.raises(DataError, match="no samples"):
        prompted(make(number=0))


def test_bare_is_the_input_alone_and_only_where_text_is_written():
    def samples(split):
        return [Sample(id="1", input="A mill burns.", targets=("Eine Muehle brennt.",))]

    task = generation_task("toy", samples, lambda s: f"Q: {s.input}\nA:", [grader("bleu")], Decoding(), shots=2)
    alone = prompted(bare(task))
    assert prompts(alone) == {"1": "A mill burns."}
    assert alone.settings["prompt"] == "input"
    assert list(alone.views) == ["generate"]
    with pytest.raises(TaskError, match="toy is not answered in written text"):
        bare(make())
