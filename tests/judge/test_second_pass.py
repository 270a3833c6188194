"""Neural metrics over finished runs: BERTScore on a tiny random encoder against plain loops, COMET's absence."""

import importlib.util
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from lydite.cli.app import make_app
from lydite.errors import LyditeError, ModelError, RunError
from lydite.evaluate import evaluate, rescore
from lydite.judge import second_pass
from lydite.judge.bertscore import BertScore, match
from lydite.judge.comet import Comet
from lydite.models.encoder import TextEncoder
from lydite.runs import read_run, read_samples
from lydite.tasks.generate import generation_task, grader
from lydite.types import Completion, Decoding, Failure, ModelInfo, Sample, Usage

WORDS = [
    "[PAD]",
    "[CLS]",
    "[SEP]",
    "[UNK]",
    "a",
    "the",
    "old",
    "mill",
    "burns",
    "at",
    "night",
    "fire",
    "men",
    "see",
    "it",
]
ANSWERS = {
    "1": Completion(text="the old mill burns", num_tokens=4, finish="stop"),
    "2": Completion(text="", num_tokens=0, finish="stop"),
    "3": Failure(reason="NaN"),
    "4": Completion(text="men see the fire at night", num_tokens=6, finish="stop"),
}
TARGETS = ("a mill burns at night", "it burns")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tinybert")
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=plain, model_max_length=12, **names).save_pretrained(folder)
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=12, initializer_range=0.8,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def by_hand(folder, answer, target, layer):
    """The formulas of the paper (section 3), token by token, one text at a time."""
    model = BertModel.from_pretrained(folder).eval()

    def vectors(text):
        ids = [1, *(WORDS.index(word) for word in text.split()), 2]
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
        return [state.double().tolist() for state in states]

    def cosine(x, y):
        dot = sum(a * b for a, b in zip(x, y, strict=True))
        return dot / math.sqrt(sum(a * a for a in x)) / math.sqrt(sum(b * b for b in y))

    said, wanted = vectors(answer), vectors(target)
    precision = [max(cosine(x, y) for y in wanted) for x in said[1:-1]]
    recall = [max(cosine(x, y) for x in said) for y in wanted[1:-1]]
    p, r = sum(precision) / len(precision), sum(recall) / len(recall)
    return 2 * p * r / (p + r), p, r


def task():
    def samples(split):
        for name in ANSWERS:
            yield Sample(id=name, input="Was brennt?", targets=TARGETS)

    return generation_task("fires", samples, lambda sample: sample.input, [grader("exact_match")], Decoding())


class Writer:
    info = ModelInfo(name="writer", family="null", rule="null", can=("generate",), fingerprint="writer-1")
    usage = Usage()

    def answer(self, requests):
        for position, request in enumerate(requests):
            yield position, ANSWERS[request.sample_id]


def test_bertscore_by_hand(encoder, tmp_path):
    run = evaluate(Writer(), task(), out=tmp_path)
    leaf = tmp_path / "writer" / "fires"
    scorer = BertScore(TextEncoder(str(encoder), layer=2))
    assert scorer.name == f"bertscore:{encoder.name}@2"
    found = second_pass(leaf, scorer)
    values = {
        (record.id, score.metric): score.value
        for record in read_samples(leaf)
        for score in record.scores
        if score.by == f"judge:{scorer.name}"
    }
    for name in ("1", "4"):
        each = [by_hand(encoder, ANSWERS[name].text, target, 2) for target in TARGETS]
        for place, metric in enumerate(("bertscore_f1", "bertscore_precision", "bertscore_recall")):
            assert values[name, metric] == pytest.approx(max(one[place] for one in each), abs=1e-5)
    assert values["2", "bertscore_f1"] == 0.0
    assert values["3", "bertscore_f1"] is None
    f1 = found.estimates[0]
    assert (f1.n, f1.n_failed) == (3, 1)
    assert f1.value == pytest.approx((values["1", "bertscore_f1"] + values["4", "bertscore_f1"]) / 3)
    assert scorer.name in f1.signature
    # The automatic numbers stand, a second time adds nothing, and re-scoring keeps the judge's scores.
    assert read_run(leaf).estimates == run.estimates
    second_pass(leaf, scorer)
    rescore(leaf, task())
    kept = [score for record in read_samples(leaf) for score in record.scores if score.by.startswith("judge:")]
    assert len(kept) == 3 * len(ANSWERS)


