"""The benchmark beside another system: what it compares and writes, without running the other system."""

import json
import math
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
sys.path.insert(0, str(TOP / "benchmarks"))

import lm_eval_speed  # noqa: E402
from speed import measure, ours, tables  # noqa: E402
from speed.compare import compare  # noqa: E402
from speed.rows import ROWS, rows_named  # noqa: E402

from lydite.types import GenerateRequest, ScoreRequest  # noqa: E402

ASK = {"kind": "loglikelihood", "gold": 1}
PAIRS = [{**ASK, "doc": d, "index": i, "args": ["q", c]} for d in (0, 1) for i, c in enumerate((" a", " four"))]


def clean(*totals, greedy=False):
    return [[total, greedy, "clean", 1] for total in totals]


def test_choices():
    found = compare(
        "choice", PAIRS, clean(-2.0, -1.0, -1.0, -3.0), [[-2.0, False], [-1.5, False], [-1.2, False], [-1.1, False]]
    )
    assert (found.requests, found.flips, found.failed) == (4, 1, 0)
    assert math.isclose(found.largest, 1.9)
    assert math.isclose(found.flip_margin, 0.1)
    assert found.ours == {"acc": 0.5, "acc_norm": 1.0}  # of the second: -1 a sign against -3/4
    assert found.theirs["acc"] == 1.0


def test_last_words_documents_and_failures():
    lines = [{**ASK, "doc": i, "index": 0, "args": ["a", " b"]} for i in (0, 1)]
    ours_, theirs = [*clean(-1.0, greedy=True), *clean(-3.0)], [[-1.0, True], [-3.0, True]]
    found = compare("last_word", lines, ours_, theirs)
    assert found.flips == 1
    assert math.isclose(found.ours["perplexity"], math.exp(2))
    assert (found.ours["acc"], found.theirs["acc"]) == (0.5, 1.0)
    found = compare("last_word", lines, [ours_[0], [None, "too long"]], theirs)
    assert found.failed == 1
    assert "perplexity" not in found.ours
    pages = [{**ASK, "doc": 0, "index": 0, "args": ["abcd"]}]
    found = compare("rolling", pages, clean(-8 * math.log(2)), [-4 * math.log(2)])
    assert math.isclose(found.ours["bits_per_byte"], 2)
    assert math.isclose(found.theirs["bits_per_byte"], 1)


def test_texts():
    lines = [{"kind": "generate_until", "doc": i, "gold": "so #### 1,200"} for i in (0, 1)]
    found = compare("generate", lines, [["It is 1200.", 4], ["It is 7", 3]], ["It is 1200. ", "It is 1,200"])
    assert found.flips == 1
    assert (found.ours["exact_match"], found.theirs["exact_match"]) == (0.5, 1.0)


def test_requests_are_the_harness_own():
    request = ours.as_request({"kind": "loglikelihood", "doc": 3, "index": 1, "args": ["Q: ", "x"]})
    assert request == ScoreRequest(sample_id="3", index=1, context="Q: ", continuation="x")
    assert (
        ours.as_request({"kind": "loglikelihood_rolling", "doc": 0, "index": 0, "args": ["text"]}).window == "disjoint"
    )
    options = {"until": ["\n"], "do_sample": False, "max_gen_toks": 9}
    request = ours.as_request({"kind": "generate_until", "doc": 0, "index": 0, "args": ["Q", options]})
    assert isinstance(request, GenerateRequest)
    assert (request.decoding.max_new_tokens, request.decoding.stop_strings) == (9, ("\n",))
    with pytest.raises(AssertionError):
        ours.as_request({"kind": "generate_until", "doc": 0, "index": 0, "args": ["Q", options | {"top_p": 0.5}]})


def test_rows_by_name():
    assert rows_named("") == list(ROWS)
    assert [row.name for row in rows_named("decode,letters")] == ["letters", "decode_1", "decode_8", "decode_32"]
    with pytest.raises(SystemExit, match="no row 'leters'"):
        rows_named("leters")


