"""`lydite bench`: what the screen, machines and folders get."""

import json

import msgspec
import pytest

from lydite.bench import Speeds
from lydite.cli.app import main
from tests.tiny import save_tiny

SMALL = ["--batches", "1,3", "--lengths", "12,24", "--new-tokens", "3", "--repeats", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "llama")


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_a_checkpoint_in_eighty_columns_with_json_and_plot(folder, tmp_path, capsys, monkeypatch):
    from lydite.engine import peak

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(peak, "matrix_peak", lambda dtype, device: 1e12)
    code, out, err = run(capsys, str(folder), *SMALL, "--out", str(tmp_path / "out"))
    assert code == 0
    table = out.partition("\n\n")[2].splitlines()
    assert all(len(line) <= 80 for line in table[:5])
    assert [line.split()[:2] for line in table[1:5]] == [["12", "1"], ["12", "3"], ["24", "1"], ["24", "3"]]
    assert "matrix kernel" in out
    assert "4 x" not in err
    speeds = msgspec.json.decode((tmp_path / "out/bench.json").read_bytes(), type=Speeds)
    assert speeds.matrix_peak == 1e12
    assert speeds.load_seconds > 0
    assert all(cell.prefill > 0 and 0 < cell.prefill_fraction < 1 for cell in speeds.cells)
    assert all(0.4 * cell.length < cell.prompt_tokens < 2 * cell.length for cell in speeds.cells), speeds.cells
    assert (tmp_path / "out/bench.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_the_only_thing_on_standard_output(capsys):
    code, out, err = run(capsys, "uniform", *SMALL, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["model"]["name"] == "uniform"
    assert len(found["cells"]) == 4
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["uniform", "--batches", "1,x"], "--batches takes whole numbers"),
        (["uniform", "--lengths", "0"], "--lengths takes whole numbers"),
        (["uniform", "--set", "temperature=1"], "--set temperature says nothing to a bench"),
        (["uniform", "--set", "view=score"], "--set view says nothing to a bench"),
        (["uniform", "--out", "/dev/null/x"], "choose another --out"),
        (["no/where/at/all.gguf"], "no/where/at/all.gguf"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_a_length_that_the_model_cannot_hold(folder, capsys):
    code, _, err = run(capsys, str(folder), "--lengths", "4096", "--repeats", "1")
    assert code == 1
    assert "holds 128 tokens; choose --lengths of" in err.splitlines()[-1]
