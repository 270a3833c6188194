"""Answers kept across runs: asked once, never mixed up, safe for two processes and for Ctrl-C."""

import sqlite3
import subprocess
import sys

import msgspec
import pytest

from lydite.errors import ModelError
from lydite.models.cache import CachedModel, answers_folder
from lydite.models.reference import ScriptedModel
from lydite.types import Completion, Decoding, Failure, GenerateRequest, LogProbs, ScoreRequest


class Counting(ScriptedModel):
    """Answers with the number of the question, and remembers what it was asked."""

    def __init__(self, **changes):
        self.asked = []
        super().__init__(self.one)
        self.info = msgspec.structs.replace(self.info, **changes)

    def one(self, request):
        self.asked.append(request)
        return -float(len(self.asked)) if isinstance(request, ScoreRequest) else f"text {len(self.asked)}"


def ask(text, sample="a", index=0, context="c"):
    return ScoreRequest(sample_id=sample, index=index, context=context, continuation=text)


def answers(model, requests):
    found = dict(model.answer(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[i] for i in range(len(requests))]


def test_a_second_run_asks_nothing(tmp_path):
    requests = [ask(" x"), GenerateRequest(sample_id="a", index=1, prompt="p"), ask(" y")]
    first = Counting()
    told = answers(CachedModel(first, tmp_path), requests)
    again = Counting()
    cached = CachedModel(again, tmp_path)
    assert answers(cached, requests) == told
    assert again.asked == []
    assert cached.hits == 3
    assert [type(output) for output in told] == [LogProbs, Completion, LogProbs]
    assert cached.usage is again.usage
    assert cached.usage.tokens_requested == 0
    assert cached.info == again.info


def test_the_same_question_in_another_sample_is_the_same_question(tmp_path):
    model = Counting()
    cached = CachedModel(model, tmp_path)
    first, second, third = answers(cached, [ask(" x"), ask(" x", sample="b", index=3), ask(" z")])
    assert first == second != third
    assert len(model.asked) == 2
    assert answers(cached, [ask(" x", sample="q")]) == [first]


@pytest.mark.parametrize(
    "other",
    [
        ask(" y"),
        ask(" x", context="d"),
        ask("x", context="c "),
        ScoreRequest(sample_id="a", index=0, context="c", continuation=" x", window="disjoint"),
    ],
)
def test_another_question_is_asked(tmp_path, other):
    model = Counting()
    cached = CachedModel(model, tmp_path)
    answers(cached, [ask(" x")])
    answers(cached, [other])
    assert len(model.asked) == 2


@pytest.mark.parametrize("change", [{"seed": 1}, {"decoding": Decoding(temperature=0.5)}, {"prompt": "q"}])
def test_another_decoding_is_asked(tmp_path, change):
    base = {"sample_id": "a", "index": 0, "prompt": "p"}
    model = Counting()
    cached = CachedModel(model, tmp_path)
    answers(cached, [GenerateRequest(**base)])
    answers(cached, [GenerateRequest(**(base | change))])
    assert len(model.asked) == 2


@pytest.mark.parametrize(
    "change",
    [{"fingerprint": "other"}, {"dtype": "bfloat16"}, {"rule": "pseudo"}, {"settings": {"bos": "none"}}],
    ids=lambda change: next(iter(change)),
)
def test_another_model_is_asked(tmp_path, change):
    answers(CachedModel(Counting(), tmp_path), [ask(" x")])
    other = Counting(**change)
    answers(CachedModel(other, tmp_path), [ask(" x")])
    assert len(other.asked) == 1


def test_the_order_of_settings_does_not_matter(tmp_path):
    answers(CachedModel(Counting(settings={"a": 1, "b": {"x": 1, "y": 2}}), tmp_path), [ask(" x")])
    other = Counting(settings={"b": {"y": 2, "x": 1}, "a": 1})
    answers(CachedModel(other, tmp_path), [ask(" x")])
    assert other.asked == []


def test_failures_are_asked_again(tmp_path):
    cached = CachedModel(ScriptedModel(lambda request: Failure(reason="busy")), tmp_path)
    assert answers(cached, [ask(" x")]) == [Failure(reason="busy")]
    model = Counting()
    assert answers(CachedModel(model, tmp_path), [ask(" x")])[0].total == -1
    assert len(model.asked) == 1


def test_what_was_answered_before_ctrl_c_is_kept(tmp_path):
    def one(request):
        if request.continuation == " 5":
            raise KeyboardInterrupt
        return -1.0

    cached = CachedModel(ScriptedModel(one), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        list(cached.answer([ask(f" {i}") for i in range(10)]))
    model = Counting()
    answers(CachedModel(model, tmp_path), [ask(f" {i}") for i in range(10)])
    assert [request.continuation for request in model.asked] == [" 5", " 6", " 7", " 8", " 9"]


def test_a_reader_that_stops_early(tmp_path):
    stream = CachedModel(Counting(), tmp_path).answer([ask(" x"), ask(" y")])
    next(stream)
    stream.close()
    model = Counting()
    answers(CachedModel(model, tmp_path), [ask(" x")])
    assert model.asked == []


def test_many_questions_at_once(tmp_path):
    requests = [ask(f" {i}") for i in range(1500)]
    told = answers(CachedModel(Counting(), tmp_path), requests)
    model = Counting()
    assert answers(CachedModel(model, tmp_path), requests) == told
    assert model.asked == []


def test_a_damaged_file_is_put_aside(tmp_path, capsys):
    (tmp_path / "answers.sqlite").write_bytes(b"this is no database at all" * 100)
    model = Counting()
    answers(CachedModel(model, tmp_path), [ask(" x")])
    assert len(model.asked) == 1
    assert (tmp_path / "answers.sqlite.damaged").is_file()
    assert "put aside" in capsys.readouterr().err


def test_a_damaged_answer_is_asked_again(tmp_path):
    answers(CachedModel(Counting(), tmp_path), [ask(" x")])
    with sqlite3.connect(tmp_path / "answers.sqlite") as connection:
        connection.execute('UPDATE answers SET output = \'{"type": "LogProbs", "tok\'')
    connection.close()
    model = Counting()
    answers(CachedModel(model, tmp_path), [ask(" x")])
    assert len(model.asked) == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="set LYDITE_CACHE") as caught:
        CachedModel(Counting(), tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_two_processes_at_once(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom lydite.models.cache import CachedModel\n"
        "from tests.models.test_cache import Counting, ask, answers\n"
        "start = int(sys.argv[2])\nmodel = CachedModel(Counting(), Path(sys.argv[1]))\n"
        "for i in range(start, start + 60):\n    answers(model, [ask(f' {i % 90}'), ask(f' q{i}')])\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(start)], stderr=subprocess.PIPE)
        for start in (0, 30)
    ]
    for process in running:
        _, err = process.communicate()
        assert process.returncode == 0, err.decode()
    model = Counting()
    answers(CachedModel(model, tmp_path), [ask(f" {i}") for i in range(90)] + [ask(f" q{i}") for i in range(90)])
    assert model.asked == []


def test_where_answers_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("LYDITE_CACHE", str(tmp_path))
    assert answers_folder() == tmp_path / "answers"


def test_half_a_surrogate_pair_is_not_kept(tmp_path):
    model = ScriptedModel(lambda request: "\ud83d")
    request = GenerateRequest(sample_id="a", index=0, prompt="p")
    for _ in range(2):
        [output] = answers(CachedModel(model, tmp_path), [request])
        assert output.text == "\ud83d"
