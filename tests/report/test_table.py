"""The table of results: it fits, shortens no number, and marks only what the numbers carry."""

import csv
import re
from io import StringIO

import msgspec
import pytest
from rich.cells import cell_len

from lydite.report import tables
from lydite.report.rows import best, leader, rows, versus_chance
from tests.report.records import estimate, group, run

HOSTILE = "a|b\x1b[31m & <c> \\d_{e}%$#~^‮文\nz"


def two_models(first, second, **options):
    return [run(name="a", estimates=(first,), **options), run(name="b", estimates=(second,), **options)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 9])
@pytest.mark.parametrize("width", [80, 100, 160])
def test_fits_and_keeps_every_number(count, width):
    names = [f"an-organisation/a-model-with-a-long-name-{i}-instruct-模型名称" for i in range(count)]
    runs = [
        run(task, name, (estimate(0.1 + i / 16, 0.03125, chance=0.25, n=9000 + i),))
        for i, name in enumerate(names)
        for task in ("determiner_noun_agreement_with_adjective_1", "语法一致性判断任务之长名字", "x")
    ]
    lines = tables(runs, width=width).split("\n")
    assert max(map(cell_len, lines)) <= width
    for i in range(count):
        value = f"{0.1 + i / 16:.3f}"[1:]
        assert sum(len(re.findall(rf"(?<![\d.])0?\{value}", line)) for line in lines) >= 3, value


def test_no_screen_is_so_narrow_that_numbers_are_cut():
    shown = tables([run("a_task_with_a_name", "m", (estimate(0.625, 0.03125, chance=0.25, n=9000),))], width=20)
    assert "0.625 [0.594, 0.656]" in shown
    assert "n 9000" in shown
    assert "chance 0.250" in shown
    assert "a_task_with_a_name" in shown


def test_a_narrow_screen_keeps_intervals_of_all_models():
    runs = two_models(estimate(0.9, 0.04), estimate(0.5, 0.04, chance=0.5), task="a_task_with_a_name")
    lines = tables(runs, width=40).splitlines()
    assert any("a 0.900* [0.860, 0.940]" in line for line in lines)
    assert any("b 0.500  [0.460, 0.540]" in line for line in lines)
    assert all(len(line) <= 40 for line in lines)


def test_perplexities_keep_their_digits():
    shown = tables([run(estimates=(estimate(110.57, 20.3, metric="perplexity"),))], width=80)
    assert "111 [90, 131]" in shown
    both = tables(two_models(estimate(20.31, 1.0, metric="ppl"), estimate(110.5, 20.3, metric="ppl")), width=80)
    assert "20.3" in both
    assert "110.5" in both


def test_groups_stand_above_members_and_nest():
    runs = [run(task) for task in ("cmmlu_law", "arc", "cmmlu_art", "cmmlu_physics")]
    groups = [
        group("cmmlu_humanities", ("cmmlu_law", "cmmlu_art"), estimate(0.3)),
        group("cmmlu_stem", ("cmmlu_physics",), estimate(0.4)),
        group("cmmlu", ("cmmlu_law", "cmmlu_art", "cmmlu_physics"), estimate(0.35)),
    ]
    order = [(depth, row.label) for root in rows(runs, groups) for depth, row in root.walk()]
    assert order == [(0, "cmmlu"), (1, "humanities"), (2, "law"), (2, "art"), (1, "stem"), (2, "physics"), (0, "arc")]
    brief = tables(runs, groups, width=80)
    assert "humanities" in brief
    assert "physics" not in brief
    assert "physics" in tables(runs, groups, width=80, all=True)


def test_parts_say_where_a_member_stands_and_in_which_order():
    runs = [run(task) for task in ("a_en", "a_zh", "b_en", "b_zh")]
    groups = [
        msgspec.structs.replace(group("a", ("a_en", "a_zh"), estimate(0.3)), parts=("a_zh", "a_en")),
        msgspec.structs.replace(group("zh", ("a_zh", "b_zh"), estimate(0.3)), parts=("a_zh", "b_zh")),
        msgspec.structs.replace(
            group("all", ("a_en", "a_zh", "b_en", "b_zh"), estimate(0.4)), parts=("b_en", "b_zh", "a")
        ),
    ]
    order = [(depth, row.name) for root in rows(runs, groups) for depth, row in root.walk()]
    assert order == [(0, "all"), (1, "b_en"), (1, "a"), (2, "a_zh"), (2, "a_en"), (1, "zh"), (2, "b_zh")]


def test_group_of_one_member_and_equal_groups():
    groups = [group("inner", ("a",), estimate(0.3)), group("outer", ("a",), estimate(0.3))]
    order = [(depth, row.name) for root in rows([run("a")], groups) for depth, row in root.walk()]
    assert order == [(0, "outer"), (1, "inner"), (2, "a")]


def test_overlapping_groups_lose_nothing():
    runs = [run(task) for task in ("en_x", "zh_x", "en_y")]
    groups = [group("en", ("en_x", "en_y"), estimate(0.3)), group("x", ("en_x", "zh_x"), estimate(0.4))]
    names = sorted(row.name for root in rows(runs, groups) for _, row in root.walk())
    assert names == ["en", "en_x", "en_y", "x", "zh_x"]


def test_headline_only_unless_all():
    runs = [run(estimates=(estimate(0.7), estimate(0.6, metric="acc_norm")))]
    assert "acc_norm" not in tables(runs, width=80)
    assert "acc_norm" in tables(runs, width=80, all=True)


