"""Encoder-decoders: both rules against transformers' own labels, start tokens, sums to one, texts."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from lydite.engine.reader import Reader
from lydite.engine.seq2seq import PairScorer, PairWindow, start_ids
from lydite.errors import ModelError
from lydite.models.seq2seq import Seq2SeqModel, load_seq2seq
from lydite.types import Completion, Decoding, Failure, GenerateRequest, LogProbs, Output, ScoreRequest
from tests.families import save_family
from tests.tiny import TEXTS


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("seq2seq")
    return {
        "t5": save_family(top / "t5", "t5"),
        "bart": save_family(top / "bart", "bart", max_position_embeddings=160),
    }


def load(folder: Path, **settings: object) -> Seq2SeqModel:
    return load_seq2seq(folder, name="tiny", source=str(folder), settings=settings)


def score(model: Seq2SeqModel, *pairs: tuple[str, str]) -> list[LogProbs]:
    requests = [ScoreRequest(sample_id="s", index=i, context=c, continuation=t) for i, (c, t) in enumerate(pairs)]
    outputs = dict(model.answer(requests))
    assert all(isinstance(output, LogProbs) for output in outputs.values()), outputs
    return [outputs[i] for i in range(len(pairs))]


def by_labels(folder: Path, context: str, labels: list[int]) -> list[float]:
    """log p of each label, with transformers' own shift of labels and its own encoding of the context."""
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        logits = model(**tokenizer(context, return_tensors="pt"), labels=torch.tensor([labels])).logits[0]
    return [float(logits[i].log_softmax(-1)[label]) for i, label in enumerate(labels)]


PAIRS = [(TEXTS[0], " the cat"), (TEXTS[0], " the dog sat"), ("", "The cat sat"), (TEXTS[6], "猫 </s>")]


def test_scores_equal_the_labels_of_transformers(folders: dict[str, Path]) -> None:
    for name in ("t5", "bart"):
        tokenizer = AutoTokenizer.from_pretrained(folders[name])
        for (context, continuation), output in zip(PAIRS, score(load(folders[name]), *PAIRS), strict=True):
            ids = tokenizer(continuation, add_special_tokens=False)["input_ids"]
            front = [tokenizer.bos_token_id] if name == "bart" else []  # BART's targets begin with <s>
            expected = by_labels(folders[name], context, front + ids)[len(front) :]
            assert output.logprobs == pytest.approx(expected, abs=1e-4)
            assert (output.rule, len(output.tokens)) == ("seq2seq", len(ids))


def test_the_sentinel_rule_fills_a_gap_behind_the_context(folders: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders["t5"])
    model = load(folders["t5"], rule="seq2seq:sentinel")
    for (context, continuation), output in zip(PAIRS, score(model, *PAIRS), strict=True):
        ids = tokenizer(continuation, add_special_tokens=False)["input_ids"]
        gap = tokenizer.convert_tokens_to_ids("<extra_id_0>")
        expected = by_labels(folders["t5"], context + "<extra_id_0>", [gap, *ids])[1:]
        assert output.logprobs == pytest.approx(expected, abs=1e-4)
        assert output.rule == "seq2seq:sentinel"
    assert model.info.settings["decoder"] == "<pad> <extra_id_0> ..."
    assert model.info.settings["encoder"] == "... <extra_id_0> </s>"
    assert load(folders["bart"]).info.settings["decoder"] == "</s> <s> ..."


def test_where_the_decoder_begins() -> None:
    assert start_ids({"decoder_start_token_id": 2}, {}, (0,)) == (2, 0)  # BART
    assert start_ids({"decoder_start_token_id": 0}, {}, ()) == (0,)  # T5
    assert start_ids({"decoder_start_token_id": 2, "forced_bos_token_id": 9}, {}, (5,)) == (2, 9)  # a language
    assert start_ids({"decoder_start_token_id": 2}, {"decoder_start_token_id": 7}, ()) == (7,)
    assert start_ids({"decoder_start_token_id": 101}, {}, (101,)) == (101,)  # a BERT that decodes
    with pytest.raises(ModelError, match="decoder_start_token_id"):
        start_ids({}, {}, ())


@pytest.mark.parametrize("first", [1, 2])
def test_probabilities_of_all_strings_sum_to_one(first: int, folders: dict[str, Path]) -> None:
    """All strings of two tokens after the start token, and after a sentinel behind it."""
    for name in ("t5", "bart"):
        model = AutoModelForSeq2SeqLM.from_pretrained(folders[name])
        model.resize_token_embeddings(14)
        model.config.vocab_size = 14
        model.eval()
        probe = {"input_ids": torch.tensor([[3, 4]]), "decoder_input_ids": torch.tensor([[0, 3]])}
        scorer = PairScorer(Reader(model, probe, batch_tokens=200), pad=1)
        source = np.asarray([5, 6, 2], dtype=np.int32)
        start = [0, 3][:first]
        windows = [
            PairWindow(source, np.asarray([*start, a, b], dtype=np.int32), first)
            for a, b in itertools.product(range(14), repeat=2)
        ]
        total = math.fsum(math.exp(scored.logprobs.sum()) for _, scored in scorer.score(windows))
        assert total == pytest.approx(1.0, abs=1e-5)


def test_the_encoder_runs_once_for_a_context(folders: dict[str, Path]) -> None:
    model = load(folders["t5"])
    outputs = score(model, *((TEXTS[0], choice) for choice in (" a", " b c", " a")))
    source = len(model.encoder.tokenizer(TEXTS[0])["input_ids"])
    assert model.usage.tokens_computed == source + len(outputs[0].tokens) + len(outputs[1].tokens)
    assert model.usage.tokens_requested == 3 * source + sum(len(output.tokens) for output in outputs)


