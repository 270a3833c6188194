"""Every example runs, without network and without a pretrained model."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from lydite.evaluate import evaluate
from lydite.models import load_model
from lydite.tasks import load_tasks
from lydite.types import Completion, GenerateRequest, LogProbs, ScoreRequest

EXAMPLES = Path(__file__).parents[1] / "examples"
# tests/tasks/test_mini.py runs mini_baselines.py, which takes longer.
ARGUMENTS = {
    "bigram_model.py": [],
    "compare_runs.py": ["uniform", "random"],
    "evaluate_model.py": ["random", "mini_grammar_en", "10"],
    "own_data.py": ["random"],
    "python_task.py": [],
    "recompute_metrics.py": [],
}


def test_every_example_is_run_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*ARGUMENTS, "mini_baselines.py"}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_example_runs_from_anywhere(name, tmp_path):
    command = [sys.executable, str(EXAMPLES / name), *ARGUMENTS[name]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


def bigram():
    space = runpy.run_path(str(EXAMPLES / "bigram_model.py"))
    return space["BigramModel"](space["TEXT"])


def logprobs(model, context, continuation):
    request = ScoreRequest(sample_id="s", index=0, context=context, continuation=continuation)
    [(position, output)] = model.answer([request])
    assert position == 0
    assert isinstance(output, LogProbs)
    return output


def test_the_bigram_model_keeps_the_contract_of_models():
    model = bigram()
    whole = logprobs(model, "", "the mill 水").total
    parts = logprobs(model, "", "the m").total + logprobs(model, "the m", "ill 水").total
    assert whole == pytest.approx(parts)
    assert sum(2.718281828459045 ** logprobs(model, "t", chr(i)).total for i in range(128)) < 1
    assert model.logprobs[ord("t")].shape == (256,)
    assert pytest.approx(1) == float((2.718281828459045 ** model.logprobs[ord("t")]).sum())
    likely = max("abcdefghijklmnopqrstuvwxyz", key=lambda c: logprobs(model, "t", c).total)
    assert likely == "h"
    assert logprobs(model, "t", "h").greedy
    assert not logprobs(model, "t", "q").greedy


def test_own_data_accepts_index_letter_and_text_of_the_choice():
    [task], _ = load_tasks([str(EXAMPLES / "own_data.toml")])
    samples = list(task.samples("test"))
    assert [sample.gold for sample in samples] == [(0,), (1,), (2,), (3,), (1,), (0,)]
    assert evaluate(load_model("random"), task).estimates[0].n == 6


def test_the_python_task_gives_full_marks_to_right_answers_and_none_to_wrong_ones():
    [task], _ = load_tasks([str(EXAMPLES / "python_task.py")])
    for sample in task.samples("test"):
        [request] = task.views["generate"](sample, task.prompt(sample))
        assert isinstance(request, GenerateRequest)
        right = Completion(text=f" {sample.id[::-1]}.", num_tokens=3, finish="stop")
        assert [score.value for score in task.score(sample, [right])] == [1, 1]
        nothing = Completion(text="", num_tokens=0, finish="stop")
        assert [score.value for score in task.score(sample, [nothing])] == [0, 0]