def test_neighbours_do_not_change_vectors(encoder):
    texts = ["the old mill", "fire", "a mill at night the men see it burns", ""]
    one_by_one = [TextEncoder(str(encoder), layer=3, batch_size=1).embed([text])[0] for text in texts]
    together = TextEncoder(str(encoder), layer=3).embed(texts)
    for (alone, marks), (among, other) in zip(one_by_one, together, strict=True):
        assert np.allclose(alone, among, atol=1e-5)
        assert marks.tolist() == other.tolist()
    assert together[1][1].tolist() == [True, False, True]


def test_long_texts_are_counted(encoder):
    model = TextEncoder(str(encoder), layer=1)
    [(vectors, _)] = model.embed(["fire " * 30])
    assert (len(vectors), model.num_truncated) == (12, 1)


def test_the_same_text_is_perfect(encoder):
    [one] = TextEncoder(str(encoder), layer=2).embed(["the old mill"])
    assert match(one, one) == pytest.approx((1.0, 1.0, 1.0))


def test_refusals(encoder, tmp_path):
    with pytest.raises(ModelError, match="layers 0 to 3"):
        TextEncoder(str(encoder), layer=4)
    with pytest.raises(ModelError, match="layers 0 to 3"):
        TextEncoder(str(encoder))
    with pytest.raises(ModelError, match="safetensors"):
        TextEncoder(str(tmp_path), layer=1)
    with pytest.raises(RunError, match="no run"):
        second_pass(tmp_path, BertScore(TextEncoder(str(encoder), layer=1)))


@pytest.mark.skipif(importlib.util.find_spec("comet") is not None, reason="COMET is installed")
def test_comet_says_how_to_get_it():
    with pytest.raises(ModelError, match="pip install unbabel-comet"):
        Comet()


# ------------------------------------------------------------------------------------------- the verb


def command(*arguments):
    return make_app(arguments)(arguments, prog_name="lydite", standalone_mode=False)


def test_the_verb_judges_what_was_written(encoder, tmp_path, capsys):
    evaluate(Writer(), task(), out=tmp_path)
    code = command("judge", str(tmp_path), "--metric", "bertscore", "--model", str(encoder), "--set", "layer=2")
    out = capsys.readouterr().out
    expected = second_pass(tmp_path / "writer/fires", BertScore(TextEncoder(str(encoder), layer=2))).estimates[0]
    assert code == 2  # one sample had failed before
    assert f"{expected.value:.3f}" in out
    assert expected.signature in out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("--metric", "bleurt"), "unknown --metric 'bleurt'; there are bertscore and comet"),
        (("--set", "layers=3"), "unknown --set layers for bertscore; known: layer, batch_size, device"),
        (("--set", "layer=two"), "--set layer=two is not a whole number"),
        (("--set", "batch_size=0"), "batch_size=0 is less than 1"),
        (("--set", "top_k=3"), "unknown --set top_k"),
        (("--model", "/no/such/folder"), "name a folder with safetensors and a tokenizer"),
    ],
)
def test_mistakes_of_the_verb_are_one_line(changes, said, encoder, tmp_path):
    evaluate(Writer(), task(), out=tmp_path)
    arguments = {"--metric": "bertscore", "--model": str(encoder), "--set": "layer=2"} | dict([changes])
    with pytest.raises(LyditeError) as caught:
        command("judge", str(tmp_path), *(word for pair in arguments.items() for word in pair))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_runs_without_written_answers_are_refused(tmp_path):
    command("evaluate", "uniform", "--tasks", "mini_nli_en", "--out", str(tmp_path), "--limit", "2")
    with pytest.raises(RunError, match="has written answers to judge"):
        command("judge", str(tmp_path), "--metric", "bertscore", "--model", "nothing")
