"""What a network is given while it trains is what it is given when it is scored: the same tokens around a text, the same loss."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lydite.data.prepare.recipe import read_recipe as read_sources
from lydite.data.prepare.run import prepare
from lydite.engine.masked import MaskedEncoder
from lydite.engine.seq2seq import PairEncoder, start_ids
from lydite.errors import ModelError
from lydite.models import load_model
from lydite.models.own import register
from lydite.models.seq2seq import _target_prefix
from lydite.training.batch import IGNORE
from lydite.training.log import EvalLine, read_log
from lydite.training.network import build_network, make_config
from lydite.training.objectives import make_objective
from lydite.training.objectives.sequences import moved_right
from lydite.training.recipe import ModelTable, make_recipe
from lydite.training.start import pretrain
from lydite.types import LogProbs, ScoreRequest
from tests.families import bytelevel, unigram, wordpiece
from tests.tiny import TEXTS, tiny_tokenizer

BLOCK = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
BART = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 160}


@pytest.mark.parametrize("bos", [False, True], ids=["end of document in front", "bos in front"])
@pytest.mark.parametrize(("family", "config"), [("gpt2", GPT2), ("llama", BLOCK)])
def test_whole_documents_are_scored_at_their_validation_loss(tmp_path, family, config, bos):
    tokenizer = tiny_tokenizer(bos=bos)
    if not bos:  # as GPT-2's, which has one token for both
        tokenizer.bos_token = None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    texts = [f"{text} {number}" for number in range(12) for text in TEXTS]
    (tmp_path / "text.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    settings = ["documents=line", "near_duplicates=false", "validation=0.2"]
    prepare(
        read_sources(None, [str(tmp_path / "text.txt")], settings, str(tmp_path / "tokenizer")),
        tmp_path / "corpus",
        workers=1,
    )
    recipe = make_recipe(
        {
            "model": {"family": family, "config": config},
            "data": {"corpus": str(tmp_path / "corpus")},
            "objective": [{"name": "causal", "context": 160, "layout": "packed"}],
            "training": {"max_steps": 40, "batch_size": 4, "learning_rate": 1e-2},
        }
    )
    model = load_model(str(pretrain(recipe, tmp_path / "run")))
    [line] = [line for line in read_log(tmp_path / "run") if isinstance(line, EvalLine)]
    held = held_out(tmp_path / "corpus", tokenizer, texts)
    requests = [ScoreRequest(sample_id=str(i), index=0, continuation=f"{text}</s>") for i, text in enumerate(held)]
    answers = [answer for _, answer in model.answer(requests)]
    assert all(isinstance(answer, LogProbs) for answer in answers)
    total, count = -sum(answer.total for answer in answers), sum(len(answer.logprobs) for answer in answers)
    assert line.loss == pytest.approx(total / count, rel=1e-3)
    size = sum(len(text.encode()) for text in held)
    assert line.bits_per_byte == pytest.approx(total / np.log(2) / size, rel=1e-3)


def held_out(corpus, tokenizer, texts):
    from lydite.data.corpus import open_corpus

    ids = {tuple(tokenizer(text, add_special_tokens=False)["input_ids"]): text for text in texts}
    split = open_corpus(str(corpus)).split("validation")
    return [ids[tuple(split[number].tolist())] for number in range(len(split))]


# --------------------------------------------------------------------------------------- what stands around a text

PAIRS = {
    "t5": ("t5", lambda: unigram("t5")),
    "bart": ("bart", bytelevel),
    "ours": ("lydite_transformer", lambda: unigram("t5")),
}
TASKS = {
    "seq2seq": {},
    "prefix": {"context": 24, "architecture": "encoder-decoder", "layout": "documents"},
    "denoising": {"context": 24, "permute_sentences": False},
    "span_corruption": {"context": 8, "layout": "documents"},
}
HAVE = [("t5", "seq2seq"), ("bart", "seq2seq"), ("ours", "seq2seq"), ("t5", "prefix"), ("bart", "prefix")]
HAVE += [("bart", "denoising"), ("t5", "span_corruption"), ("ours", "span_corruption")]


@pytest.mark.parametrize(("kind", "task"), HAVE)
def test_an_encoder_decoder_reads_what_it_has_learned_to_read(kind, task):
    register()
    family, make_tokenizer = PAIRS[kind]
    tokenizer = make_tokenizer()
    table = ModelTable(family=family, config={"shape": "encoder-decoder"} if kind == "ours" else {})
    config = make_config(table, tokenizer)
    scored = PairEncoder(
        tokenizer,
        max_tokens=None,
        start=start_ids(config.to_dict(), {}, _target_prefix(tokenizer)),
        rule="seq2seq:sentinel" if task == "span_corruption" else "seq2seq",
    )
    documents = [np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"][:8], np.int32) for text in TEXTS]
    targets = documents[::-1] if task == "seq2seq" else None
    objective = make_objective(task, documents, tokenizer, TASKS[task], targets=targets)
    around = len(scored.prefix), len(scored.sentinel) + len(scored.suffix)
    for number in range(objective.num_examples(0)):
        fields = objective.example(0, number).fields
        source, target = fields["source"].tolist(), torch.from_numpy(fields["target"])[None]
        inside = source[around[0] : len(source) - around[1]]
        assert scored.source(inside)[0].tolist() == source
        fed = moved_right(SimpleNamespace(config=config), target)[0].tolist()
        assert tuple(fed[: len(scored.start)]) == scored.start
        assert not set(fed[len(scored.start) :]) & set(tokenizer.all_special_ids)


@pytest.mark.parametrize(
    "make_tokenizer", [wordpiece, bytelevel, lambda: unigram("albert")], ids=["bert", "roberta", "albert"]
)
def test_a_masked_model_reads_what_it_has_learned_to_read(make_tokenizer):
    tokenizer = make_tokenizer()
    scored = MaskedEncoder(tokenizer, max_tokens=None)
    texts = [text for text in TEXTS if "今" not in text]
    documents = [np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"], np.int32) for text in texts]
    objective = make_objective("masked", documents, tokenizer, {"context": 200, "layout": "documents"})
    rows = set()
    for number in range(objective.num_examples(0)):
        fields = objective.example(0, number).fields
        labels = fields["labels"]
        rows.add(tuple(np.where(labels == IGNORE, fields["input_ids"], labels).tolist()))
    assert rows == {tuple(scored.whole(text).tolist()) for text in texts}


def test_a_family_without_the_head_is_one_line():
    with pytest.raises(ModelError, match="no AutoModelForMaskedLM of gpt2, which masked trains"):
        build_network(ModelTable(family="gpt2"), ["masked"], tiny_tokenizer(), 0)
    with pytest.raises(ModelError, match="BartForConditionalGeneration is an encoder-decoder; masked trains"):
        build_network(ModelTable(family="bart", config=BART), ["masked"], bytelevel(), 0)
    with pytest.raises(
        ModelError, match=r"model\.config does not fit gpt2: .*'n_layer' expected int, got str"
    ) as caught:
        make_config(ModelTable(family="gpt2", config={"n_layer": "two"}), tiny_tokenizer())
    assert "\n" not in str(caught.value)


def test_a_bart_that_must_end_ends_with_the_tokenizers_own_token():
    config = make_config(ModelTable(family="bart"), tiny_tokenizer())
    assert config.forced_eos_token_id == config.eos_token_id == 1
