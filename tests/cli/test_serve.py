"""`lydite serve` as a process of its own: starts, answers, ends at Ctrl-C."""

import signal
import subprocess
import sys

import httpx2
import pytest

from lydite.cli.app import main
from tests.tiny import save_tiny


def test_it_serves_until_ctrl_c(tmp_path):
    folder = save_tiny(tmp_path / "tiny", scale=6.0)
    command = [sys.executable, "-m", "lydite", "serve", str(folder), "--port", "0", "--set", "max_new_tokens=5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        assert "on http://127.0.0.1:" in line, process.stderr.read()
        url = line.split(" on ")[1].split(";")[0]
        reply = httpx2.post(f"{url}/completions", json={"prompt": "The"}, timeout=60, trust_env=False).json()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert reply["usage"]["completion_tokens"] <= 5
    assert process.returncode == 0, err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["uniform"], "only causal models"),
        (["uniform", "--set", "view=score"], "--set view says nothing to a server"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["serve", *arguments])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
