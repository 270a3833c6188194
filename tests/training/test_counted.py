"""`lydite pretrain` with family = "ngram": the numbers of KenLM, the run's folder, ARPA out and in, mistakes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lydite.cli.app import main
from lydite.models import load_model
from lydite.models.ngram import read_table
from lydite.models.ngram_arpa import arpa_table, read_arpa
from lydite.training.log import EvalLine, EventLine, read_log
from lydite.types import ScoreRequest
from tests.training.tinyrun import write_text

LMPLZ = Path(__file__).parents[1] / "oracles" / "lmplz"
HELD_LOG10, HELD_TOKENS, HELD_BYTES = -283.20459043979645, 213, 534
"""What KenLM 0.3.0 (Python, `score`) says of the first 40 lines of train.txt read backwards, by lmplz's own model."""


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def words_of(path):
    return [word.decode() for word in read_arpa(path).words]


@pytest.fixture
def lines(tmp_path):
    """A file a line, with the tokenizer whose tokens are the words of lmplz."""
    known = {word: i for i, word in enumerate(words_of(LMPLZ / "lmplz.arpa"))}
    core = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path / "words")
    for kind in ("train", "held"):
        (tmp_path / kind).mkdir()
    for number, line in enumerate((LMPLZ / "train.txt").read_text().splitlines()):
        (tmp_path / "train" / f"{number:03}.txt").write_text(line)
        if number < 40:
            (tmp_path / "held" / f"{number:03}.txt").write_text(" ".join(reversed(line.split())))
    return recipe(
        tmp_path,
        "config = { order = 3 }",
        'text = ["train/*.txt"]\nvalidation_text = ["held/*.txt"]\ntokenizer = "words"',
    )


def recipe(folder, model, data, more=""):
    path = folder / "recipe.toml"
    path.write_text(f'[model]\nfamily = "ngram"\n{model}\n[data]\n{data}\n{more}')
    return path


def test_the_numbers_of_kenlm_and_its_file_again(tmp_path, lines, capsys):
    code, out, err = run(capsys, "pretrain", lines, "--out", tmp_path / "run")
    assert code == 0, err
    assert out.strip() == str(tmp_path / "run" / "model")
    path = LMPLZ / "lmplz.arpa"
    theirs = arpa_table(read_arpa(path), np.arange(len(words_of(path))), len(words_of(path)), path=path)
    _, ours = read_table(tmp_path / "run" / "model")
    for one, other in zip(ours.levels, theirs.levels, strict=True):
        assert np.array_equal(one.words, other.words)
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
    [held] = [line for line in read_log(tmp_path / "run") if isinstance(line, EvalLine)]
    assert held.loss == pytest.approx(-HELD_LOG10 * math.log(10) / HELD_TOKENS, abs=1e-5)
    assert held.bits_per_byte == pytest.approx(-HELD_LOG10 * math.log2(10) / HELD_BYTES, abs=1e-5)
    assert "bits per byte" in err
    assert "discounts" not in err
    assert (tmp_path / "run" / "training.html").exists()
    # ARPA out: every number as lmplz has it, and in again with the same answers.
    code, out, err = run(capsys, "export", tmp_path / "run", "--to", "arpa", "--out", tmp_path / "ours.arpa")
    assert code == 0, err
    written, known = read_arpa(Path(out.strip())), read_arpa(path)
    assert written.words == known.words
    for one, other in zip(written.logprobs[1:], known.logprobs[1:], strict=True):
        assert len(one) == len(other)
    requests = [ScoreRequest(sample_id="s", index=0, continuation="w2 w0 w1 w4 w51")]
    answers = [
        dict(load_model(str(spec), settings=settings).answer(requests))[0].logprobs
        for spec, settings in (
            (tmp_path / "run" / "model", {}),
            (tmp_path / "ours.arpa", {"tokenizer": str(tmp_path / "run" / "model")}),
            (tmp_path / "ours.arpa", {}),
        )
    ]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-6)


def test_a_finished_run_is_not_counted_again_and_other_data_is_refused(tmp_path, lines, capsys):
    assert run(capsys, "pretrain", lines, "--out", tmp_path / "run")[0] == 0
    weights = tmp_path / "run" / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    code, _, err = run(capsys, "pretrain", lines, "--out", tmp_path / "run")
    assert (code, weights.stat().st_mtime_ns) == (0, before), err
    assert "finished already" in err
    code, _, err = run(capsys, "pretrain", lines, "--out", tmp_path / "run", "--set", "model.config.order=2")
    assert code == 1
    assert "holds a run of another recipe" in err