def test_a_bias_behind_the_head_selects_the_models_own_logits(folders: dict[str, Path], tmp_path: Path) -> None:
    """As Marian has it; the numbers are those of transformers all the same."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folders["bart"])
    model.final_logits_bias.copy_(torch.linspace(-3, 3, model.config.vocab_size)[None])
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folders["bart"]).save_pretrained(tmp_path)
    biased = load(tmp_path)
    assert type(biased.scorer.reader.head).__name__ == "OwnLogits"
    tokenizer = biased.encoder.tokenizer
    ids = tokenizer(" the cat", add_special_tokens=False)["input_ids"]
    [output] = score(biased, (TEXTS[0], " the cat"))
    assert output.logprobs == pytest.approx(by_labels(tmp_path, TEXTS[0], [0, *ids])[1:], abs=1e-4)


def test_lengths(folders: dict[str, Path]) -> None:
    short = load(folders["bart"], max_tokens=16)
    long = " ".join(TEXTS[:3])
    [output] = score(short, (long, " The end"))
    size = len(short.encoder.text_ids([long])[0])
    assert output.num_truncated == size - 14
    [(_, failure)] = short.answer([ScoreRequest(sample_id="s", index=0, continuation=long)])
    assert isinstance(failure, Failure)
    assert "16" in failure.reason
    requests = [
        ScoreRequest(sample_id="s", index=i, continuation=long, window=w)
        for i, w in enumerate(("max_context", "disjoint"))
    ]
    for _, scored in short.answer(requests):
        assert isinstance(scored, LogProbs)
        assert len(scored.tokens) == size


# --------------------------------------------------------------------------------------------- generation


def write(model: Seq2SeqModel, *prompts: str, **decoding: object) -> list[Output]:
    requests = [
        GenerateRequest(sample_id=f"s{i}", index=0, prompt=p, decoding=Decoding(**({"max_new_tokens": 8} | decoding)))
        for i, p in enumerate(prompts)
    ]
    found = dict(model.answer(requests))
    return [found[i] for i in range(len(prompts))]


def by_hand(folder: Path, prompt: str, start: list[int], steps: int, penalty: float = 1.0) -> tuple[str, int]:
    """Argmax, one token at a time, without cache, batch or padding; the text and its number of tokens.

    `penalty`: divides positive and multiplies negative logits of tokens that stand in the text already."""
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = list(start)
    for _ in range(steps):
        with torch.inference_mode():
            out = model(**tokenizer(prompt, return_tensors="pt"), decoder_input_ids=torch.tensor([ids]))
        logits = out.logits[0, -1].clone()
        for seen in set(ids[len(start) :]):
            logits[seen] = logits[seen] * penalty if logits[seen] < 0 else logits[seen] / penalty
        token = int(logits.argmax())
        if token == tokenizer.eos_token_id:
            break
        ids.append(token)
    text = tokenizer.decode(ids[len(start) :], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text, len(ids) - len(start)


def test_greedy_text_equals_argmax_by_hand(folders: dict[str, Path]) -> None:
    for name, start in (("t5", [0]), ("bart", [2, 0])):
        model = load(folders[name])
        prompts = (TEXTS[0], "The", TEXTS[6], "")
        for prompt, output in zip(prompts, write(model, *prompts), strict=True):
            assert isinstance(output, Completion)
            assert (output.text, output.num_tokens) == by_hand(folders[name], prompt, start, 8)
        assert model.usage.tokens_generated > 0


def test_decoding_options(folders: dict[str, Path]) -> None:
    model = load(folders["t5"])
    [free] = write(model, TEXTS[0])
    assert isinstance(free, Completion)
    stop = free.text[1:3] or free.text
    if stop:  # random weights over pieces that are not the same each time may write nothing
        [cut] = write(model, TEXTS[0], stop_strings=(stop,))
        assert isinstance(cut, Completion)
        assert (cut.text, cut.finish) == (free.text[: free.text.find(stop)], "stop")
    sampled = write(model, TEXTS[0], "The", do_sample=True, temperature=2.0)
    assert write(model, TEXTS[0], "The", do_sample=True, temperature=2.0) == sampled
    assert write(model, TEXTS[0], do_sample=True, temperature=2.0) == sampled[:1]
    beams = write(model, TEXTS[0], "The", num_beams=3)
    assert write(model, TEXTS[0], num_beams=3) == beams[:1]
    [penalised] = write(model, TEXTS[0], repetition_penalty=5.0)
    assert isinstance(penalised, Completion)
    assert (penalised.text, penalised.num_tokens) == by_hand(folders["t5"], TEXTS[0], [0], 8, 5.0)
    [failure] = write(load(folders["bart"], max_tokens=16), "The", max_new_tokens=16)
    assert isinstance(failure, Failure)
    assert "16" in failure.reason


def test_beams_equal_those_of_transformers(folders: dict[str, Path]) -> None:
    network, tokenizer = (auto.from_pretrained(folders["bart"]) for auto in (AutoModelForSeq2SeqLM, AutoTokenizer))
    out = network.generate(
        **tokenizer(TEXTS[1], return_tensors="pt"),
        decoder_input_ids=torch.tensor([[2, 0]]),
        num_beams=3,
        max_new_tokens=8,
        do_sample=False,
        forced_eos_token_id=None,
    )
    [ours] = write(load(folders["bart"]), TEXTS[1], num_beams=3)
    assert isinstance(ours, Completion)
    assert ours.text == tokenizer.decode(out[0, 2:], skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_constrained_answers(folders: dict[str, Path]) -> None:
    pytest.importorskip("llguidance")
    [output] = write(load(folders["bart"]), TEXTS[0], choices=("yes", "no"))
    assert isinstance(output, Completion)
    assert output.text in ("yes", "no")
