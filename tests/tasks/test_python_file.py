"""Tasks in Python: whatever a user's functions raise or return is one line with file and line, and nothing is lost."""

import pytest

from lydite.adapt.prompt import prompted
from lydite.errors import TaskError
from lydite.evaluate import evaluate
from lydite.runs import read_samples
from lydite.tasks import load_tasks
from tests.fakes import FakeModel

TASK = """
from lydite.types import GenerateRequest, Metric, Sample, Score, Task

def samples(split):
    for i in range(6):
        yield Sample(id=f"s{i}", input=f"question {i}")

def prompt(sample):
    return sample.input

def view(sample, context):
    return [GenerateRequest(sample_id=sample.id, index=0, prompt=context)]

def score(sample, outputs):
    return [Score(sample_id=sample.id, metric="right", value=1.0)]

def chance(sample):
    return {"right": 0.5}

def finish(sums):
    return sums[..., 0]

def task():
    return Task(name="mine", samples=samples, prompt=prompt, views={"generate": view}, score=score, chance=chance,
                metrics=(Metric(name="right", unit="proportion"),))
"""


LAZY = '    if sample.id == "s0":\n        return []\n    return [Score'
VIEW = "return [GenerateRequest(sample_id=sample.id, index=0, prompt=context)]"


def load(folder, old="", new=""):
    assert old in TASK
    path = folder / "mine.py"
    path.write_text(TASK.replace(old, new), encoding="utf-8")
    [task], _ = load_tasks([str(path)])
    return task


def mistake(folder, old, new, **options):
    with pytest.raises(TaskError) as caught:
        evaluate(FakeModel(), prompted(load(folder, old, new)), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder / "mine.py") in message
    return message


def line_of(folder, text):
    lines = (folder / "mine.py").read_text(encoding="utf-8").splitlines()
    return 1 + next(i for i, line in enumerate(lines) if text in line)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    for i in range(6):", "    for i in range(6 // 0):", "ZeroDivisionError: integer division or modulo by zero"),
        ("    return sample.input", "    return sample.inputs", "AttributeError: 'Sample' object has no attribute 'inputs'"),
        ("    return [Gen", "    raise ValueError('two\\nlines')\n    return [Gen", "ValueError: two lines"),
        ("    return [Gen", "    assert not context\n    return [Gen", "AssertionError"),
        ("    return [Score", "    return [{}['x'], Score", "KeyError: 'x'"),
        ("    return [Score", "    exit(3)\n    return [Score", "SystemExit: 3"),
        ("value=1.0", "value=float('nan')", "ValueError: Score refuses the non-finite number nan"),
        ("    return {", "    return 1 / 0, {", "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_what_a_function_raises_names_the_line(tmp_path, old, new, said):
    message = mistake(tmp_path, old, new)
    marked = next(line for line in new.splitlines() if line not in TASK.splitlines())
    assert message.startswith(f"{tmp_path / 'mine.py'}, line {line_of(tmp_path, marked)}: {said}")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('Sample(id=f"s{i}"', "Sample(id=i", "samples() gave what does not fit: Expected `str`, got `int` - at `$.id`"),
        ('Sample(id=f"s{i}"', 'Sample(id=f"s{i}", fields={"a": open}', "a builtin_function_or_method cannot be stored"),
        ("        yield Sample", "        yield None or i or Sample", "samples() gave what does not fit"),
        ("    return sample.input", "    return None", "prompt() gave what does not fit"),
        (VIEW, VIEW.replace("[", "").replace("]", ""), "the view 'generate' returned a GenerateRequest, and a list is needed"),
        ("    return [Gen", "    return [] and [Gen", "the view 'generate' made no request for sample 's0'"),
        ("value=1.0", "value=True", "score() gave what does not fit: Expected `float | null`, got `bool`"),
        ("    return {", "    return None, {", "chance() gave what does not fit: Expected `object`, got `array`"),
        ('name="mine"', "name=3", "the task's name is 3"),
        ('{"generate": view}', "{}", "the task's views is {}"),
        ('(Metric(name="right", unit="proportion"),)', "()", "the task's metrics is ()"),
    ],
)  # fmt: skip
def test_what_a_function_returns_must_fit(tmp_path, old, new, said):
    assert said in mistake(tmp_path, old, new)


def test_a_metric_that_raises(tmp_path):
    new = 'Metric(name="right", finish=lambda sums: sums.nothing)'
    with pytest.raises(TaskError, match="mine: right needs the same number of statistics in each score"):
        evaluate(FakeModel(), prompted(load(tmp_path, 'Metric(name="right", unit="proportion")', new)))
    path = tmp_path / "mine.py"
    path.write_text(path.read_text(encoding="utf-8").replace("value=1.0", "value=1.0, stats=(1.0, 2.0)"))
    with pytest.raises(TaskError, match=f"line {line_of(tmp_path, 'sums.nothing')}: AttributeError"):
        evaluate(FakeModel(), prompted(load_tasks([str(path)])[0][0]))


def test_what_fails_elsewhere_names_that_place_too(tmp_path):
    # A family's own function meets a sample that it cannot use.
    path = tmp_path / "mine.py"
    path.write_text(
        "from lydite.tasks.lastword import last_word_task\n"
        "from lydite.types import Sample\n"
        "def task():\n"
        "    return last_word_task('mine', lambda split: [Sample(id='1', input='one two')])\n",
        encoding="utf-8",
    )
    [task], _ = load_tasks([str(path)])
    with pytest.raises(TaskError, match=r"mine\.py \(in lastword\.py, line \d+\): IndexError: tuple index"):
        evaluate(FakeModel(), prompted(task))


def test_nothing_finished_is_lost(tmp_path):
    broken = '    if sample.id == "s3":\n        raise OSError("no grader")\n    return [Score'
    out = tmp_path / "out"
    assert "line 16: OSError: no grader" in mistake(tmp_path, "    return [Score", broken, out=out)
    assert [record.id for record in read_samples(out / "fake" / "mine")] == ["s0", "s1", "s2"]


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "mine.py"
    path.write_bytes(b"x = 1\0")
    with pytest.raises(TaskError, match=r"mine\.py: source code string cannot contain null bytes"):
        load_tasks([str(path)])


def test_generators_will_do(tmp_path):
    task = load(tmp_path, VIEW, VIEW.replace("return [", "yield ").replace(")]", ")"))
    assert evaluate(FakeModel(), prompted(task)).estimates[0].n == 6


def test_a_score_that_is_left_out(tmp_path):
    message = "gave 5 scores right for 6 samples"
    with pytest.raises(TaskError, match=message):
        evaluate(FakeModel(), prompted(load(tmp_path, "    return [Score", LAZY)))
