"""Families other than GPT-2 through the loop, from a recipe to a folder that `lydite evaluate` judges."""

import math
from pathlib import Path

import pytest

from lydite.data.prepare.recipe import read_recipe as read_sources
from lydite.data.prepare.run import prepare
from lydite.errors import ModelError
from lydite.evaluate import evaluate
from lydite.models import load_model
from lydite.tasks.generate import generation_task, grader
from lydite.tasks.heldout import heldout_task
from lydite.training.log import EvalLine, StepLine, read_log
from lydite.training.recipe import make_recipe
from lydite.training.start import pretrain
from lydite.types import Decoding, LogProbs, Sample, ScoreRequest
from tests.families import bytelevel, unigram, wordpiece
from tests.tiny import TEXTS, tiny_tokenizer

BLOCK = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
OURS = BLOCK | {"max_position_embeddings": 64}
BART = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
TOKENIZERS = {
    "plain": tiny_tokenizer,
    "bos": lambda: tiny_tokenizer(bos=True),
    "bert": wordpiece,
    "roberta": bytelevel,
    "albert": lambda: unigram("albert"),
    "xlnet": lambda: unigram("xlnet"),
    "t5": lambda: unigram("t5"),
}
CASES = {
    "bert": ("bert", BLOCK | {"max_position_embeddings": 32}, "bert", {"name": "next_sentence", "context": 32}),
    "roberta": (
        "roberta",
        BLOCK | {"max_position_embeddings": 40},
        "roberta",
        {"name": "masked", "context": 32, "unit": "word"},
    ),
    "albert": (
        "albert",
        BLOCK | {"embedding_size": 16, "max_position_embeddings": 32},
        "albert",
        {"name": "sentence_order", "context": 32},
    ),
    "electra": (
        "electra",
        BLOCK | {"embedding_size": 16, "max_position_embeddings": 32},
        "bert",
        {"name": "replaced", "context": 32},
    ),
    "xlnet": (
        "xlnet",
        {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
        "xlnet",
        {"name": "permutation", "context": 32},
    ),
    "t5": ("t5", T5, "t5", {"name": "span_corruption", "context": 12}),
    "t5, prefix": ("t5", T5, "t5", {"name": "prefix", "context": 16, "architecture": "encoder-decoder"}),
    "bart, prefix": ("bart", BART, "roberta", {"name": "prefix", "context": 16, "architecture": "encoder-decoder"}),
    "t5, pairs": ("t5", T5, "t5", {"name": "seq2seq", "label_smoothing": 0.0}),
    "bart": ("bart", BART, "roberta", {"name": "denoising", "context": 32}),
    "bart, pairs": ("bart", BART, "roberta", {"name": "seq2seq", "label_smoothing": 0.0}),
    "llama": (
        "llama",
        BLOCK | {"num_key_value_heads": 1},
        "bos",
        {"name": "causal", "context": 32, "layout": "packed"},
    ),
    "our decoder": ("lydite_transformer", OURS, "bos", {"name": "causal", "context": 32}),
    "our encoder": (
        "lydite_transformer",
        OURS | {"shape": "encoder"},
        "bert",
        {"name": "masked", "context": 32, "unit": "span"},
    ),
    "our encoder-decoder": (
        "lydite_transformer",
        OURS | {"shape": "encoder-decoder"},
        "t5",
        {"name": "seq2seq", "label_smoothing": 0.0},
    ),
    "our lstm": (
        "lydite_lstm",
        {"embedding_size": 32, "hidden_size": 48, "num_hidden_layers": 2, "input_dropout": 0.0, "output_dropout": 0.0},
        "plain",
        {"name": "causal", "layout": "streams", "streams": 8, "context": 16},
    ),
}
DTYPES = {"lydite_lstm": "float32", "xlnet": "autocast"}
PAIRS = [(text, text.lower()) for text in TEXTS[:6]]


def sources(folder: Path, tokenizer: Path, objective: str) -> dict[str, object]:
    """[data]: pairs for seq2seq, else a corpus, which knows its sentences."""
    if objective == "seq2seq":
        for name, side in (("a.txt", 0), ("b.txt", 1)):
            (folder / name).write_text("".join(f"{pair[side]}\n" for pair in PAIRS * 20))
            (folder / f"held-{name}").write_text("".join(f"{pair[side]}\n" for pair in PAIRS))
        names = {
            "source": "a.txt",
            "target": "b.txt",
            "validation_source": "held-a.txt",
            "validation_target": "held-b.txt",
        }
        return {key: str(folder / name) for key, name in names.items()} | {"tokenizer": str(tokenizer)}
    documents = [" ".join(TEXTS[i : i + 3]) + f" {i}." for i in range(5)] * 12
    (folder / "text.txt").write_text("".join(f"{text} {number}\n" for number, text in enumerate(documents)))
    pairs = ["documents=line", "near_duplicates=false", "validation=0.2"]
    prepare(read_sources(None, [str(folder / "text.txt")], pairs, str(tokenizer)), folder / "corpus", workers=1)
    return {"corpus": str(folder / "corpus")}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_trains_and_is_judged(tmp_path, case):
    family, config, kind, objective = case
    TOKENIZERS[kind]().save_pretrained(tmp_path / "tokenizer")
    recipe = make_recipe(
        {
            "model": {"family": family, "config": config},
            "data": sources(tmp_path, tmp_path / "tokenizer", objective["name"]),
            "objective": [objective],
            "training": {
                "max_steps": 30,
                "batch_size": 8,
                "learning_rate": 1e-2,
                "dtype": DTYPES.get(family, "bfloat16"),
            },
            "eval": {"every": 6, "max_rows": 24},
            "save": {"every": 20},
        }
    )
    folder = pretrain(recipe, tmp_path / "run")
    lines = read_log(tmp_path / "run")
    steps = [line.loss for line in lines if isinstance(line, StepLine)]
    held = [line for line in lines if isinstance(line, EvalLine)]
    assert sum(steps[-5:]) < 0.95 * sum(steps[:5])
    assert held[-1].loss < held[0].loss
    assert (held[-1].bits_per_byte is not None) == (objective["name"] == "causal")
    if family == "electra":  # what is saved is the discriminator
        with pytest.raises(ModelError, match="ELECTRA discriminator"):
            load_model(str(folder))
        return
    model = load_model(str(folder))
    samples = [Sample(id=str(i), input=text, targets=(text.lower(),)) for i, text in enumerate(TEXTS[:2])]
    run = evaluate(model, heldout_task("held", lambda split: samples), out=tmp_path / "judged")
    assert run.estimates[0].value is not None
    assert run.estimates[0].value < math.log2(256)
    if model.info.family == "seq2seq":
        task = generation_task(
            "turn", lambda split: samples, lambda s: s.input, [grader("bleu")], Decoding(num_beams=2, max_new_tokens=12)
        )
        assert evaluate(model, task, out=tmp_path / "judged", limit=1).estimates[0].n_failed == 0


def test_a_network_that_does_not_compute_in_bfloat16_is_one_line(tmp_path):
    """XLNet makes its positions in float32."""
    TOKENIZERS["xlnet"]().save_pretrained(tmp_path / "tokenizer")
    family, config, _, objective = CASES["xlnet"]
    recipe = make_recipe(
        {
            "model": {"family": family, "config": config},
            "data": sources(tmp_path, tmp_path / "tokenizer", objective["name"]),
            "objective": [objective],
            "training": {"max_steps": 2, "batch_size": 8, "dtype": "bfloat16"},
        }
    )
    with pytest.raises(ModelError, match=r"XLNetLMHeadModel does not compute in bfloat16.*autocast"):
        pretrain(recipe, tmp_path / "run")


@pytest.mark.parametrize(("family", "config", "kind"), [("t5", T5, "t5"), ("bart", BART, "roberta")])
def test_pairs_are_scored_as_they_were_trained(tmp_path, family, config, kind):
    """The validation loss is what `evaluate` says of the same pairs, so both put the same tokens around a text."""
    TOKENIZERS[kind]().save_pretrained(tmp_path / "tokenizer")
    recipe = make_recipe(
        {
            "model": {"family": family, "config": config},
            "data": sources(tmp_path, tmp_path / "tokenizer", "seq2seq"),
            "objective": [{"name": "seq2seq", "label_smoothing": 0.0}],
            "training": {"max_steps": 25, "batch_size": 8, "learning_rate": 1e-2},
        }
    )
    model = load_model(str(pretrain(recipe, tmp_path / "run")))
    [line] = [line for line in read_log(tmp_path / "run") if isinstance(line, EvalLine)]
    requests = [
        ScoreRequest(sample_id=str(i), index=0, context=source, continuation=f"{target}</s>")
        for i, (source, target) in enumerate(PAIRS)
    ]
    answers = [answer for _, answer in model.answer(requests)]
    assert all(isinstance(answer, LogProbs) for answer in answers)
    total, count = -sum(answer.total for answer in answers), sum(len(answer.logprobs) for answer in answers)
    if kind == "roberta":  # BART learns its <s> too, which is given when it is scored
        assert line.loss * (count + len(PAIRS)) >= total - 1e-3
        assert line.loss * (count + len(PAIRS)) - total < 0.2 * total
    else:
        assert line.loss == pytest.approx(total / count, rel=1e-4)


def test_objectives_and_corpora_are_mixed_by_weight(tmp_path):
    """Two corpora and two objectives in one recipe; what each has read follows the weights."""
    TOKENIZERS["bert"]().save_pretrained(tmp_path / "tokenizer")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = sources(tmp_path / "one", tmp_path / "tokenizer", "masked")
    second = sources(tmp_path / "two", tmp_path / "tokenizer", "masked")
    recipe = make_recipe(
        {
            "model": {"family": "bert", "config": BLOCK | {"max_position_embeddings": 32}},
            "data": first,
            "objective": [
                {"name": "masked", "context": 32, "weight": 3},
                {"name": "next_sentence", "context": 32, "weight": 1, **second},
            ],
            "training": {"max_steps": 20, "batch_size": 8, "learning_rate": 1e-2},
        }
    )
    folder = pretrain(recipe, tmp_path / "run")
    lines = [line for line in read_log(tmp_path / "run") if isinstance(line, StepLine)]
    assert set(lines[-1].parts) == {"masked.tokens", "next_sentence.tokens", "next_sentence.pair"}
    assert lines[-1].loss < lines[0].loss
    assert load_model(str(folder)).info.family == "masked"
