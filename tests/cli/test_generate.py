"""`lydite generate`: what the screen, pipes and files get."""

import io
import json
import math
import re
import sys

import pytest

from lydite.cli.app import main
from lydite.models.causal import load_causal
from lydite.types import Decoding, GenerateRequest, Message
from tests.tiny import TEXTS, save_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny") / "llama", scale=6.0, chat=True, max_tokens=512)


@pytest.fixture(scope="module")
def model(folder):
    return load_causal(folder, name="tiny", source="test")


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["generate", *map(str, arguments)])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def direct(model, prompt="", messages=(), sample="0", index=0, **decoding):
    decoding = Decoding(**({"max_new_tokens": 12} | decoding))
    asked = GenerateRequest(sample_id=sample, index=index, prompt=prompt, messages=tuple(messages), decoding=decoding)
    return dict(model.answer([asked]))[0]


def test_one_prompt(folder, model, capsys, monkeypatch):
    expected = direct(model, "The cat").text
    assert run(capsys, folder, "The cat", "--set", "max_new_tokens=12")[:2] == (0, expected + "\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("The cat"))
    assert run(capsys, folder, "-", "--set", "max_new_tokens=12")[:2] == (0, expected + "\n")


def test_several_sequences_and_probabilities(folder, model, capsys):
    options = ["--set", "max_new_tokens=12", "--set", "do_sample=true", "--set", "temperature=1.3"]
    code, out, _ = run(capsys, folder, "The", "-n", 3, "--probs", *options)
    assert code == 0
    for index in range(3):
        expected = direct(model, "The", index=index, do_sample=True, temperature=1.3)
        part = out.split(f"--- {index + 1} of 3\n")[1].partition("\n--- ")[0]
        assert part.startswith(expected.text + "\n")
        rows = re.findall(r"^([01]\.\d{4})\t'", part, re.MULTILINE)
        assert len(rows) == expected.num_tokens
        assert all(0 <= float(row) <= 1 for row in rows)


def test_lines_of_a_chat_are_one_conversation(folder, model, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("The cat?\n\nThe dog?\n"))
    code, out, _ = run(capsys, folder, "--chat", "--system", "Be kind.", "--set", "max_new_tokens=12")
    turns = [Message(role="system", content="Be kind."), Message(role="user", content="The cat?")]
    first = direct(model, messages=turns).text
    turns += [Message(role="assistant", content=first), Message(role="user", content="The dog?")]
    assert (code, out) == (0, f"{first}\n{direct(model, messages=turns).text}\n")


def test_terminals_see_signs_not_codes(folder, monkeypatch, capsys):
    from lydite.cli.generate_live import Bit, _Screen

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    screen = _Screen(probs=True)
    screen.show(Bit("\x1b[2Jwipe [red]it\u202e", "x", math.log(0.95)))
    screen.end()
    out, err = capsys.readouterr()
    assert "\x1b[2J" not in out
    assert "\u202e" not in out
    assert "wipe [red]it" in out
    assert "\x1b[32m" in out, "green: very likely"
    assert "probability" in err


# ------------------------------------------------------------------------------------------------ files


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def asked(tmp_path):
    given = [{"id": f"q{i}", "prompt": text, "more": [i]} for i, text in enumerate(TEXTS)]
    given.append({"id": "talk", "messages": [{"role": "user", "content": "The cat?"}]})
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    return path


def test_file_to_file_and_again(folder, model, asked, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    command = [folder, "--in", asked, "--out", out, "--set", "max_new_tokens=12"]
    assert run(capsys, *command)[0] == 0
    found = {row["id"]: row for row in rows(out)}
    for row in rows(asked):
        turns = [Message(**turn) for turn in row.get("messages", [])]
        expected = direct(model, row.get("prompt", ""), turns)
        answer = found[row["id"]]
        assert {key: answer[key] for key in row} == row
        assert answer["completions"] == [
            {"text": expected.text, "num_tokens": expected.num_tokens, "finish": expected.finish}
        ]
    whole = out.read_bytes()
    kept = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(kept[:3]) + kept[3][:20])  # killed in the middle of a line
    code, _, err = run(capsys, *command)
    assert (code, sorted(out.read_bytes().splitlines())) == (0, sorted(whole.splitlines()))
    assert "3 of 8 rows are done" in err
    assert out.read_bytes().startswith(b"".join(kept[:3])), "what was there stays"
    code, _, err = run(capsys, *command[:-1], "max_new_tokens=13")
    assert code == 1
    assert "answers other prompts or settings; choose another --out" in err


def test_probabilities_in_files(folder, model, asked, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert run(capsys, folder, "--in", asked, "--out", out, "--set", "max_new_tokens=12", "--probs")[0] == 0
    for row in rows(out):
        [one] = row["completions"]
        assert len(one["tokens"]) == one["num_tokens"]
        assert all(logprob <= 0 for _, logprob in one["tokens"])


def test_models_that_do_not_run_here(asked, tmp_path, capsys):
    assert run(capsys, "uniform", "The cat")[:2] == (0, "\n")
    code, _, err = run(capsys, "uniform", "--in", asked, "--out", tmp_path / "out.jsonl")
    assert code == 0, err
    assert len(rows(tmp_path / "out.jsonl")) == 8
    assert "no probabilities" in run(capsys, "uniform", "a", "--probs")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "--in", "a.jsonl"], "--in and --out go together"),
        (["x", "-n", "3"], "add --set do_sample=true"),
        (["x", "--set", "view=score"], "--set view says nothing to generate"),
        (["--in", "none.jsonl", "--out", "b.jsonl"], "no file"),
        (["p", "--in", "a.jsonl", "--out", "b.jsonl"], "leave PROMPT out"),
        (["--in", "a.jsonl", "--out", "a.jsonl"], "choose another --out"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    code, out, err = run(capsys, "uniform", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, "one of the columns prompt and messages is needed"),
        ({"prompt": 3}, "prompt must be a text"),
        ({"prompt": "a", "completions": []}, "the column completions is kept"),
        ({"messages": [{"role": "x", "content": "a"}]}, "messages: "),
    ],
)
def test_rows_that_do_not_fit(capsys, tmp_path, row, message):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(row) + "\n")
    code, _, err = run(capsys, "uniform", "--in", path, "--out", tmp_path / "out.jsonl")
    assert code == 1
    assert f"in.jsonl, line 1: {message}" in err
    assert not (tmp_path / "out.jsonl").exists()


