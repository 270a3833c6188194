"""The plain sentences: every branch says only what the numbers carry."""

import pytest

from lydite.report.digest import Digest, Light
from lydite.report.rows import model_names, rows
from lydite.report.summary import paragraph, warnings
from lydite.types import Score
from tests.report.records import estimate, group, run

HIGH, LOW, CLOSE = estimate(0.9, chance=0.5), estimate(0.5, chance=0.5), estimate(0.88, chance=0.5)


def said(table, groups=(), null=()):
    """`table`: task -> model -> estimate."""
    runs = [run(task, name, (value,)) for task, models in table.items() for name, value in models.items()]
    return paragraph(rows(runs, groups), model_names(runs), null)


def test_one_model():
    assert said({"x": {"a": HIGH}, "y": {"a": LOW}}) == "Above chance, where guessing has a meaning: a on 1 of 2 tasks."
    assert said({"x": {"a": HIGH}}) == "Above chance, where guessing has a meaning: a on 1 of 1 task."
    assert said({"x": {"a": estimate(0.3)}}) == ""


def test_a_lead_on_one_task():
    assert said({"x": {"a": HIGH, "b": LOW}}).startswith("a leads. Its lead is larger than its uncertainty.")
    assert said({"x": {"a": HIGH, "b": CLOSE}}).startswith("a leads. No lead is larger than its uncertainty.")
    assert said({"x": {"a": HIGH, "b": HIGH}}).startswith("No model leads on any of 1 task.")


def test_leads_on_several_tasks():
    every = {task: {"a": HIGH, "b": LOW} for task in "xyz"}
    assert said(every).startswith("a leads on 3 of 3 tasks. The lead is larger than its uncertainty on all 3 of them.")
    some = every | {"z": {"a": HIGH, "b": CLOSE}}
    assert said(some).startswith("a leads on 3 of 3 tasks. 2 of its leads are larger than the uncertainty.")
    both = every | {"z": {"a": LOW, "b": HIGH}}
    assert said(both).startswith("a leads on 2 of 3 tasks. 3 leads are larger than the uncertainty: 2 by a and 1 by b.")
    tied = {"x": {"a": HIGH, "b": LOW}, "y": {"a": LOW, "b": HIGH}}
    assert said(tied).startswith("a and b lead on 1 of 2 tasks each.")


def test_many_top_rows_are_called_benchmarks():
    table = {task: {"a": HIGH, "b": LOW} for task in "vwxyz"}
    assert said(table).startswith("a leads on 5 of 5 benchmarks.")
    grouped = [group("g", ("v", "w"), HIGH, "a"), group("g", ("v", "w"), LOW, "b")]
    assert said(table, grouped).startswith("a leads on 4 of 4 benchmarks.")


def test_null_models_never_lead():
    table = {"x": {"a": HIGH, "null": LOW}, "y": {"a": LOW, "null": HIGH}, "z": {"a": HIGH, "null": CLOSE}}
    beaten = "a beats null by more than the uncertainty on 1 of 3 tasks. Above chance, where guessing has a meaning: a on 2 of 3 tasks."
    assert said(table, null=["null"]) == beaten
    assert said({"x": table["x"]}, null=["null"]).startswith(
        "a beats null by more than the uncertainty on the one task."
    )
    three = {"x": {"a": HIGH, "b": LOW, "null": LOW}, "y": {"a": LOW, "b": LOW, "null": HIGH}}
    assert said(three, null=["null"]).startswith(
        "a leads on 1 of 2 tasks. The lead is larger than its uncertainty on that one."
    )
    assert said({"x": {"m": HIGH, "n": LOW}}, null=["m", "n"]).startswith("m leads.")


def test_nothing_shared_and_below_chance():
    assert said({"x": {"a": HIGH}, "y": {"b": HIGH}}).startswith("No two models were judged on the same task.")
    assert "Worse than chance: a on 1." in said({"x": {"a": estimate(0.3, chance=0.5)}})


def digest(one, values, **counts):
    found = Digest(one, one.model.name, None, **counts)
    for i, value in enumerate(values):
        score = Score(sample_id=str(i), metric="acc", value=value, status="ok" if value is not None else "error")
        found.rows.append(Light(str(i), score, None, {}, None, None, None))
    return found


def test_a_clean_full_run_needs_no_warning():
    assert warnings([digest(run(), [1.0, 0.0])], rows([run()], [])) == []


def test_warnings_put_missing_numbers_first():
    one = digest(run(limit=5), [1.0], num_truncated=4, num_cut=1, num_no_answer=2, num_spanned=3)
    two = digest(run("sums", status="interrupted", n_samples=9), [1.0, None])
    two.failures["it broke"] = 1
    found = warnings([one, two], [])
    assert [w.level for w in found] == ["error", "error", "note", "note", "note", "note", "note"]
    assert found[0].places == ("sums with small (2 of 9 samples)",)
    assert found[1].text == "1 answer failed and is counted as failed, not as wrong. Reason: it broke (1)."
    assert "1 of 2 runs took at most 5 samples" in found[2].text
    assert "4 answers had context cut off" in found[3].text


@pytest.mark.parametrize("change", [{"rule": "pseudo"}, {"fingerprint": "t2"}, {"view": "generate"}])
def test_other_terms_are_told(change):
    found = warnings([], rows([run(name="a"), run(name="b", **change)], []))
    assert "different terms" in found[0].text
    assert found[0].places == ("colours",)
