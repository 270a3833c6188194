"""Other systems' logs as runs: the numbers that the logs report come out again, or nothing does."""

import json
import math
import sys
import zipfile

import pytest

from lydite.cli.compare import find_metric
from lydite.compare import compare
from lydite.errors import UserError
from lydite.evaluate import evaluate
from lydite.logs import as_runs
from lydite.logs.write_lm_eval import write_lm_eval
from lydite.report import write_report
from lydite.runs import find_runs, read_run, read_samples
from lydite.types import Failure, Metric, Sample, Score, ScoreRequest, Task
from tests.fakes import FakeModel, choice_task
from tests.logs.samples import QUESTIONS, harness, harness_task, inspect_log, lighteval_rows


def read(path, into):
    [found] = as_runs([path], into)
    [leaf] = find_runs(found)
    return read_run(leaf), list(read_samples(leaf))


def test_a_harness_log_is_a_run_with_its_numbers_and_our_interval(tmp_path):
    run, records = read(harness(tmp_path / "logs"), tmp_path / "into")
    [estimate] = run.estimates
    assert (estimate.metric, estimate.value, estimate.n, estimate.n_failed) == ("acc", 0.75, 4, 0)
    assert estimate.method == "wilson"
    assert estimate.chance == pytest.approx(1 / 3)
    assert (run.model.name, run.model.dtype, run.task.name) == ("org/small", "float32", "animals")
    assert run.environment["logged_by"] == "lm-eval 0.4.13"
    first = records[0]
    assert first.sample.choices == ("a cat", "a dog", "a fish")
    assert first.sample.gold == (1,)
    assert [output.total for output in first.outputs] == QUESTIONS[0][3]
    assert first.requests[1].continuation == " a dog"
    assert "animals@1" in estimate.signature


def test_two_harness_logs_pair_by_document_and_say_what_differs(tmp_path):
    a = harness(tmp_path / "a", model="org/small")
    b = harness(tmp_path / "b", model="org/large", flips=(0, 2), shots=2)
    found = compare(as_runs([a, b], tmp_path / "into"), find_metric)
    [row] = found.tasks
    assert (row.n_shared, row.n_unshared) == (4, 0)
    assert dict(zip(row.systems, (e.value for e in row.estimates), strict=True)) == {
        "org/small": 0.75,
        "org/large": 0.25,
    }
    assert row.pairs[0].difference.value == pytest.approx(0.5)
    keys = {difference.key for difference in found.differences}
    assert "task.settings.shots" in keys
    assert "task.fingerprint" in keys


def animals_task(name="animals"):
    """The same questions as one of our own tasks."""

    def view(sample, context):
        return [
            ScoreRequest(
                sample_id=sample.id, index=i, context=f"Question: {sample.input}\nAnswer:", continuation=f" {c}"
            )
            for i, c in enumerate(sample.choices)
        ]

    def score(sample, outputs):
        if any(isinstance(output, Failure) for output in outputs):
            return [Score(sample_id=sample.id, metric="acc", value=None, status="error", note="failed")]
        totals = [output.total for output in outputs]
        return [Score(sample_id=sample.id, metric="acc", value=float(totals.index(max(totals)) in sample.gold))]

    rows = [Sample(id=f"q{i}", input=q, choices=tuple(c), gold=(g,)) for i, (q, c, g, _) in enumerate(QUESTIONS)]
    return Task(
        name=name,
        samples=lambda split: rows,
        views={"score": view},
        score=score,
        metrics=(Metric(name="acc", unit="proportion"),),
    )


def test_our_run_and_a_log_pair_by_prompt(tmp_path):
    ours = tmp_path / "ours"
    run = evaluate(FakeModel(), animals_task(), out=ours)
    found = compare(as_runs([ours, harness(tmp_path / "logs")], tmp_path / "into"), find_metric)
    [row] = found.tasks
    assert row.n_shared == 4
    values = dict(zip(row.systems, (e.value for e in row.estimates), strict=True))
    assert values == {"fake": run.estimates[0].value, "org/small": 0.75}
    with pytest.raises(UserError, match="share no sample with the same prompt"):
        compare(as_runs([ours, harness(tmp_path / "other", shots=1)], tmp_path / "into2"), find_metric)