def test_ctrl_c_keeps_what_was_generated(folder, model, capsys, monkeypatch):
    """A text that is cut in the middle: its beginning, a line that says so, and no traceback."""
    from lydite.cli.generate_live import _Screen

    shown = []
    show = _Screen.show

    def interrupted(self, bit):
        show(self, bit)
        shown.append(bit)
        if len(shown) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(_Screen, "show", interrupted)
    code, out, err = run(capsys, folder, "The cat", "--set", "max_new_tokens=400")
    assert code == 130
    assert err.splitlines()[-1:] == ["lydite: interrupted; the text so far stands above"]
    assert out == "".join(bit.text for bit in shown) + "\n"
    assert direct(model, "The cat", max_new_tokens=400).text.startswith(out[:-1])


def test_ctrl_c_keeps_the_rows_that_are_done(folder, asked, tmp_path, capsys, monkeypatch):
    from lydite.cli import generate_files

    whole = generate_files._lines

    def interrupted(speaker, jobs):
        for number, line in enumerate(whole(speaker, jobs)):
            if number == 3:
                raise KeyboardInterrupt
            yield line

    monkeypatch.setattr(generate_files, "_lines", interrupted)
    out = tmp_path / "out.jsonl"
    code, _, err = run(capsys, folder, "--in", asked, "--out", out, "--set", "max_new_tokens=5")
    assert code == 130
    assert "3 of 8 rows are in" in err
    assert len(rows(out)) == 3


def test_what_is_no_text(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a \xff b"), encoding="utf-8"))
    code, _, err = run(capsys, "uniform", "-")
    assert (code, err) == (1, "lydite: error: the prompt is not UTF-8; save it as UTF-8\n")
