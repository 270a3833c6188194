"""The command line as a whole: what is said when something below it fails."""

import pytest

from lydite.cli import app


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError("no such page"), "cannot write or read the output: no such page"),
        (OSError(28, "No space left on device", "a.txt"), "cannot write or read a.txt: No space left on device"),
        (OSError(), "cannot write or read the output: OSError"),
    ],
)
def test_an_error_of_the_system_says_why(monkeypatch, capsys, error, line):
    def fail(arguments):
        raise error

    monkeypatch.setattr(app, "make_app", fail)
    with pytest.raises(SystemExit) as stopped:
        app.main(["tasks"])
    assert stopped.value.code == 1
    assert line in capsys.readouterr().err