def test_what_is_written_for_the_harness_reads_back_as_the_same_numbers(tmp_path):
    model = FakeModel(fail=("q2",))
    first = evaluate(model, animals_task(), out=tmp_path / "out")
    second = evaluate(model, choice_task(30), out=tmp_path / "out")
    [results] = write_lm_eval(find_runs(tmp_path / "out"), tmp_path / "logs")
    content = json.loads(results.read_text())
    # What their own readers look for.
    assert content["results"]["animals"]["acc,none"] == first.estimates[0].value
    assert content["results"]["coin"]["acc_stderr,none"] == second.estimates[0].stderr
    assert {"configs", "versions", "n-shot", "higher_is_better", "n-samples", "config", "task_hashes"} <= content.keys()
    [found] = as_runs([tmp_path / "logs"], tmp_path / "into")
    again = {run.task.name: run for run in map(read_run, find_runs(found))}
    for run in (first, second):
        old, new = run.estimates[0], again[run.task.name].estimates[0]
        assert new.value == pytest.approx(old.value, abs=1e-12)
        assert new.interval == pytest.approx(old.interval, abs=1e-12)
        assert (new.n, new.n_failed) == (old.n, old.n_failed)
    records = {
        r.sample.fields["id"]: r for leaf in find_runs(found) for r in read_samples(leaf) if "animals" in str(leaf)
    }
    assert all(isinstance(output, Failure) for output in records["q2"].outputs)
    twice = as_runs([tmp_path / "logs"], tmp_path / "into2")
    write_lm_eval(find_runs(twice[0]), tmp_path / "logs2")
    assert [path.name for path in (tmp_path / "logs2").rglob("results*")]


def test_perplexities_are_corpus_numbers_and_others_stand_as_reported(tmp_path):
    totals, words = [-120.5, -80.25, -33.0], [40, 31, 9]
    exact = math.exp(-sum(totals) / sum(words))
    rows = [
        ([[f"text {i}"]], [[str(t)]], {"word_perplexity": [t, w], "odd": 0.5, "metrics": ["word_perplexity", "odd"]})
        for i, (t, w) in enumerate(zip(totals, words, strict=True))
    ]
    reported = {"word_perplexity,none": exact, "word_perplexity_stderr,none": "N/A", "odd,none": 0.9}
    folder = harness_task(tmp_path / "logs", "wiki", "loglikelihood_rolling", reported, rows)
    run, records = read(folder, tmp_path / "into")
    perplexity, odd = run.estimates
    assert perplexity.value == pytest.approx(exact)
    assert perplexity.method == "bootstrap"
    # The mean of the samples is not what was reported, so the samples do not speak for it.
    assert (odd.value, odd.interval, odd.method) == (0.9, None, "as reported")
    assert [score.metric for score in records[0].scores] == ["word_perplexity"]
    assert records[0].requests[0].window == "disjoint"
    other = compare(
        as_runs([folder, _larger(tmp_path, rows, reported)], tmp_path / "into2"), find_metric, metric="word_perplexity"
    )
    assert other.tasks[0].estimates[0].value == pytest.approx(exact)


def _larger(tmp_path, rows, reported):
    folder = harness_task(tmp_path / "larger", "wiki", "loglikelihood_rolling", reported, rows)
    path = folder / "results_2026.json"
    path.write_text(path.read_text().replace("org/small", "org/large"))
    return folder


def test_last_word_perplexity_is_not_averaged(tmp_path):
    totals = [-2.0, -5.0, -0.5]
    rows = [
        ([[f"a {i}", " word"]], [[[str(t), "True"]]], {"perplexity": t, "acc": 1.0, "metrics": ["perplexity", "acc"]})
        for i, t in enumerate(totals)
    ]
    exact = math.exp(-sum(totals) / 3)
    run, records = read(
        harness_task(tmp_path / "l", "lambada", "loglikelihood", {"perplexity,none": exact, "acc,none": 1.0}, rows),
        tmp_path / "into",
    )
    assert [(e.metric, e.method) for e in run.estimates] == [("perplexity", "bootstrap"), ("acc", "wilson")]
    assert run.estimates[0].value == pytest.approx(exact)
    assert records[0].outputs[0].greedy


def test_filters_of_one_document_are_metrics_of_one_sample(tmp_path):
    rows = []
    for name, value in (("strict", 0.0), ("loose", 1.0)):
        for i in range(2):
            fields = {
                "filter": name,
                "exact_match": value,
                "metrics": ["exact_match"],
                "doc_id": i,
                "doc_hash": f"{i:064x}",
            }
            rows.append(([[f"q {i}", {"until": ["\n"], "max_gen_toks": 9}]], [[f"answer {i}"]], fields))
    reported = {"exact_match,strict": 0.0, "exact_match,loose": 1.0}
    run, records = read(harness_task(tmp_path / "l", "maths", "generate_until", reported, rows), tmp_path / "into")
    assert {e.metric: e.value for e in run.estimates} == {"exact_match,strict": 0.0, "exact_match,loose": 1.0}
    assert len(records) == 2
    assert records[1].outputs[0].text == "answer 1"
    assert records[1].requests[0].decoding.stop_strings == ("\n",)
    assert run.view == "generate"


