"""benchmarks/training_speed.py, results.py and killed_run.py: same curve as Trainer's, a page that is filled from run folders, and
kills that are what they say."""

import argparse
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import killed_run
import results

from lydite.runs import encode, write_samples
from lydite.training.log import EvalLine, EventLine, TextLine, read_log
from lydite.training.recipe import make_recipe
from lydite.training.start import pretrain
from lydite.types import Completion, GenerateRequest, Sample, SampleRecord
from tests.training.test_loop import NO_DROPOUT, run_until
from tests.training.tinyrun import tiny_recipe, write_text

TINY = {
    "causal": {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 32},
    "masked": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    "seq2seq": {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
}


@pytest.mark.parametrize("shape", TINY)
def test_the_loop_makes_the_curve_of_trainer(shape, monkeypatch):
    pytest.importorskip("accelerate")
    import training_speed

    kind = training_speed.SHAPES[shape]
    monkeypatch.setitem(kind, "config", kind["config"] | TINY[shape])
    if shape != "seq2seq":
        monkeypatch.setitem(kind, "objective", kind["objective"] | {"context": 32})
    chosen = argparse.Namespace(rows=8, vocab=80, steps=4, repeats=1, ours="bfloat16")
    row = training_speed.measured(shape, "float32", chosen)
    assert row["largest_difference"] < 1e-5
    assert row["ours"] > 0
    assert row["theirs"] > 0
    page = training_speed.page([row], [("aten::mm", 0.01, 0.5)], chosen)
    assert f"| {kind['said']} | float32 |" in page
    assert "| `aten::mm` | 10 | 50% |" in page


def translated(number):
    sample = Sample(id=str(number), input=f"in {number}", targets=(f"right\n{number}",))
    request = GenerateRequest(sample_id=sample.id, index=0, prompt=sample.input)
    output = Completion(text=f"out {number}", num_tokens=1, finish="stop")
    return SampleRecord(id=sample.id, sample=sample, requests=(request,), outputs=(output,), scores=())


def test_the_page_is_filled_between_its_marks(tmp_path, monkeypatch):
    text = write_text(tmp_path / "text.txt")
    runs = tmp_path / "runs"
    pretrain(tiny_recipe(text, model=NO_DROPOUT, training={"max_steps": 4}), runs / "whole")
    run_until(tiny_recipe(text, model=NO_DROPOUT, training={"max_steps": 4}), runs / "half", 2)
    log = runs / "half" / "log.jsonl"  # one that has been validated, and goes on
    log.write_bytes(log.read_bytes() + encode(EvalLine(step=2, loss=2, parts={}, bits_per_byte=3, seconds=1)) + b"\n")
    counted = {
        "model": {"family": "ngram", "config": {"order": 2}},
        "data": {"text": [str(text)], "tokenizer": "characters"},
    }
    texts = [TextLine(step=1, prompt="ba", text=" do")]
    pretrain(make_recipe(counted), runs / "counted", on_eval=lambda folder, step: texts)
    marks = [f"<!-- run: {name} -->\nold\n<!-- end -->" for name in ("whole", "half", "never", "counted")]
    leaf = runs / "judged" / "all" / "model" / "task"
    leaf.mkdir(parents=True)
    write_samples(leaf, [translated(number) for number in (10, 9, 2, 0, 1)])
    marks += [f"<!-- {mark} -->\nold\n<!-- end -->" for mark in ("judged: all", "written: all/model/task")]
    page = tmp_path / "page.md"
    page.write_text("\n".join(["before", *marks, "after"]))
    monkeypatch.setattr(sys, "argv", ["results.py", "--runs", str(runs), "--page", str(page)])
    for _ in range(2):  # what was filled is filled again
        results.main()
        found = page.read_text()
        assert found.startswith("before\n")
        assert found.endswith("after")
        bodies = dict(re.findall(r"<!-- \w+: ([\w/]+) -->\n(.*?)<!-- end -->", found, re.DOTALL))
        assert "| steps | 4 |" in bodies["whole"]
        assert "bits a byte" in bodies["whole"]
        assert "![Loss by step](page/whole.png)" in bodies["whole"]
        assert "Begun, and not finished." in bodies["half"]
        assert "Validation:" not in bodies["half"]
        assert re.search(
            r"Counted [\d,]+ tokens of 1 documents.*Validation: .* bits a byte\.", bodies["counted"], re.DOTALL
        )
        assert "What it wrote (the prompt" in bodies["counted"]
        assert "    ba| do" in bodies["counted"]
        assert [line.split()[-1] for line in bodies["all/model/task"].splitlines() if "  wrote  " in line] == list(
            "0129"
        )
        assert "    given  in 2\n    wrote  out 2\n    meant  right 2\n" in bodies["all/model/task"]
        assert bodies["never"] == bodies["all"] == "old\n"
    assert (tmp_path / "page" / "whole.png").read_bytes().startswith(b"\x89PNG")


def test_kills_fall_between_different_checkpoints():
    for seed in range(50):
        places = killed_run.drawn(100, 10, 3, seed)
        assert places == sorted(places)
        assert len({(place - 1) // 10 for place in places}) == 3
        assert places[0] > 10
        assert places[-1] < 100
    assert killed_run.drawn(4, 1, 2, 0) == [2, 3]
    with pytest.raises(SystemExit, match="3 kills need as many checkpoints before the end, and there are 1"):
        killed_run.drawn(20, 10, 3, 0)


RUN = """
import sys, time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from lydite.training.log import EventLine, Log

time.sleep(0.2)  # reading the checkpoint of step 2
log = Log(Path(sys.argv[2]), 2)
for step in range(3, 10**6):
    log.write(EventLine(step=step, what="done"))
    time.sleep(0.02)
"""


def test_a_run_is_killed_after_steps_of_its_own(tmp_path):
    """The log that the last process left already has the step: the kill must wait for what this one does."""
    old = [EventLine(step=step, what="before") for step in range(1, 9)]
    (tmp_path / "log.jsonl").write_bytes(b"".join(encode(line) + b"\n" for line in old))
    top = str(Path(__file__).parents[2])
    assert killed_run.killed_at([sys.executable, "-c", RUN, top, str(tmp_path)], tmp_path, 4) >= 4
    lines = read_log(tmp_path)
    assert [line.what for line in lines[:4]] == ["before", "before", "done", "done"]
