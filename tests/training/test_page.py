"""The training page: everything that a model or a recipe says is escaped; curves are there."""

import re

import pytest

from lydite.errors import RunError
from lydite.training.log import EvalLine, EventLine, Log, ScoreLine, StepLine, TextLine, read_log
from lydite.training.page import render, write_page

HOSTILE = '<script>alert(1)</script>"&'


def step(number, loss):
    return StepLine(
        step=number,
        loss=loss,
        parts={"tokens": loss},
        learning_rate=1e-3,
        grad_norm=1.0,
        tokens=100 * number,
        tokens_per_second=1000.0,
        seconds=0.1 * number,
        peak=0.25,
    )


def lines():
    found = [step(number, 4 / number) for number in range(1, 30)]
    found.append(EvalLine(step=10, loss=1.5, parts={"tokens": 1.5}, bits_per_byte=2.1, seconds=1.0, is_best=True))
    found.append(EvalLine(step=20, loss=1.25, parts={"tokens": 1.25}, bits_per_byte=2.0, seconds=1.0, is_best=True))
    found.append(ScoreLine(step=20, task=HOSTILE, metric="acc", value=0.5, low=0.4, high=0.6))
    found.append(TextLine(step=20, prompt=HOSTILE, text=HOSTILE))
    found.append(EventLine(step=29, what=HOSTILE))
    return found


def test_hostile_text_is_escaped():
    page = render(HOSTILE, lines())
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5
    assert "default-src &#39;none&#39;" in page


def test_curves_and_facts():
    page = render("run", lines())
    assert page.count("<svg") == 5  # loss, bits per byte, learning rate, gradient norm, tokens a second
    assert "1.2500 at step 20" in page
    assert "25%" in page


def test_a_run_that_has_only_begun(tmp_path):
    log = Log(tmp_path, 0)
    log.write(EventLine(step=0, what="begun"))
    log.close()
    assert "No two steps yet" in write_page(tmp_path, "x").read_text()


def test_log_continues_after_a_step(tmp_path):
    log = Log(tmp_path, 0)
    log.write(*[step(number, 1.0) for number in range(1, 6)])
    log.close()
    (tmp_path / "log.jsonl").open("ab").write(b'{"torn')
    log = Log(tmp_path, 3)
    log.write(step(4, 2.0))
    log.close()
    assert [(line.step, line.loss) for line in read_log(tmp_path)] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0)]
    (tmp_path / "log.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match="line 1 is damaged"):
        read_log(tmp_path)


def test_a_task_that_was_not_judged_at_a_step_leaves_its_place_empty():
    scores = [
        ScoreLine(step=number, task=task, metric="acc", value=value)
        for number, task, value in ((10, "one", 0.1), (20, "one", 0.2), (20, "two", 0.3))
    ]
    rows = re.findall(r"<tr><th scope=\"row\">(\w+)</th><td>acc</td>(.*?)</tr>", render("run", scores))
    assert [(name, re.findall(r"<td>([^<]*)</td>", cells)) for name, cells in rows] == [
        ("one", ["0.100", "0.200"]),
        ("two", ["–", "0.300"]),
    ]
