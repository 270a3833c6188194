"""The audit of written answers: what counts as standing there, outcomes, bounds."""

import json

import pytest

from lydite.audit import audit, outcome, standing
from lydite.errors import RunError
from lydite.evaluate import evaluate
from lydite.runs import read_samples
from lydite.tasks.generate import generation_task, grader
from lydite.types import Completion, Decoding, Failure, ModelInfo, Sample, Usage
from tests.fakes import FakeModel, choice_task

ANSWERS = {
    "right": Completion(text="Answer: 12", num_tokens=2, finish="stop"),
    "missed": Completion(text="It is 12, so 3 are left over", num_tokens=9, finish="stop"),
    "wrong": Completion(text="Answer: 7", num_tokens=2, finish="stop"),
    "unread": Completion(text="I would say twelve", num_tokens=4, finish="stop"),
    "cut": Completion(text="First we take 3 and", num_tokens=5, finish="length"),
    "empty": Completion(text=" \n", num_tokens=1, finish="stop"),
    "failed": Failure(reason="NaN"),
}


class Writer:
    info = ModelInfo(name="writer", family="null", rule="null", can=("generate",), fingerprint="w")
    usage = Usage()

    def __init__(self, answers):
        self.answers = answers

    def answer(self, requests):
        for position, request in enumerate(requests):
            yield position, self.answers[request.sample_id]


def task(*graders, targets=("12",), rules=("after:Answer:", "last_number")):
    def samples(split):
        for name in ANSWERS:
            yield Sample(id=name, input="How many?", targets=targets)

    return generation_task("sums", samples, lambda s: s.input, [grader(g, rules) for g in graders], Decoding())


def test_what_was_missed_and_the_bounds(tmp_path):
    sums = task("exact_match", "f1")
    evaluate(Writer(ANSWERS), sums, out=tmp_path)
    leaf = tmp_path / "writer" / "sums"
    found = audit(leaf, sums)
    assert found.n == 7
    assert found.outcomes == {"read": 3, "unread": 1, "cut": 1, "empty": 1, "long": 0, "failed": 1}
    exact, _ = found.metrics
    # Six were scored and one was right; one more can be read; two are cut or empty.
    assert exact.value == pytest.approx(1 / 6)
    assert exact.with_missed == pytest.approx(2 / 6)
    assert (exact.low, exact.high) == (pytest.approx(1 / 6), pytest.approx(3 / 6))
    [missed] = exact.missed
    assert (missed.sample_id, missed.answer, missed.right) == ("missed", "3", "12")
    before = (leaf / "samples.jsonl").read_bytes()
    audit(leaf, sums)
    assert (leaf / "samples.jsonl").read_bytes() == before


def test_bounds_of_corpus_metrics(tmp_path):
    sums = task("ter", "chrf", targets=("a fine new mill",), rules=())
    evaluate(Writer(ANSWERS), sums, out=tmp_path)
    ter, chrf = audit(tmp_path / "writer" / "sums", sums).metrics
    assert ter.low <= ter.value <= ter.high
    assert chrf.low <= chrf.value <= chrf.high
    assert chrf.low < chrf.high


def test_over_long_answers(tmp_path):
    answers = ANSWERS | {"wrong": Completion(text="Answer: " + "well " * 20, num_tokens=20, finish="stop")}
    sums = task("exact_match")
    evaluate(Writer(answers), sums, out=tmp_path)
    records = {record.id: record for record in read_samples(tmp_path / "writer" / "sums")}
    assert outcome(records["wrong"]) == "long"
    assert outcome(records["right"]) == "read"


@pytest.mark.parametrize(
    ("text", "targets", "found"),
    [
        ("The mill, built in 1204.", ("1204",), "1204"),
        ("It cost $1,204.00", ("1204",), "1204"),
        ("about 12040", ("1204",), None),
        ("the River Arn flows", ("Thames", "river arn"), "river arn"),
        ("the Arnold", ("Arn",), None),
        ("磨坊在阿恩河边。", ("阿恩河",), "阿恩河"),
        ("anything", ("...",), None),
    ],
)
def test_what_stands_in_a_text(text, targets, found):
    assert standing(text, Sample(id="1", targets=targets)) == found


def test_choices_stand_alone_or_not_at_all():
    sample = Sample(id="1", choices=("red fox", "owl"), gold=(0,))
    assert standing("I think the red fox.", sample) == "red fox"
    assert standing("The red fox, not the owl.", sample) is None
    assert standing("The owl.", sample) is None


def test_runs_without_texts_are_refused(tmp_path):
    coin = choice_task()
    evaluate(FakeModel(), coin, out=tmp_path)
    with pytest.raises(RunError, match="no written answers"):
        audit(tmp_path / "fake" / "coin", coin)


def test_the_verb(tmp_path, capsys, monkeypatch):
    from lydite.cli.app import main

    rows = [{"question": "q1", "answer": "12"}, {"question": "q2", "answer": "5"}]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "sums.toml").write_text(
        '[task]\nname = "sums"\nkind = "generation"\ndata = "sums.jsonl"\nprompt = "{{question}}"\n'
        'gold = "{{answer}}"\nextract = ["last_number"]\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.json").write_text('{"answers": [{"text": "12 or [red]5[/red] or 99"}]}', encoding="utf-8")
    for words in (["evaluate", "scripted:s.json", "--tasks", "sums.toml", "--out", "runs"], ["audit", "runs"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "2 missed" in said
    assert "[red]5[/red]" in said
    with pytest.raises(SystemExit) as stop:
        main(["audit", "nowhere"])
    assert stop.value.code == 1
