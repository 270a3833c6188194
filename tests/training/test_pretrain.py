"""`lydite pretrain` as a person runs it: killed, told to end, begun twice, with mistakes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lydite.errors import RunError
from lydite.training.log import ScoreLine, TextLine, read_log
from lydite.training.start import pretrain
from tests.training.test_loop import NO_DROPOUT
from tests.training.tinyrun import curve, tiny_recipe, write_text

RECIPE = """
[model]
family = "gpt2"
[model.config]
n_layer = 2
n_head = 2
n_embd = 16
n_positions = 16
resid_pdrop = 0.0
embd_pdrop = 0.0
attn_pdrop = 0.0
[data]
text = ["text.txt"]
tokenizer = "characters"
[[objective]]
name = "causal"
context = 16
end_of_document = false
[training]
max_steps = 160
batch_size = 8
learning_rate = 3e-3
warmup_steps = 2
[save]
every = 40
"""


@pytest.fixture
def folder(tmp_path):
    write_text(tmp_path / "text.txt")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def command(folder, *more):
    out = ["--out", str(folder / "run")]
    return [sys.executable, "-m", "lydite", "pretrain", str(folder / "recipe.toml"), *out, *more]


def hear():
    """A test in the background of a shell has Ctrl-C switched off, and its children too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_step(folder, step, process):
    """Until the log has it, or the process has ended."""
    path = folder / "run" / "log.jsonl"
    while process.poll() is None:
        if path.exists() and any(f'"step":{step},' in line for line in path.read_text().splitlines()[-300:]):
            return
        time.sleep(0.01)
    raise AssertionError(process.communicate())


@pytest.mark.slow
def test_killed_told_to_end_and_continued(folder):
    """kill -9, SIGTERM, Ctrl-C, and the same command again: the curve of a run that nobody touched."""
    for number, code, step in ((signal.SIGKILL, -9, 50), (signal.SIGTERM, 130, 70), (signal.SIGINT, 130, 100)):
        process = subprocess.Popen(
            command(folder), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=hear
        )
        wait_for_step(folder, step, process)
        if number == signal.SIGKILL:  # a second process in the meantime
            process.send_signal(signal.SIGSTOP)
            second = subprocess.run(command(folder), capture_output=True, text=True)
            assert second.returncode == 1
            assert "is in use by another process" in second.stderr
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        assert "Traceback" not in errors
        if code == 130:
            assert "which is saved; the same command continues" in errors
    done = subprocess.run(command(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "run" / "model")
    table = {"max_steps": 160}
    pretrain(tiny_recipe(folder / "text.txt", model=NO_DROPOUT, training=table), folder / "whole")
    assert curve(folder / "run") == curve(folder / "whole")
    page = (folder / "run" / "training.html").read_text()
    assert page.count("<figure>") >= 4
    assert "<script" not in page


def test_mistakes_are_one_line(folder):
    for more, message in (
        (["--set", "training.max_step=3"], "did you mean max_steps?"),
        (["--set", "model.config.n_layers=3"], "unknown key model.config.n_layers of gpt2; did you mean n_layer?"),
        (["--set", f"data.text={folder}/none.txt"], "there is no file"),
        (["--set", "model.family=gpt3"], "unknown family 'gpt3'; did you mean"),
    ):
        done = subprocess.run(command(folder, *more), capture_output=True, text=True)
        assert done.returncode == 1
        assert message in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


def test_what_it_writes_and_scores_on_the_way(folder):
    more = ["eval.every=20", "training.max_steps=20", "eval.prompts=ba do", "eval.max_new_tokens=5"]
    more += ["eval.tasks=mini_grammar_en", "eval.limit=4", "data.validation=0.1", "model.config.n_positions=128"]
    done = subprocess.run(
        command(folder, *[word for pair in more for word in ("--set", pair)]),
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    lines = read_log(folder / "run")
    texts = [line for line in lines if isinstance(line, TextLine)]
    assert [line.step for line in texts] == [20]
    assert json.loads((folder / "run" / "recipe.json").read_text())["config"]["training"]["max_steps"] == 20
    assert "mini_grammar_en acc " in done.stderr
    assert [line.task for line in lines if isinstance(line, ScoreLine)] == ["mini_grammar_en"]
    assert "validation loss" in done.stderr


def test_a_folder_that_is_refused_keeps_its_page(folder, monkeypatch):
    from lydite.cli.pretrain import pretrain as verb

    monkeypatch.chdir(folder)
    begun = {"schema": 1, "config": {"training": {}}, "data": "x"}
    (folder / "run").mkdir()
    (folder / "run" / "recipe.json").write_text(json.dumps(begun))
    (folder / "run" / "log.jsonl").write_text("")
    (folder / "run" / "training.html").write_text("another run's")
    with pytest.raises(RunError, match="holds a run of another recipe"):
        verb(folder / "recipe.toml", out=folder / "run", quiet=True)
    assert (folder / "run" / "training.html").read_text() == "another run's"