def test_a_number_that_the_samples_do_not_give_is_not_taken_over(tmp_path):
    run, records = read(harness(tmp_path / "l", accuracy=0.9), tmp_path / "into")
    assert (run.estimates[0].value, run.estimates[0].method, run.estimates[0].interval) == (0.9, "as reported", None)
    assert records[0].scores == ()


def test_without_samples_the_numbers_stand_as_reported(tmp_path):
    folder = harness(tmp_path / "l")
    next(folder.glob("samples_*")).unlink()
    run, records = read(folder, tmp_path / "into")
    assert (run.estimates[0].value, run.estimates[0].n, run.estimates[0].interval) == (0.75, 4, None)
    assert not records


def test_of_two_logs_of_one_model_the_later_counts(tmp_path, capsys):
    harness(tmp_path / "l", time="2026-01-01T00-00-00.0", flips=(0,))
    harness(tmp_path / "l", time="2026-01-03T00-00-00.0")
    run, _ = read(tmp_path / "l", tmp_path / "into")
    assert run.estimates[0].value == 0.75
    assert "older and left out" in capsys.readouterr().err


def test_a_page_is_made_of_logs(tmp_path):
    [found] = as_runs([harness(tmp_path / "l")], tmp_path / "into")
    page = write_report(found).read_text()
    assert "Which animal barks?" in page
    assert "lm-eval 0.4.13" in page


# --------------------------------------------------------------------------------- Inspect and lighteval


def test_inspect_logs_in_both_forms(tmp_path):
    log = inspect_log(wrong=(1,))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "2026_animals.json").write_text(json.dumps(log))
    (tmp_path / "b").mkdir()
    other = inspect_log(model="openai/large")
    other["samples"][2] |= {"error": {"message": "sandbox\ndied"}, "scores": {}}
    with zipfile.ZipFile(tmp_path / "b" / "x.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps({k: v for k, v in other.items() if k != "samples"}))
        for sample in other["samples"]:
            archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
    run, records = read(tmp_path / "a", tmp_path / "into")
    assert (run.estimates[0].metric, run.estimates[0].value, run.estimates[0].n) == ("choice", 0.75, 4)
    assert records[0].outputs[0].text == "ANSWER: B"
    assert records[0].sample.gold == (1,)
    large, records = read(tmp_path / "b" / "x.eval", tmp_path / "into")
    assert (large.estimates[0].value, large.estimates[0].n, large.estimates[0].n_failed) == (1.0, 3, 1)
    assert Failure(reason="sandbox died") in [record.outputs[0] for record in records]
    found = compare(as_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "into2"), find_metric)
    assert found.tasks[0].n_shared == 4
    assert found.tasks[0].pairs[0].difference.n == 3


