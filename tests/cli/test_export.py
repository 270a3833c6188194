"""`lydite export`, and other systems' logs where `compare` and `report` take runs."""

import json
from pathlib import Path

import pytest

from lydite.cli.app import main
from tests.logs.samples import harness


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_logs_compared_reported_and_kept(tmp_path, capsys):
    a, b = harness(tmp_path / "a"), harness(tmp_path / "b", model="org/large", flips=(0,), shots=3)
    code, out, err = run(capsys, "compare", a, b, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert {system["label"] for system in found["systems"]} == {"org/small", "org/large"}
    assert found["tasks"][0]["n_shared"] == 4
    code, out, err = run(capsys, "report", a)
    assert (code, out.strip()) == (0, str(a / "report.html")), err
    assert "Which animal barks?" in (a / "report.html").read_text()
    code, out, err = run(capsys, "export", a, "--to", "lydite", "--out", tmp_path / "kept")
    assert code == 0, err
    code, out, err = run(capsys, "export", tmp_path / "kept", "--out", tmp_path / "again")
    assert code == 0, err
    assert json.loads(Path(out.strip()).read_text())["results"]["animals"]["acc,none"] == 0.75


def test_mistakes_are_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments in (
        ("export", tmp_path / "empty", "--out", tmp_path / "x"),
        ("export", tmp_path / "none", "--to", "lydite", "--out", tmp_path / "x"),
        ("export", harness(tmp_path / "a"), "--to", "csv", "--out", tmp_path / "x"),
        ("report", tmp_path / "empty"),
        ("compare", tmp_path / "a"),
    ):
        code, _, err = run(capsys, *arguments)
        assert code == 1, arguments
        assert err.startswith("lydite: error: ")
        assert err.count("\n") == 1
