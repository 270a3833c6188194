"""The loop: one path, nothing lost, and nothing that can move a number but the model and the task."""

import dataclasses
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from lydite.errors import DataError, Interrupted, ModelError, RunError, TaskError
from lydite.evaluate import evaluate, keyed_seed, rescore, select
from lydite.runs import read_run, read_samples, write_json
from tests.fakes import FakeModel, choice_task, echo_task, samples

coin = choice_task().views["score"]


def numbers(run):
    return [(e.metric, e.value, e.interval, e.n, e.n_failed, e.chance) for e in run.estimates]


def test_the_run_folder_holds_what_was_returned(tmp_path):
    run = evaluate(FakeModel(), choice_task(), out=tmp_path)
    assert run.status == "done"
    assert read_run(tmp_path / "fake" / "coin") == run
    records = list(read_samples(tmp_path / "fake" / "coin"))
    assert [r.id for r in records] == [s.id for s in samples(40)]
    first = msgspec.json.decode((tmp_path / "fake" / "coin" / "samples.jsonl").read_bytes().split(b"\n")[0])
    assert {"id", "requests", "outputs", "scores"} <= first.keys()
    right = sum(score.value for r in records for score in r.scores)
    assert run.estimates[0].value == pytest.approx(right / 40)
    assert run.estimates[0].chance == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_order_of_answers_does_not_move_numbers(tmp_path, seed):
    plain = evaluate(FakeModel(), choice_task())
    shuffled = evaluate(FakeModel(order=random.Random(seed)), choice_task(), out=tmp_path)
    assert numbers(shuffled) == numbers(plain)


def test_signature_tells_everything_that_decides_a_number():
    run = evaluate(FakeModel(), choice_task(settings={"shots": 2, "seed": 7}), limit=10, seed=7)
    line = run.estimates[0].signature
    for part in (
        "acc ",
        "coin@1",
        "n 10",
        "failed 0",
        "fake@fake-we",
        "rule null",
        "shots 2",
        "seed 7",
        "limit 10",
        "lydite ",
    ):
        assert part in line, line


def test_interrupted_then_continued_equals_uninterrupted(tmp_path):
    with pytest.raises(Interrupted, match="7 of 40"):
        evaluate(FakeModel(stop_after=15), choice_task(), out=tmp_path)
    assert read_run(tmp_path / "fake" / "coin").status == "interrupted"
    model = FakeModel()
    run = evaluate(model, choice_task(), out=tmp_path)
    assert len(model.seen) == 2 * (40 - 7), "finished samples are not asked again"
    assert numbers(run) == numbers(evaluate(FakeModel(), choice_task()))
    again = FakeModel()
    assert numbers(evaluate(again, choice_task(), out=tmp_path)) == numbers(run)
    assert again.seen == []


def test_failures_are_counted_and_never_wrong():
    run = evaluate(FakeModel(fail=("s0", "s1")), choice_task())
    whole = {score.sample_id: score.value for score in _scores(FakeModel(), choice_task())}
    kept = [value for id, value in whole.items() if id not in ("s0", "s1")]
    assert (run.estimates[0].n, run.estimates[0].n_failed) == (38, 2)
    assert run.estimates[0].value == pytest.approx(sum(kept) / 38)
    every = evaluate(FakeModel(fail={s.id for s in samples(40)}), choice_task()).estimates[0]
    assert (every.value, every.interval, every.n, every.n_failed) == (None, None, 0, 40)


def _scores(model, task):
    for sample in task.samples("test"):
        requests = task.views["score"](sample, "")
        yield from task.score(sample, [output for _, output in model.answer(requests)])


def test_limit_is_a_subset_by_hash_and_grows():
    few = {s.id for s in select(choice_task(), 5, seed=0)}
    more = {s.id for s in select(choice_task(), 20, seed=0)}
    assert len(few) == 5
    assert few < more
    assert few != {s.id for s in samples(5)}
    reverse = choice_task(samples=lambda split: samples(40)[::-1])
    assert {s.id for s in select(reverse, 5, seed=0)} == few


def test_another_limit_in_the_same_folder_is_refused(tmp_path):
    evaluate(FakeModel(), choice_task(), out=tmp_path, limit=4)
    with pytest.raises(RunError, match="limit was 4, now 8"):
        evaluate(FakeModel(), choice_task(), out=tmp_path, limit=8)


def test_other_weights_in_the_same_folder_are_refused(tmp_path):
    evaluate(FakeModel(), choice_task(), out=tmp_path)
    other = FakeModel()
    other.info = msgspec.structs.replace(other.info, fingerprint="others")
    with pytest.raises(RunError, match="fingerprint"):
        evaluate(other, choice_task(), out=tmp_path)


def test_a_model_that_cannot_is_refused_before_data_is_loaded():
    def explode(split):
        raise AssertionError("data was loaded")

    with pytest.raises(ModelError, match="cannot answer score"):
        evaluate(FakeModel(can=("generate",)), choice_task(samples=explode))
    with pytest.raises(TaskError, match="no view 'label'"):
        evaluate(FakeModel(), choice_task(samples=explode), view="label")


def test_bad_data_is_refused():
    with pytest.raises(DataError, match="no samples"):
        evaluate(FakeModel(), choice_task(0))
    with pytest.raises(DataError, match="an id that another has"):
        evaluate(FakeModel(), choice_task(samples=lambda split: samples(2) + samples(2)))