# 1.96 * hypot(0.03, 0.04) = 0.098: the standard errors make a 3-4-5 triangle.
@pytest.mark.parametrize(("gap", "named"), [(0.097, None), (0.099, "a")])
def test_best_needs_a_gap_above_its_uncertainty(gap, named):
    first, second = estimate(0.5 + gap, 1.96 * 0.03), estimate(0.5, 1.96 * 0.04)
    row = rows(two_models(first, second), [])[0]
    assert leader(row, "acc") == "a"
    assert best(row, "acc") == named
    assert ("*" in tables(two_models(first, second), width=100).split("\n")[1]) == (named is not None)


def test_lower_is_better():
    runs = two_models(estimate(30.0, 1.0, metric="ppl"), estimate(20.0, 1.0, metric="ppl"), lower=("ppl",))
    assert best(rows(runs, [])[0], "ppl") == "b"


def test_a_perfect_score_has_uncertainty():
    sure = msgspec.structs.replace(estimate(1.0), interval=(0.8, 1.0), stderr=0.0)
    assert best(rows(two_models(sure, estimate(0.95, 0.01)), [])[0], "acc") is None


def test_other_terms_are_never_ranked():
    high, low = estimate(0.9), estimate(0.1)
    mixed = [run(name="a", estimates=(high,), rule="causal"), run(name="b", estimates=(low,), rule="pseudo")]
    assert leader(rows(mixed, [])[0], "acc") is None
    other = [run(name="a", estimates=(high,), fingerprint="t1"), run(name="b", estimates=(low,), fingerprint="t2")]
    assert leader(rows(other, [])[0], "acc") is None


def test_null_models_are_ranked_with_any_rule():
    runs = [
        run(name="a", estimates=(estimate(0.9),), rule="pseudo"),
        run(name="b", estimates=(estimate(0.1),), rule="uniform"),
    ]
    runs[1] = msgspec.structs.replace(runs[1], model=msgspec.structs.replace(runs[1].model, family="null"))
    groups = [group("g", ("colours",), estimate(0.9), "a"), group("g", ("colours",), estimate(0.1), "b")]
    assert [best(row, "acc") for root in rows(runs, groups) for _, row in root.walk()] == ["a", "a"]


def test_versus_chance():
    assert versus_chance(estimate(0.52, 0.04, chance=0.5)) == "at"
    assert versus_chance(estimate(0.55, 0.04, chance=0.5)) == "above"
    assert versus_chance(estimate(0.45, 0.04, chance=0.5)) == "below"
    assert versus_chance(estimate(0.45, 0.04, chance=0.5), higher=False) == "above"
    assert versus_chance(estimate(0.45)) == ""


def test_colour_only_where_asked_for():
    runs = two_models(estimate(0.9), estimate(0.5, chance=0.5))
    assert "\x1b[" not in tables(runs, width=80)
    assert "\x1b[" in tables(runs, width=80, color=True)


def test_hostile_names_cannot_move_the_cursor():
    shown = tables([run(HOSTILE, HOSTILE)], width=80)
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_failed_and_missing():
    runs = [run(estimates=(estimate(None, failed=7),)), run("later", estimates=(), status="running")]
    shown = tables(runs, width=80)
    assert re.search(r"colours +acc +– +0 +7", shown)
    assert "later" in shown
    assert tables([], width=80).strip()


def test_same_model_twice_is_told_apart():
    runs = [run(estimates=(estimate(0.3),)), run(estimates=(estimate(0.9),))]
    runs[1] = msgspec.structs.replace(runs[1], id="ffffffff0000")
    shown = tables(runs, width=120)
    assert "0.300" in shown
    assert "0.900" in shown


def test_csv_is_complete():
    first = estimate(0.123456789, chance=0.25)
    runs = [run(HOSTILE, "a", (first, estimate(None, metric="f1", failed=3))), run("b", "a", (estimate(0.5),))]
    groups = [group("g", (HOSTILE, "b"), estimate(0.4), "a")]
    found = list(csv.DictReader(StringIO(tables(runs, groups, format="csv"))))
    assert [(line["kind"], line["metric"]) for line in found] == [
        ("group", "acc"),
        ("task", "acc"),
        ("task", "f1"),
        ("task", "acc"),
    ]
    assert float(found[1]["value"]) == first.value
    assert float(found[1]["low"]) == first.interval[0]
    assert found[1]["signature"] == first.signature
    assert found[2]["value"] == ""
    assert found[2]["n_failed"] == "3"


def test_markdown_is_escaped():
    shown = tables([run(HOSTILE, HOSTILE)], format="markdown")
    table = shown.split("\n\n")[0].strip().split("\n")
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {7}
    assert "\\<c\\>" in shown


def test_latex_is_escaped():
    runs = two_models(estimate(0.9), estimate(0.5), task=HOSTILE)
    shown = tables(runs, format="latex")
    body = [line for line in shown.split("\n") if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {6}
    assert r"\textbf{0.900 [0.860, 0.940]}" in shown
    assert r"\textbackslash{}d\_\{e\}\%\$\#\textasciitilde{}\textasciicircum{}" in shown


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t=", "＝"])
def test_a_spreadsheet_runs_no_name(sign):
    name = f'{sign}HYPERLINK("x")'
    value = msgspec.structs.replace(estimate(-0.5, metric=name), signature=f"{name} -0.5")
    [line] = csv.DictReader(StringIO(tables([run(name, name, (value,))], format="csv")))
    assert [line[key][:2] for key in ("model", "name", "metric", "signature")] == ["'" + sign.strip()] * 4
    assert (float(line["value"]), line["low"][0]) == (-0.5, "-")
