"""The drawings: numbers land where they belong, labels are foreign text, and only sensible slices are drawn."""

import re
import xml.etree.ElementTree as ET

import pytest

from lydite.report.breakdown import calibrations, documents, forests, members, slices
from lydite.report.digest import digest
from lydite.report.plots import Entry, forest
from lydite.report.rows import rows
from tests.report.records import choice, document, estimate, group, run, write_out


def lines(svg):
    """Horizontal strokes of a drawing as (x0, x1), and the x of its marks, by colour variable."""
    spans, marks = {}, {}
    for element in ET.fromstring(svg).iter():
        color = re.search(r"stroke: var\(--([\w-]+)\)", element.get("style", ""))
        if element.tag == "path" and color:
            points = re.fullmatch(r"M ([\d.]+) ([\d.]+)\s+L ([\d.]+) ([\d.]+)\s*", element.get("d") or "")
            if points and points[2] == points[4]:
                spans.setdefault(color[1], []).append((float(points[1]), float(points[3])))
        if element.tag == "use" and color:
            marks.setdefault(color[1], []).append(float(element.get("x")))
    return spans, marks


@pytest.mark.parametrize("labels", [("x", "y"), ("a label that stands above its row", "另一个很长的任务名字放在上面")])
def test_intervals_and_marks_are_to_scale(labels):
    values = [estimate(0.3, 0.1), estimate(0.6, 0.2)]
    entries = [Entry(label, ((0, value),)) for label, value in zip(labels, values, strict=True)]
    spans, marks = lines(forest("f", "title", entries))
    (low, high), (low_2, high_2) = spans["model-0"]
    first, second = marks["model-0"]
    assert first == pytest.approx((low + high) / 2)
    assert second == pytest.approx((low_2 + high_2) / 2)
    assert (high_2 - low_2) / (high - low) == pytest.approx(2.0)  # widths 0.4 and 0.2
    assert (second - first) / (high - low) == pytest.approx(1.5)  # 0.3 apart


def test_perplexities_far_apart_share_a_logarithmic_axis():
    values = [estimate(10.0, 1.0), estimate(100.0, 10.0), estimate(1000.0, 100.0)]
    _, marks = lines(forest("f", "title", [Entry(str(i), ((0, value),)) for i, value in enumerate(values)]))
    first, second, third = marks["model-0"]
    assert second - first == pytest.approx(third - second)


def test_at_chance_is_hollow():
    svg = forest("f", "t", [Entry("x", ((0, estimate(0.5, 0.1, chance=0.52)),))])
    assert "fill: var(--paper)" in svg
    assert "fill: var(--paper)" not in forest("f", "t", [Entry("x", ((0, estimate(0.5, 0.1, chance=0.3)),))])


def test_a_drawing_is_fit_for_the_page():
    svg = forest(
        "f",
        'say "<hi>"',
        [Entry("<b>$x_1$ & 石头", ((9, estimate(0.4)),), bold=True), Entry("none", ((0, estimate(None)),))],
    )
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'say "<hi>"'
    assert "<b>$x_1$ & 石头" in [element.text for element in root.iter("text")]
    assert not re.search(r"#[0-9a-f]{6}\b", re.sub(r'href="[^"]*"|id="[^"]*"', "", svg))
    assert "var(--model-1)" in svg  # the tenth model takes the second colour
    for element in root.iter():
        assert element.get("id", "f-").startswith("f-")
        assert element.tag not in ("style", "metadata", "script")


def read(tmp_path, table, groups=()):
    runs = [(one, records) for one, records in table]
    write_out(tmp_path, runs, groups)
    found = {}
    for one, _ in runs:
        folder = tmp_path / one.model.name / one.task.name
        found.setdefault(one.task.name, []).append(digest(one, one.model.name, folder, 5))
    return rows([one for one, _ in runs], groups), found, list(dict.fromkeys(one.model.name for one, _ in runs))


def test_slices_are_the_means_of_their_samples(tmp_path):
    records = [
        choice(
            str(i),
            totals=(-1.0, -2.0 if i % 4 else -0.5),
            metadata={"hue": "warm" if i % 2 else "cool", "same": "x", "own": str(i)},
        )
        for i in range(80)
    ]
    panels, left_out = slices(*read(tmp_path, [(run(), records)]))
    assert [panel.title for panel in panels] == ["colours: acc by hue ↑"]  # not by constants, not by unique labels
    assert left_out == 0
    spans, marks = lines(panels[0].svg)
    cool, warm = marks["model-0"]  # every fourth is wrong: 0.5 of the even ones, none of the odd ones
    assert warm > cool
    assert len(spans["model-0"]) == 2


def test_labels_that_only_name_the_task_are_left_out(tmp_path):
    table = [
        (run(task), [choice(f"{task}{i}", metadata={"subject": task}) for i in range(4)]) for task in ("art", "law")
    ]
    panels, _ = slices(*read(tmp_path, table, [group("all", ("art", "law"), estimate(0.5))]))
    assert panels == []


def test_metrics_that_are_no_mean_are_not_sliced(tmp_path):
    records = [document(str(i), "text", metadata={"kind": "prose" if i % 2 else "verse"}) for i in range(4)]
    one = run(estimates=(estimate(1.0, metric="bits_per_byte"),))
    panels, _ = slices(*read(tmp_path, [(one, records)]))
    assert panels == []


def test_members_are_drawn_once(tmp_path):
    names = [f"t{i}" for i in range(6)]
    runs = [run(name) for name in names]
    inner, outer = group("inner", ("t0", "t1"), estimate(0.5)), group("outer", ("t0", "t1", "t2"), estimate(0.5))
    top = rows(runs, [inner, outer])
    assert [row.name for row in top] == ["outer", "t3", "t4", "t5"]
    assert [panel.title for panel in forests(top, ["small"])] == ["acc ↑"]
    assert [panel.title for panel in members(top, ["small"])] == ["outer: acc ↑", "inner: acc ↑"]
    few = rows(runs[:3], [inner, outer])
    assert [panel.title for panel in members(few, ["small"])] == ["inner: acc ↑"]  # outer's are in the forest


def test_metrics_do_not_share_an_axis():
    runs = [run("x"), run("y", estimates=(estimate(12.0, metric="perplexity"),), lower=("perplexity",))]
    assert [panel.title for panel in forests(rows(runs, []), ["small"])] == ["acc ↑", "perplexity ↓"]


def test_calibration_and_documents(tmp_path):
    table = [
        (run("pairs", "a"), [choice(str(i), totals=(0.0, -50.0), gold=i % 2) for i in range(10)]),
        (
            run("books", "a", (estimate(1.0, metric="bits_per_byte"),)),
            [document(str(i), "words " * (i + 1)) for i in range(3)],
        ),
    ]
    top, digests, models = read(tmp_path, table)
    panels = calibrations(top, digests, models)
    assert [(panel.title, panel.note) for panel in panels] == [
        ("pairs", "ECE a 0.500")
    ]  # certain, and right half the time
    assert [panel.title for panel in documents(digests, models)] == ["books"]
    assert "3 documents" in documents(digests, models)[0].note