def test_decoding_options_and_seeds_reach_the_request():
    model = FakeModel()
    evaluate(model, echo_task(), decoding={"max_new_tokens": 3}, seed=5)
    assert {request.decoding.max_new_tokens for request in model.seen} == {3}
    assert [request.seed for request in model.seen] == [keyed_seed("echo", f"s{i}", 5) for i in range(6)]
    with pytest.raises(DataError, match="max_new_token"):
        evaluate(FakeModel(), echo_task(), decoding={"max_new_token": 3})


def test_rescore_changes_scores_and_keeps_outputs(tmp_path):
    evaluate(FakeModel(), choice_task(), out=tmp_path)
    leaf = tmp_path / "fake" / "coin"
    outputs = [r.outputs for r in read_samples(leaf)]

    def always(sample, outputs):
        return [msgspec.structs.replace(choice_task().score(sample, outputs)[0], value=1.0)]

    before, after = rescore(leaf, choice_task(score=always, version=2))
    assert before.estimates[0].value < 1
    assert after.estimates[0].value == 1
    assert after.task.version == 2
    assert [r.outputs for r in read_samples(leaf)] == outputs


def test_rescore_counts_a_sample_once_and_misses_none(tmp_path):
    evaluate(FakeModel(), choice_task(), out=tmp_path)
    leaf = tmp_path / "fake" / "coin"
    path = leaf / "samples.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *lines]))
    before, after = rescore(leaf, choice_task())
    assert after.estimates == before.estimates
    path.write_bytes(b"".join(lines[1:]))
    with pytest.raises(RunError, match="holds 39 of 40 samples"):
        rescore(leaf, choice_task())
    assert read_run(leaf) == after


@pytest.mark.parametrize(
    "views", [{}, {"score": lambda sample, context: [*coin(sample, context), *coin(sample, context)]}]
)
def test_rescore_refuses_a_task_that_asks_for_something_else(tmp_path, views):
    evaluate(FakeModel(), choice_task(), out=tmp_path)
    with pytest.raises(RunError, match="other requests than the run holds answers to"):
        rescore(tmp_path / "fake" / "coin", choice_task(views=views))


def test_a_task_that_scores_nothing_is_refused():
    with pytest.raises(TaskError, match="scores none of its metrics"):
        evaluate(FakeModel(), choice_task(score=lambda sample, outputs: []))


KILLED = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from lydite.evaluate import evaluate
from tests.fakes import FakeModel, choice_task

class Slow(FakeModel):
    def answer(self, requests):
        for pair in super().answer(requests):
            time.sleep(0.01)
            yield pair

evaluate(Slow(), choice_task(), out=Path({out!r}))
"""


def test_kill_9_in_the_middle_keeps_what_was_finished(tmp_path):
    root = str(Path(__file__).resolve().parents[1])
    process = subprocess.Popen([sys.executable, "-c", KILLED.format(root=root, out=str(tmp_path))])
    path = tmp_path / "fake" / "coin" / "samples.jsonl"
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_bytes().count(b"\n") >= 20):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    kept = path.read_bytes().count(b"\n")
    assert kept < 40
    model = FakeModel()
    run = evaluate(model, choice_task(), out=tmp_path)
    assert len(model.seen) == 2 * (40 - kept)
    assert numbers(run) == numbers(evaluate(FakeModel(), choice_task()))


HALF = "\ud83d"  # the first half of an emoji's surrogate pair; no encoding of text has it


def test_a_lone_surrogate_in_an_answer_is_stored_noted_and_scored_as_stored(tmp_path):
    from lydite.cli.compare_tables import render
    from lydite.compare import compare
    from lydite.models.reference import ScriptedModel
    from lydite.report import write_report
    from lydite.report.table import tables

    seen = []
    base = echo_task()

    def score(sample, outputs):
        seen.append(outputs[0].text)
        return base.score(sample, outputs)

    task = dataclasses.replace(base, score=score)
    for name in ("a", "b"):
        model = ScriptedModel(lambda request: f"good {HALF}{HALF} {request.sample_id}", name=name, fingerprint=name)
        run = evaluate(model, task, out=tmp_path)
        assert run.estimates[0].n == 6
        record = next(read_samples(tmp_path / name / "echo"))
        assert record.outputs[0].text == "good \ufffd\ufffd s0" == seen[-6]
        assert record.scores[0].answer == "good \ufffd\ufffd s0"
        assert record.scores[0].note == "2 lone surrogates of the answer replaced by U+FFFD"
    rescore(tmp_path / "a" / "echo", task)
    assert "good \ufffd\ufffd s0" in write_report(tmp_path).read_text(encoding="utf-8")
    found = compare([tmp_path], lambda run, name: None)
    for format in ("table", "csv", "markdown", "latex"):
        assert "echo" in tables([run], format=format)
        assert "echo" in render(found, format)


@pytest.mark.parametrize(
    ("config", "said"),
    [({}, "missing required field"), ({"limit": None, "seed": "0", "decoding": {}, "lydite": "1"}, "Expected `int`")],
)
def test_rescoring_a_run_with_a_strange_config_is_refused(tmp_path, config, said):
    evaluate(FakeModel(), choice_task(), out=tmp_path)
    leaf = tmp_path / "fake" / "coin"
    write_json(leaf / "run.json", msgspec.structs.replace(read_run(leaf), config=config))
    before = (leaf / "samples.jsonl").read_bytes()
    with pytest.raises(RunError, match=f"its config is not that of an evaluation: .*{said}"):
        rescore(leaf, choice_task())
    assert (leaf / "samples.jsonl").read_bytes() == before
