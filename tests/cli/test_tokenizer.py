"""`lydite tokenizer`: folders, tables, mistakes."""

import json

import pytest

from lydite.cli.app import main
from tests.data.tokenizers.test_train import CHINESE, ENGLISH


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["tokenizer", *map(str, arguments)])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "en.txt").write_text("".join(ENGLISH), encoding="utf-8")
    (tmp_path / "zh.txt").write_text("".join(CHINESE), encoding="utf-8")
    return tmp_path


def test_train_and_compare(texts, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    files = [texts / "en.txt", texts / "zh.txt"]
    code, out, _ = run(capsys, "train", *files, "--out", texts / "bpe", "--vocab-size", 600)
    assert code == 0
    assert "bpe, gpt2:" in out
    code, out, _ = run(
        capsys, "train", *files, "--out", texts / "bert", "--family", "bert", "--vocab-size", 400, "--json"
    )
    assert code == 0
    assert json.loads(out)["settings"]["kind"] == "wordpiece"
    code, out, _ = run(
        capsys, "compare", texts / "bpe", texts / "bert", "-t", f"en={files[0]}", "-t", files[1], "--out", texts / "out"
    )
    assert code == 0
    assert "tokens a character" in out
    assert all(len(line) <= 80 for line in out.splitlines()[:12])
    assert "came back as" in out
    found = json.loads((texts / "out" / "comparison.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["bpe", "bert"]
    assert [count["text"] for count in found["rows"][0]["counts"]] == ["en", "zh.txt"]
    assert found["rows"][0]["counts"][1]["num_exact"] == found["rows"][0]["counts"][1]["num_texts"]
    assert "</html>" in (texts / "out" / "tokenizers.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "no.txt", "--out", "x"], "no file"),
        (["train", "en.txt", "--out", "x", "--kind", "magic"], "choose one of bpe, wordpiece"),
        (["train", "en.txt", "--out", "x", "--family", "magic"], "choose one of gpt2"),
        (["train", "en.txt", "--out", "x", "--vocab-size", "10"], "or more"),
        (["train", "en.txt", "--out", "x", "--set", "colour=red"], "it takes normalization"),
        (["train", "en.txt", "--out", "x", "--set", "byte_fallback=red"], "--set byte_fallback: Expected"),
        (["train", "en.txt", "--out", "x", "--set", "red"], "is not KEY=VALUE"),
        (["train", "en.txt", "--out", "en.txt"], "is a file"),
        (["compare", "no/such/folder", "--text", "en.txt"], "is no folder with a tokenizer"),
        (["compare", ".", "--text", "en.txt"], "holds no tokenizer"),
        (["compare", ".", "--text", "a=en.txt", "--text", "a=zh.txt"], "two texts are called 'a'"),
        (["compare", ".", ".", "--text", "en.txt"], "named twice"),
    ],
)
def test_mistakes_are_one_line(texts, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(texts)
    code, out, err = run(capsys, *arguments)
    assert code == 1
    assert message in err.splitlines()[-1]
    assert out == ""
    assert not (texts / "x").exists()
