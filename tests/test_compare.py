"""Comparing run folders: what is paired, what is refused, what is said, and that the numbers are those of the statistics."""

import csv
import io
import subprocess
import sys
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.cells import cell_len

from lydite.cli import compare_tables
from lydite.cli.app import main
from lydite.compare import Comparison, compare
from lydite.errors import RunError
from lydite.evaluate import evaluate
from lydite.runs import read_run, read_samples, write_groups, write_json, write_samples
from lydite.stats import holm, mcnemar, paired_difference
from lydite.types import GroupEstimates, Metric, MetricInfo, Sample, Score
from tests.fakes import FakeModel, choice_task, samples


def know_none(run, name):
    return None


def model(name="a", rule="causal", family="causal", dtype="float32", fail=(), **changes):
    made = FakeModel(name, fail=fail)
    made.info = msgspec.structs.replace(made.info, rule=rule, family=family, dtype=dtype, **changes)
    return made


def skilled(skill, seed=0, clusters=None, number=60, name="coin", **changes):
    """A task whose scores are drawn: right with probability `skill`, the same for whoever calls with this seed."""
    draws = np.random.default_rng(seed).random(number) < skill
    right = {f"s{i}": float(value) for i, value in enumerate(draws)}
    changes.setdefault(
        "samples",
        lambda split: [
            msgspec.structs.replace(sample, cluster=clusters and str(i // clusters))
            for i, sample in enumerate(samples(number))
        ],
    )

    def score(sample, outputs):
        return [Score(sample_id=sample.id, metric="acc", value=right[sample.id])]

    return choice_task(number, name=name, score=score, **changes)


def rewrite(leaf, **changes):
    """Changes fields of a stored Run."""
    write_json(leaf / "run.json", msgspec.structs.replace(read_run(leaf), **changes))


def rewrite_task(leaf, **changes):
    rewrite(leaf, task=msgspec.structs.replace(read_run(leaf).task, **changes))


@pytest.fixture
def two(tmp_path):
    """OUT with models a (skill 0.9) and b (0.6) on one task."""
    evaluate(model("a"), skilled(0.9, 1), out=tmp_path)
    evaluate(model("b"), skilled(0.6, 2), out=tmp_path)
    return tmp_path


def values(leaf):
    return {record.id: record.scores[0].value for record in read_samples(leaf)}


def test_two_models_on_one_task(two):
    found = compare([two], know_none)
    assert [system.label for system in found.systems] == ["a", "b"]
    [row] = found.tasks
    [pair] = row.pairs
    a, b = values(two / "a" / "coin"), values(two / "b" / "coin")
    a_only, b_only = sum(a[i] > b[i] for i in a), sum(a[i] < b[i] for i in a)
    assert (pair.a, pair.b, pair.difference.a_only, pair.difference.b_only) == ("a", "b", a_only, b_only)
    assert pair.difference.value == pytest.approx((a_only - b_only) / 60)
    assert pair.difference.p == pair.p_holm == pytest.approx(mcnemar(a_only, b_only))
    own = [read_run(two / name / "coin").estimates[0] for name in row.systems]
    for mine, theirs in zip(row.estimates, own, strict=True):
        assert (mine.value, mine.interval, mine.n, mine.chance) == (theirs.value, theirs.interval, 60, 0.5)
        assert mine.signature.split(" | ")[4:] == theirs.signature.split(" | ")[4:]
    assert row.systems == ("a", "b")
    assert row.ranks == ("a", "b")
    assert (row.n_shared, row.n_unshared, found.not_compared) == (60, 0, ())


def test_order_of_the_arguments_only_turns_signs(two):
    one = compare([two / "a", two / "b"], know_none)
    other = compare([two / "b" / "coin", two / "a" / "coin"], know_none)
    first, second = one.tasks[0].pairs[0].difference, other.tasks[0].pairs[0].difference
    assert (first.value, first.p) == (-second.value, second.p)
    assert one.tasks[0].systems == other.tasks[0].systems
    assert compare([two, two / "a"], know_none) == compare([two], know_none)


def test_only_shared_samples_count(tmp_path):
    evaluate(model("a"), skilled(0.9, 1), out=tmp_path)
    evaluate(model("b"), skilled(0.6, 2), out=tmp_path, limit=25)
    found = compare([tmp_path], know_none)
    [row] = found.tasks
    a, b = values(tmp_path / "a" / "coin"), values(tmp_path / "b" / "coin")
    assert (row.n_shared, row.n_unshared, len(b)) == (25, 35, 25)
    assert row.estimates[row.systems.index("a")].value == pytest.approx(sum(a[i] for i in b) / 25)
    assert row.estimates[row.systems.index("a")].chance is None
    assert {item.key: item.values for item in found.differences} == {
        "limit": {"a": None, "b": 25},
        "n_samples": {"a": 60, "b": 25},
    }
    assert "35 samples are not in all runs" in compare_tables.render(found, "table")


def test_samples_with_other_content_are_not_paired(two):
    leaf = two / "b" / "coin"
    records = list(read_samples(leaf))
    changed = [
        msgspec.structs.replace(r, sample=msgspec.structs.replace(r.sample, input="another question")) if i < 7 else r
        for i, r in enumerate(records)
    ]
    write_samples(leaf, changed)
    assert compare([two], know_none).tasks[0].n_shared == 53
    write_samples(leaf, [msgspec.structs.replace(r, sample=Sample(id=r.id)) for r in records])
    with pytest.raises(RunError, match="coin: a, b share no sample with the same id and content"):
        compare([two], know_none)


def test_failures_on_either_side_are_left_out_and_counted(tmp_path):
    evaluate(model("a", fail={"s1", "s2"}), choice_task(30), out=tmp_path)
    evaluate(model("b", fail={"s2", "s3", "s4"}), choice_task(30), out=tmp_path)
    [row] = compare([tmp_path], know_none).tasks
    failed = dict(zip(row.systems, (e.n_failed for e in row.estimates), strict=True))
    assert failed == {"a": 2, "b": 3}
    assert {e.n for e in row.estimates} == {row.pairs[0].difference.n} == {26}


def test_clusters_are_used(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        evaluate(model(name), skilled(0.7, seed, clusters=6), out=tmp_path)
    [row] = compare([tmp_path], know_none).tasks
    assert row.pairs[0].difference.test == "clustered permutation"
    assert row.pairs[0].difference.num_clusters == row.estimates[0].num_clusters == 10


REFUSALS = [
    ({"version": 2}, "ran versions 1 and 2 of the task"),
    ({"fingerprint": "other"}, "other data or templates"),
    (
        {"metrics": (MetricInfo(name="acc", higher_is_better=True, unit="proportion", version=2),)},
        "have acc@1 and acc@2",
    ),
    ({"metrics": (MetricInfo(name="f1", higher_is_better=True),)}, "have acc@1 and f1@1"),
]


@pytest.mark.parametrize(("change", "reason"), REFUSALS)
def test_what_cannot_be_paired_is_refused_in_one_line(two, change, reason):
    rewrite_task(two / "b" / "coin", **change)
    with pytest.raises(RunError, match=reason) as caught:
        compare([two], know_none)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("nothing to compare: coin: a, b ")


def test_likelihoods_by_different_rules_are_not_ranked(two):
    evaluate(model("bert", rule="pseudo", family="masked"), skilled(0.7, 3), out=two)
    evaluate(model("null", rule="uniform", family="null"), skilled(0.5, 4), out=two)
    found = compare([two], know_none)
    # The null model is compared with everybody.
    assert [set(row.systems) for row in found.tasks] == [{"a", "b", "null"}, {"bert", "null"}]
    [refusal] = found.not_compared
    assert refusal.systems == ("a", "bert")
    assert "rules causal and pseudo" in refusal.reason
    tests = [pair for row in found.tasks for pair in row.pairs]
    assert [pair.p_holm for pair in tests] == holm([pair.difference.p for pair in tests])


def test_rules_do_not_matter_to_generated_text(two):
    evaluate(model("bert", rule="pseudo", family="masked"), skilled(0.7, 3), out=two)
    for name in ("a", "b", "bert"):
        rewrite(two / name / "coin", view="generate")
    [row] = compare([two], know_none).tasks
    assert set(row.systems) == {"a", "b", "bert"}


def test_every_setting_that_differs_is_said(two):
    leaf = two / "b" / "coin"
    run = read_run(leaf)
    info = msgspec.structs.replace(run.model, dtype="bfloat16", settings={"bos": "added"}, parameters=5)
    task = msgspec.structs.replace(run.task, settings={"shots": 5}, source="elsewhere")
    environment = run.environment | {"torch": "0.1"}
    rewrite(
        leaf, model=info, task=task, environment=environment, config=run.config | {"seed": 3, "new": 1},
        status="interrupted", view="generate",
    )  # fmt: skip
    rewrite(two / "a" / "coin", view="generate")
    found = {item.key: item.values["b"] for item in compare([two], know_none).differences}
    assert found == {
        "model.dtype": "bfloat16", "model.settings.bos": "added", "task.settings.shots": 5, "task.source": "elsewhere",
        "environment.torch": "0.1", "seed": 3, "new": 1, "status": "interrupted",
    }  # fmt: skip
    shown = compare_tables.render(compare([two], know_none), "table")
    for key in found:
        assert key in shown


def test_a_different_view_is_said(two):
    rewrite(two / "b" / "coin", view="generate")
    [item] = compare([two], know_none).differences
    assert (item.key, item.values, item.tasks) == ("view", {"a": "score", "b": "generate"}, ("coin",))


def test_unfinished_runs_are_said_even_where_both_are(two):
    for name in ("a", "b"):
        rewrite(two / name / "coin", status="interrupted")
    assert [item.key for item in compare([two], know_none).differences] == ["status"]


def test_equal_differences_of_many_tasks_are_one(tmp_path):
    for name, dtype in (("a", "float32"), ("b", "bfloat16")):
        for task in ("one", "two"):
            evaluate(model(name, dtype=dtype), skilled(0.7, 1, name=task), out=tmp_path)
    [item] = compare([tmp_path], know_none).differences
    assert (item.key, item.tasks) == ("model.dtype", ("one", "two"))


def test_one_model_with_two_settings(tmp_path):
    for out in ("first", "second"):
        evaluate(model("a", dtype=out), skilled(0.7, len(out)), out=tmp_path / out)
    found = compare([tmp_path / "first", tmp_path / "second"], know_none)
    assert [system.label for system in found.systems] == ["a (first)", "a (second)"]
    moved = tmp_path / "runs"
    moved.mkdir()
    for out in ("first", "second"):
        (tmp_path / out / "a" / "coin").rename(moved / out)
    found = compare([moved / "first", moved / "second"], know_none)
    assert [Path(system.folders["coin"]).name for system in found.systems] == ["first", "second"]
    assert len({system.label for system in found.systems}) == 2


def test_missing_runs_and_metrics(two):
    evaluate(model("a"), skilled(0.9, 1, name="other"), out=two)
    found = compare([two], know_none)
    assert [(r.task, r.systems, r.reason) for r in found.not_compared] == [("other", ("b",), "has no run of it")]
    with pytest.raises(RunError, match="have no metric f1"):
        compare([two], know_none, metric="f1")
    with pytest.raises(RunError, match="only a has runs"):
        compare([two / "a"], know_none)
    with pytest.raises(RunError, match="no runs in"):
        compare([two / "nowhere"], know_none)


# ------------------------------------------------------------------------------------- corpus metrics


def _perplexity(sums):
    return np.exp(sums[..., 0] / sums[..., 1])


PPL = Metric(name="ppl", higher_is_better=False, finish=_perplexity)


def surprised(mean, seed, number=50):
    rng = np.random.default_rng(seed)
    table = {f"s{i}": (float(u * rng.normal(mean, 0.2)), float(u)) for i, u in enumerate(rng.integers(20, 80, number))}

    def score(sample, outputs):
        return [Score(sample_id=sample.id, metric="ppl", value=1.0, stats=table[sample.id])]

    return choice_task(number, name="text", score=score, metrics=(PPL,), chance=lambda sample: {})


def test_corpus_metrics_need_their_definition(tmp_path):
    evaluate(model("a"), surprised(3.0, 1), out=tmp_path)
    evaluate(model("b"), surprised(2.5, 1), out=tmp_path)
    asked = []

    def find(run, name):
        asked.append((run.task.name, name))
        return PPL

    [row] = compare([tmp_path], find, resamples=500, seed=3).tasks
    assert asked == [("text", "ppl")]
    assert (row.systems, row.higher_is_better) == (("b", "a"), False)
    stored = [
        [r.scores[0] for r in sorted(read_samples(tmp_path / m / "text"), key=lambda r: r.id)] for m in ("a", "b")
    ]
    assert row.pairs[0].difference == paired_difference(PPL, *stored, resamples=500, seed=3)
    with pytest.raises(RunError, match="definition of ppl@1"):
        compare([tmp_path], know_none)
    with pytest.raises(RunError, match="definition of ppl@1"):
        compare([tmp_path], lambda run, name: Metric(name="ppl", version=2, finish=_perplexity))


# -------------------------------------------------------------------------- several models, many tests


def test_letters_and_correction_over_tasks(tmp_path):
    for name, skill in (("good", 0.95), ("fair", 0.92), ("poor", 0.4)):
        for task, seed in (("one", 1), ("two", 2), ("three", 3)):
            evaluate(model(name), skilled(skill, seed + 10 * len(name), name=task), out=tmp_path)
    found = compare([tmp_path], know_none)
    tests = [pair for row in found.tasks for pair in row.pairs]
    assert len(tests) == 9
    assert [pair.p_holm for pair in tests] == holm([pair.difference.p for pair in tests])
    for row in found.tasks:
        letters = dict(zip(row.systems, row.ranks, strict=True))
        for pair in row.pairs:
            shares = bool(set(letters[pair.a]) & set(letters[pair.b]))
            assert shares == (pair.p_holm >= 0.05)
        assert letters["poor"] == "b"
    assert "1-2:" in compare_tables.render(found, "table")


def test_letters_follow_the_corrected_p(tmp_path):
    """Eight samples against one: p is 0.039, but not when it is one of three such tests."""
    for name, right in (("a", range(8)), ("b", [9])):
        table = {f"s{i}": float(i in right) for i in range(30)}

        def score(sample, outputs, table=table):
            return [Score(sample_id=sample.id, metric="acc", value=table[sample.id])]

        for task in ("one", "two", "three"):
            evaluate(model(name), choice_task(30, name=task, score=score), out=tmp_path)
    [first, *_] = compare([tmp_path], know_none).tasks
    [pair] = first.pairs
    assert (pair.difference.p, pair.p_holm) == (pytest.approx(0.0390625), pytest.approx(3 * 0.0390625))
    assert first.ranks == ("a", "a")
    [alone] = compare([tmp_path / "a" / "one", tmp_path / "b" / "one"], know_none).tasks
    assert alone.ranks == ("a", "b")


def group(name, members, parts, weighting):
    return GroupEstimates(model="a", group=name, members=members, parts=parts, weighting=weighting, estimates=())


def test_groups_are_pooled_as_they_nest(tmp_path):
    numbers = {"one": 20, "two": 60, "three": 40}
    for name, skill in (("a", 0.8), ("b", 0.6)):
        for seed, (task, number) in enumerate(numbers.items()):
            evaluate(model(name), skilled(skill, seed + ord(name), number=number, name=task), out=tmp_path)
    inner = group("inner", ("one", "two"), ("one", "two"), "samples")
    outer = group("outer", ("one", "two", "three"), ("inner", "three"), "tasks")
    apart = group("apart", ("one", "missing"), (), "samples")
    write_groups(tmp_path, [inner, outer, apart])
    found = compare([tmp_path], know_none)
    rows = {row.name: row for row in (*found.tasks, *found.groups)}
    assert set(rows) == {"one", "two", "three", "inner", "outer"}
    by_task = {name: rows[name].pairs[0].difference for name in numbers}
    pooled = rows["inner"].pairs[0].difference
    assert pooled.value == pytest.approx((20 * by_task["one"].value + 60 * by_task["two"].value) / 80)
    a_only, b_only = (sum(getattr(by_task[t], side) for t in ("one", "two")) for side in ("a_only", "b_only"))
    assert (pooled.test, pooled.p) == ("mcnemar", pytest.approx(mcnemar(a_only, b_only)))
    whole = rows["outer"].pairs[0].difference
    assert whole.value == pytest.approx((pooled.value + by_task["three"].value) / 2)
    assert whole.stderr == pytest.approx(np.hypot(pooled.stderr, by_task["three"].stderr) / 2)
    assert rows["outer"].members == ("one", "two", "three")
    assert [(r.task, r.reason[:17]) for r in found.not_compared] == [("apart", "were not compared")]


def test_group_of_different_metrics_is_the_average_of_headlines(tmp_path):
    percent = Metric(name="percent")

    def as_percent(sample, outputs):
        return [Score(sample_id=sample.id, metric="percent", value=0.25 * int(sample.id[1:]) % 3)]

    for name in ("a", "b"):
        evaluate(model(name), skilled(0.8, ord(name)), out=tmp_path)
        evaluate(model(name), choice_task(60, name="two", score=as_percent, metrics=(percent,)), out=tmp_path)
    write_groups(tmp_path, [group("both", ("coin", "two"), (), "tasks")])
    [row] = compare([tmp_path], know_none).groups
    assert row.metric == "average"


# ------------------------------------------------------------------------------------ the command line


def run_cli(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["compare", *map(str, arguments)])
    return stop.value.code or 0, *capsys.readouterr()


def test_json_can_be_read_back(two, capsys):
    code, out, _ = run_cli(capsys, two, "--json")
    assert code == 0
    found = msgspec.json.decode(out, type=Comparison)
    assert found.tasks[0].pairs[0].difference.test == "mcnemar"
    assert found.tasks[0].pairs[0].signature.startswith("acc difference 0.")


@pytest.mark.parametrize("width", [80, 120])
def test_table_fits_the_screen(tmp_path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    long = "a_very_long_name_of_a_task_that_does_not_fit_anywhere_at_all"
    for name, seed in (("an-extremely-long-name-of-a-model-1B-instruct", 1), ("模型", 2)):
        evaluate(model(name), skilled(0.7, seed, name=long), out=tmp_path)
    code, out, _ = run_cli(capsys, tmp_path)
    assert code == 0
    assert all(cell_len(line) <= width for line in out.splitlines())
    [first] = [line for line in out.splitlines() if " 1-2 " in line]
    found = compare([tmp_path], know_none).tasks[0].pairs[0].difference
    assert f"{found.interval[0]:.3f}, {found.interval[1]:.3f}" in first
    assert f"{found.a_only}/{found.b_only}" in first


def test_no_screen_is_so_narrow_that_numbers_are_cut(two, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    _, out, _ = run_cli(capsys, two)
    found = compare([two], know_none).tasks[0].pairs[0].difference
    assert f"[{found.interval[0]:.3f}, {found.interval[1]:.3f}]" in out


def test_a_spreadsheet_runs_no_name(tmp_path, capsys):
    for name, seed in (("=a", 1), ("@b", 2)):
        evaluate(model(name), skilled(0.7, seed, name="-1+1"), out=tmp_path)
    _, out, _ = run_cli(capsys, tmp_path, "--format", "csv")
    [line] = csv.DictReader(io.StringIO(out))
    assert (line["name"], line["a"], line["b"]) == ("'-1+1", "'=a", "'@b")
    assert abs(float(line["difference"])) <= 1


def test_other_formats(two, capsys):
    code, out, _ = run_cli(capsys, two, "--format", "csv")
    [line] = csv.DictReader(io.StringIO(out))
    assert (code, line["a"], line["b"], line["test"]) == (0, "a", "b", "mcnemar")
    assert float(line["difference"]) == pytest.approx(float(line["value_a"]) - float(line["value_b"]))
    code, out, _ = run_cli(capsys, two, "--format", "markdown")
    lines = out.splitlines()
    for number, text, after in zip(count(), lines, lines[1:], strict=False):
        if set(after) <= set("|- ") and after.startswith("|"):
            assert text.count("|") == after.count("|"), lines[number]
    assert "mcnemar p" in out
    code, out, _ = run_cli(capsys, two, "--format", "latex")
    assert out.count(r"\begin{tabular}") == out.count(r"\end{tabular}") == 2


def test_foreign_names_are_escaped(tmp_path, capsys):
    for name, seed in (("50%_<b>&|\x1b[2J", 1), ("b", 2)):
        evaluate(model(name), skilled(0.7, seed, name="a|b_c"), out=tmp_path)
    assert r"a\|b\_c" in run_cli(capsys, tmp_path, "--format", "markdown")[1]
    assert r"a$|$b\_c" in run_cli(capsys, tmp_path, "--format", "latex")[1]
    for format_ in ("table", "markdown", "latex", "csv"):
        assert "\x1b" not in run_cli(capsys, tmp_path, "--format", format_)[1]


def test_mistakes_are_one_line(two, capsys):
    for arguments, said in (
        ([two / "a"], "only a has runs"),
        ([two, "--format", "html"], "known: table, markdown, latex, csv"),
        ([two, "--level", "95"], "share like 0.95"),
        ([two, "--metric", "bleu"], "have no metric bleu"),
    ):
        code, out, err = run_cli(capsys, *arguments)
        assert (code, out) == (1, "")
        assert said in err
        assert err.count("\n") == 1


def test_metrics_come_from_the_task(tmp_path, capsys):
    """A perplexity of a built-in task is found by the task's name, without its data."""
    from lydite.metrics.perplexity import PERPLEXITY, rate_score

    def score(sample, outputs):
        return [rate_score(PERPLEXITY, sample.id, -sum(o.total for o in outputs), 1)]

    for name in ("a", "b"):
        evaluate(model(name), choice_task(20, name="lambada", score=score, metrics=(PERPLEXITY,)), out=tmp_path)
    code, out, _ = run_cli(capsys, tmp_path, "--metric", "perplexity", "--resamples", "200", "--json")
    found = msgspec.json.decode(out, type=Comparison)
    assert code == 0
    assert found.tasks[0].pairs[0].difference.method == "paired bootstrap"
    assert not found.tasks[0].higher_is_better


def test_comparing_needs_no_torch(two):
    code = (
        "import sys\nfrom lydite.cli.app import main\n"
        f"try:\n    main(['compare', {str(two)!r}])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print('HEAVY', sorted({'torch', 'transformers', 'matplotlib', 'scipy.stats'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
