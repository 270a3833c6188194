"""benchmarks/training_speed.py and results.py: same curve as Trainer's, and a page that is filled from run folders."""

import argparse
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import results

from lydite.runs import encode
from lydite.training.log import EvalLine, TextLine
from lydite.training.recipe import make_recipe
from lydite.training.start import pretrain
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
    page = tmp_path / "page.md"
    page.write_text("\n".join(["before", *marks, "<!-- judged: all -->\nold\n<!-- end -->", "after"]))
    monkeypatch.setattr(sys, "argv", ["results.py", "--runs", str(runs), "--page", str(page)])
    for _ in range(2):  # what was filled is filled again
        results.main()
        found = page.read_text()
        assert found.startswith("before\n")
        assert found.endswith("after")
        bodies = dict(re.findall(r"<!-- \w+: (\w+) -->\n(.*?)<!-- end -->", found, re.DOTALL))
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
        assert bodies["never"] == bodies["all"] == "old\n"
    assert (tmp_path / "page" / "whole.png").read_bytes().startswith(b"\x89PNG")
