"""`lydite serve`: starts, says where, answers, ends at Ctrl-C."""

import threading
from http.server import ThreadingHTTPServer

import httpx2
import pytest

from lydite.cli.app import main
from lydite.serve.http import Server
from tests.tiny import save_tiny


def test_it_serves_until_ctrl_c(tmp_path, monkeypatch, capsys):
    folder = save_tiny(tmp_path / "tiny", scale=6.0)
    replies = []

    def serve(self, poll_interval):
        """Stands in for a day of work."""
        thread = threading.Thread(target=ThreadingHTTPServer.serve_forever, args=(self, 0.01))
        thread.start()
        url = capsys.readouterr().out.split(" on ")[1].split(";")[0]
        replies.append(httpx2.post(f"{url}/completions", json={"prompt": "The"}, timeout=60, trust_env=False).json())
        self.shutdown()
        thread.join()
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", serve)
    with pytest.raises(SystemExit) as stop:
        main(["serve", str(folder), "--port", "0", "--set", "max_new_tokens=5"])
    assert stop.value.code == 0
    assert 0 <= replies[0]["usage"]["completion_tokens"] <= 5
    assert "the server has ended" in capsys.readouterr().err
    assert not any(thread.name == "lydite-live" for thread in threading.enumerate())


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


def test_a_port_that_is_taken_is_said_before_a_model_is_loaded(capsys):
    with ThreadingHTTPServer(("127.0.0.1", 0), None) as other, pytest.raises(SystemExit) as stop:
        main(["serve", "there-is-no-such-model", "--port", str(other.server_port)])
    assert stop.value.code == 1
    assert "choose another --port" in capsys.readouterr().err