def test_a_process_is_measured_killed_or_failed(tmp_path):
    def run(code, memory_bytes=8 << 30):
        return measure.run([sys.executable, "-c", code], log=tmp_path / "log", cwd=tmp_path, memory_bytes=memory_bytes)

    done = run("data = bytearray(b'x' * (96 << 20))")
    assert done.status == "done"
    assert done.peak_bytes > 96 << 20
    assert run("print('first'); raise SystemExit('no such model')").status == "failed: no such model"
    killed = run("import time; data = bytearray(b'x' * (96 << 20)); time.sleep(60)", memory_bytes=64 << 20)
    assert killed.status.startswith("killed at")
    assert killed.seconds < 50


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A benchmark whose processes only write what real ones would; `calls` says which ones ran."""
    calls = []

    def fake(command, *, log, cwd, memory_bytes):
        who, what = Path(command[1]).stem, command[2]
        options = dict(zip(command[3::2], command[4::2], strict=True))
        calls.append((who, what, options.get("--batch") or options.get("--kernel")))
        slow = 8.0 if who == "peer" else 0.5
        answers = [[-1.0, False, "clean", 1], [-2.0, False, "clean", 1]]
        if what == "build":
            Path(options["--out"]).write_text("".join(json.dumps(line) + "\n" for line in PAIRS[:2]))
        elif what == "peak":
            Path(options["--out"]).write_text(json.dumps({"float32": 1e9, "bfloat16": 1e9}))
        elif what == "work":
            work = {"requests": 2, "docs": 1, "naive_positions": 20, "positions": 10, "scored_positions": 2}
            Path(options["--out"]).write_text(json.dumps(work | {"body_weights": 10**6, "head_weights": 10**6}))
        elif options.get("--batch") == "32":
            return measure.Finished(9.0, 7 << 30, "killed at 7.0 GiB")
        else:
            seconds = slow / int(options.get("--batch", 1))
            found = {"seconds": seconds, "load_seconds": 1.0, "answers": answers, "kernel": "default (asked for)"}
            Path(options["--out"]).write_text(json.dumps(found))
        return measure.Finished(seconds + 2 if what == "answer" else 1.0, 1 << 30, "done")

    monkeypatch.setattr(lm_eval_speed, "run", fake)
    monkeypatch.setattr(lm_eval_speed, "_home", lambda peers: tmp_path)
    monkeypatch.setattr(lm_eval_speed, "_versions", lambda home: {"python": "3"})
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/benchmarks.md").write_text(f"before\n\n{tables.BEGIN}\nold\n{tables.END}\n\nafter\n")

    def go(*more):
        calls.clear()
        words = [
            "x",
            "--peers",
            str(tmp_path),
            "--rows",
            "letters,growth_1",
            "--dtype",
            "float32",
            "--out",
            str(tmp_path / "out"),
        ]
        monkeypatch.setattr(sys, "argv", [*words, *more])
        lm_eval_speed.main()
        return list(calls)

    go.folder = tmp_path
    return go


def test_rows_in_turns_the_best_batch_and_continuing(bench, capsys):
    calls = bench("--repeats", "2")
    answers = [(who, how) for who, what, how in calls if what == "answer"]
    tuning = [("peer", "1"), ("peer", "8"), ("peer", "32")]
    turn = [("ours", "default"), ("ours", "auto"), ("ours", "fastest"), ("peer", "8")]
    assert answers == [*tuning, *turn, *turn[::-1], ("ours", "auto"), ("ours", "auto")]
    assert "2.0x (aim 30)" in capsys.readouterr().out
    assert bench("--repeats", "2") == []
    assert [how for _, what, how in bench("--repeats", "3") if what == "answer"] == [
        "default",
        "auto",
        "fastest",
        "8",
        "auto",
    ]
    assert ("peer", "answer", "1") in bench("--redo")
    with pytest.raises(SystemExit, match="another limit"):
        bench("--limit", "2")


def test_the_page(bench):
    bench("--docs", str(bench.folder / "docs"))
    text = (bench.folder / "docs/benchmarks.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert (
        "| 5 shots, letters (CMMLU agronomy) | gemma270, float32 | 1.0 (batch 8) | 0.50 | 2.0x | 0.50 | 2.0x | 0.50 | 2.0x | 3.0 | 2.5 | 1.2x |"
        in text
    )
    # 2 x (10 positions x 10^6 + 2 scored x 10^6) operations in half a second, of 10^9 a second
    assert "| default | 5% |" in text
    assert "32: killed at 7.0 GiB" in text
    assert str(bench.folder) not in text
    assert (bench.folder / "docs/benchmarks.png").read_bytes().startswith(b"\x89PNG")
    state = measure.load_state(bench.folder / "docs/benchmarks.json")
    assert state == measure.load_state(bench.folder / "out/results.json")
