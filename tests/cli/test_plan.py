"""`lydite plan`: the screen, JSON, mistakes."""

import json
import logging

import pytest

from lydite.cli.app import main
from lydite.cli.plan import duration, gib, short

RECIPE = """[model]
family = "gpt2"
n_layer = 2
n_embd = 32
n_head = 4
vocab_size = 96
[data]
tokens = 10000
[training]
batch = 16
steps = 100
sequence_length = 64
learning_rate = 1e-3
"""
MACHINE = 'devices = 2\nmemory = "1 GiB"\nbandwidth = "1 GB/s"\npeak = {float32 = 1e12}\n'


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["plan", *map(str, arguments)])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.fixture
def files(tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "m.toml").write_text(MACHINE)
    return tmp_path / "r.toml", tmp_path / "m.toml"


def test_the_screen(files, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, files[0], "--machine", files[1])
    assert code == 0
    assert "102k" in out  # tokens
    assert "30% (assumed)" in out
    assert "Besiroglu 2024" in out
    assert "not used by a plan: training.learning_rate" in out
    assert "10.24 epochs" in out
    table = out.partition("best spent")[2].splitlines()[1:7]
    assert all(len(line) <= 80 for line in table)


def test_json_and_utilisation(files, capsys):
    code, out, err = run(capsys, files[0], "--machine", files[1], "--utilisation", "0.6", "--json")
    assert code == 0
    assert err == ""
    found = json.loads(out)
    assert found["utilisation"] == 0.6
    assert found["is_assumed"] is False
    assert found["seconds"] == pytest.approx(found["operations"] / (2 * 1e12 * 0.6))


def test_without_a_file_and_a_model_that_does_not_fit(files, capsys):
    words = ["model.family=gpt2", "training.batch=4", "training.steps=10", "training.sequence_length=32"]
    code, out, _ = run(capsys, "--machine", files[1], *(part for word in words for part in ("--set", word)))
    assert code == 0
    assert "124,439,808" in out
    assert "it does not fit" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a recipe"),
        (["no.toml"], "cannot read no.toml"),
        (["--set", "batch=1"], "is not model.KEY"),
        (["--set", "batch"], "is not KEY=VALUE"),
        (["--set", "model.family=gpt2"], "no table [training]"),
        (["--set", "model.family=gpt2", "--measure", "--utilisation", "0.3"], "leave out --machine"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_numbers_as_they_are_read():
    assert (short(1.24e9), short(512_000), short(3e15)) == ("1.24B", "512k", "3P")
    assert (gib(2**30), gib(5 * 2**20), gib(None)) == ("1.0 GiB", "5 MiB", "not known")
    assert (duration(30), duration(600), duration(7500), duration(86400 * 3)) == (
        "30.0 s",
        "10 min",
        "2 h 5 min",
        "3 d 0 h",
    )


def test_transformers_own_warnings_stay_away(files, capsys):
    """GPT-2's special tokens lie beyond a small vocabulary, of which a plan has no need."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    logger, ear = logging.getLogger("transformers"), Ear()
    logger.addHandler(ear)
    try:
        code, _, _ = run(capsys, files[0], "--machine", files[1], "--set", "model.vocab_size=300")
    finally:
        logger.removeHandler(ear)
    assert code == 0
    assert said == []