def test_inspect_epochs_are_averaged(tmp_path):
    log = inspect_log()
    log["samples"] += [s | {"epoch": 2, "scores": {"choice": {"value": "I"}}} for s in log["samples"][:2]]
    log["results"]["scores"][0]["metrics"]["accuracy"]["value"] = 0.75
    (tmp_path / "x_y.json").write_text(json.dumps(log))
    run, records = read(tmp_path / "x_y.json", tmp_path / "into")
    assert run.estimates[0].value == 0.75
    assert sorted(r.scores[0].value for r in records) == [0.5, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("later", [False, True])
def test_lighteval_details(tmp_path, later):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    stamp, task = "2026-01-02T03-04-05.000006", "leaderboard|animals|0"
    results = tmp_path / "results" / "org" / "small" / f"results_{stamp}.json"
    details = tmp_path / "details" / "org" / "small" / stamp / f"details_{task}_{stamp}.parquet"
    for path in (results, details):
        path.parent.mkdir(parents=True)
    general = {"model_name": "org/small", "model_dtype": "torch.bfloat16", "lighteval_sha": "abc"}
    content = {
        "config_general": general,
        "results": {task: {"acc": 0.75, "acc_stderr": 0.25}, "all": {"acc": 0.75}},
        "versions": {task: 0},
    }
    results.write_text(json.dumps(content))
    pq.write_table(pa.Table.from_pylist(lighteval_rows(later, wrong=(3,))), details)
    run, records = read(tmp_path, tmp_path / "into")
    assert (run.task.name, run.estimates[0].value, run.estimates[0].n) == (task, 0.75, 4)
    assert (run.model.name, run.model.dtype) == ("org/small", "bfloat16")
    assert records[0].sample.input == "Which animal barks?"
    assert records[0].sample.gold == (1,)
    assert len(records[0].outputs) == int(later)


# ---------------------------------------------------------------------------------------- damaged and hostile


def damaged(folder, how):
    harness(folder)
    results, samples = next(folder.glob("results_*")), next(folder.glob("samples_*"))
    lines = samples.read_text().splitlines()
    first = json.loads(lines[0])
    if how == "cut results":
        results.write_text(results.read_text()[:200])
    elif how == "results are a list":
        results.write_text(json.dumps(json.loads(results.read_text()) | {"results": []}))
    elif how == "task is a number":
        results.write_text(json.dumps(json.loads(results.read_text()) | {"results": {"animals": 3}}))
    elif how == "cut line":
        samples.write_text(samples.read_text()[:-40])
    elif how == "line is a list":
        samples.write_text("[1]\n")
    elif how == "no arguments":
        first.pop("arguments")
        samples.write_text(json.dumps(first) + "\n")
    elif how == "odd arguments":
        samples.write_text(json.dumps(first | {"arguments": {"gen_args_0": 5}}) + "\n")
    elif how == "fewer answers":
        samples.write_text(json.dumps(first | {"resps": []}) + "\n")
    elif how == "deep":
        samples.write_text("[" * 100_000 + "\n")
    return folder


@pytest.mark.parametrize(
    "how",
    [
        "cut results", "results are a list", "task is a number", "cut line", "line is a list", "no arguments",
        "odd arguments", "fewer answers", "deep",
    ],
)  # fmt: skip
def test_damaged_logs_are_one_line_that_names_the_file(tmp_path, how):
    with pytest.raises(UserError) as error:
        as_runs([damaged(tmp_path / "l", how)], tmp_path / "into")
    assert str(tmp_path / "l") in str(error.value)
    assert "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.eval").write_bytes(b"PK no zip")
    (tmp_path / "y.json").write_text('{"a": 1}')
    (tmp_path / "z.txt").write_text("hello")
    for name in ("x.eval", "y.json", "z.txt"):
        with pytest.raises(UserError, match=name):
            as_runs([tmp_path / name], tmp_path / "into")
    (tmp_path / "empty").mkdir()
    assert as_runs([tmp_path / "empty"], tmp_path / "into") == [tmp_path / "empty"]


def test_nothing_in_a_log_is_evaluated(tmp_path):
    trap = tmp_path / "trap"
    code = f"__import__('pathlib').Path({str(trap)!r}).write_text('x')"
    folder = harness(tmp_path / "l", model=code)
    path = next(folder.glob("samples_*"))
    row = json.loads(path.read_text().splitlines()[0])
    row |= {"target": code, "doc": {"{{" + code + "}}": code}, "resps": [[code]] * 3, "acc": code}
    path.write_text(json.dumps(row) + "\n")
    [found] = as_runs([folder], tmp_path / "into")
    write_report(found)
    assert not trap.exists()
    assert read_run(find_runs(found)[0]).estimates[0].method == "as reported"


def test_numbers_that_json_does_not_have_are_missing(tmp_path):
    folder = harness(tmp_path / "l")
    path = next(folder.glob("samples_*"))
    path.write_text(path.read_text().replace('"-4.0"', '"-inf"'))
    results = next(folder.glob("results_*"))
    results.write_text(results.read_text().replace('"acc_stderr,none"', '"other,none": NaN, "acc_stderr,none"'))
    run, records = read(folder, tmp_path / "into")
    assert isinstance(records[0].outputs[0], Failure)
    assert {e.metric: e.value for e in run.estimates} == {"acc": 0.75, "other": None}


def test_reading_logs_needs_no_torch(tmp_path):
    import subprocess

    folder = harness(tmp_path / "l")
    code = (
        "import sys; from pathlib import Path; from lydite.logs import as_runs\n"
        "as_runs([Path(sys.argv[1])], Path(sys.argv[2]))\n"
        "assert not {'torch', 'transformers', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), str(tmp_path / "into")], check=True)