def test_what_was_ended_after_counting_is_still_judged(tmp_path, lines, capsys):
    assert run(capsys, "pretrain", lines, "--out", tmp_path / "run", "--quiet")[0] == 0
    log = tmp_path / "run" / "log.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    code, _, err = run(capsys, "pretrain", lines, "--out", tmp_path / "run")
    assert code == 0, err
    whole = read_log(tmp_path / "run")
    assert [line for line in whole if isinstance(line, EvalLine)]
    assert whole[-1].what == "finished"


@pytest.mark.parametrize("smoothing", ["kneser_ney", "witten_bell", "stupid_backoff"])
def test_characters_of_a_text_are_judged_and_continued(tmp_path, smoothing, capsys, monkeypatch):
    write_text(tmp_path / "text.txt", size=3000)
    path = recipe(
        tmp_path,
        f'config = {{ order = 4, smoothing = "{smoothing}" }}',
        'text = ["text.txt"]\ntokenizer = "characters"',
        '[eval]\nprompts = ["ba "]\nmax_new_tokens = 5',
    )
    code, _, err = run(capsys, "pretrain", path, "--out", tmp_path / "run")
    assert code == 0, err
    assert "ba |" in err
    [held] = [line for line in read_log(tmp_path / "run") if isinstance(line, EvalLine)]
    if smoothing == "stupid_backoff":
        assert held.bits_per_byte is None
    else:
        assert held.bits_per_byte < 2.5  # 27 characters, words of a made-up language
    model = tmp_path / "run" / "model"
    code, out, err = run(capsys, "generate", model, "ba do", "--set", "max_new_tokens=8")
    assert code == 0, err
    assert out.strip()
    code, out, err = run(capsys, "export", model, "--to", "arpa", "--out", tmp_path / "files")
    if smoothing == "stupid_backoff":
        assert code == 1
        assert "no probabilities" in err
        return
    assert out.strip() == str(tmp_path / "files" / "run.arpa"), err
    monkeypatch.chdir(tmp_path / "run")
    assert run(capsys, "export", "model", "--to", "arpa", "--out", "../more")[:2] == (0, "../more/run.arpa\n")
    requests = [ScoreRequest(sample_id="s", index=0, continuation="ba do\nkemi")]
    one, other = (
        dict(load_model(str(spec), settings=settings).answer(requests))[0]
        for spec, settings in ((model, {}), (tmp_path / "files" / "run.arpa", {"tokenizer": str(model)}))
    )
    assert other.tokens == one.tokens == tuple("ba do\nkemi")
    np.testing.assert_allclose(other.logprobs, one.logprobs, atol=1e-6)


def test_the_log_says_what_was_counted(tmp_path, lines, capsys):
    assert run(capsys, "pretrain", lines, "--out", tmp_path / "run", "--quiet")[0] == 0
    events = [line.what for line in read_log(tmp_path / "run") if isinstance(line, EventLine)]
    assert events[0].startswith("counted 641 tokens of 110 documents in ")
    assert events[-1] == "finished"
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["config"]["model"]["config"] == {"order": 3}


def test_the_recipe_of_the_repository(tmp_path, capsys):
    recipe = Path(__file__).parents[2] / "recipes" / "ngram.toml"
    code, _, err = run(capsys, "pretrain", recipe, "--out", tmp_path / "run")
    assert code == 0, err
    [held] = [line for line in read_log(tmp_path / "run") if isinstance(line, EvalLine)]
    assert 1 < held.bits_per_byte < 4


def test_mistakes_are_one_line(tmp_path, lines, capsys):
    text = lines.read_text()
    for wrong, what in (
        (text.replace("order = 3", "orders = 3"), "knows order, smoothing"),
        (text.replace("order = 3", "order = 0"), "must be 1 or more"),
        (text.replace("order = 3", 'smoothing = "good_turing"'), "smoothing"),
        (text + "[training]\nmax_steps = 5\n", "leave [training] out"),
    ):
        lines.write_text(wrong)
        code, _, err = run(capsys, "pretrain", lines, "--out", tmp_path / "run")
        assert code == 1, wrong
        assert err.count("\n") == 1
        assert what in err
    code, _, err = run(capsys, "export", tmp_path, "--to", "arpa", "--out", tmp_path / "x.arpa")
    assert code == 1
    assert "holds no n-gram model" in err
