"""Heads: labels, numbers and spans against transformers one row at a time, and what does not match."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer

from lydite.errors import ModelError
from lydite.models import load_model
from lydite.types import Failure, LabelProbs, LabelRequest, Model, Output, Request, Span, SpanRequest
from tests.families import save_family
from tests.tiny import TEXTS

LABELS = ("entailment", "neutral", "Contradiction")


def names(labels: Sequence[str]) -> dict[str, object]:
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def save_classifier(folder: Path, name: str, labels: Sequence[str] = LABELS, **config: object) -> Path:
    known = {"gpt2": {"pad_token_id": 2}, "bart": {"eos_token_id": 2}, "t5": {"eos_token_id": 1}}
    pads: dict[str, object] = dict(known.get(name, {}))
    if name in ("albert", "roberta", "bart", "gpt2"):  # room for a pair in tiny tokens
        pads |= {"n_positions" if name == "gpt2" else "max_position_embeddings": 160}
    auto = transformers.AutoModelForSequenceClassification
    return save_family(folder, name, head=auto, scale=4.0, **(names(labels) | pads | config))


def answers(model: Model, requests: Sequence[Request]) -> list[Output]:
    found = dict(model.answer(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[i] for i in range(len(requests))]


def ask(text: str, pair: str | None = None, labels: Sequence[str] = LABELS) -> LabelRequest:
    return LabelRequest(sample_id="s", index=0, text=text, text_pair=pair, labels=tuple(labels))


TEXT_PAIRS = [
    (TEXTS[0], TEXTS[1]),
    ("The cat", None),
    (TEXTS[6], "The"),
    ("A dog sleeps", "The cat sat on the mat."),
    ("", None),
]


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "electra", "xlnet", "bart", "t5", "gpt2", "our-encoder"])
def test_labels_equal_transformers_one_row_at_a_time(name: str, tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / name, name)
    model = load_model(str(folder))
    assert (model.info.family, model.info.can) == ("classifier", ("label",))
    network, tokenizer = (auto.from_pretrained(folder) for auto in (AutoModelForSequenceClassification, AutoTokenizer))
    pairs = [pair for pair in TEXT_PAIRS if pair[0] or name != "gpt2"]
    outputs = answers(model, [ask(*pair, labels=("neutral", "contradiction", "ENTAILMENT")) for pair in pairs])
    for (text, pair), output in zip(pairs, outputs, strict=True):
        encoded = (
            tokenizer(text, pair, return_tensors="pt") if pair is not None else tokenizer(text, return_tensors="pt")
        )
        with torch.inference_mode():
            probs = network(**encoded).logits[0].softmax(-1)
        assert isinstance(output, LabelProbs), output
        assert output.probs == pytest.approx(probs[[1, 2, 0]].tolist(), abs=1e-5)
        assert output.num_truncated == 0
    again = answers(load_model(str(folder), settings={"batch_tokens": 20}), [ask(*pair) for pair in pairs[::-1]])
    for output, other in zip(again[::-1], outputs, strict=True):
        assert isinstance(output, LabelProbs)
        assert isinstance(other, LabelProbs)
        assert output.probs == pytest.approx([other.probs[2], other.probs[0], other.probs[1]], abs=1e-5)


def test_long_texts_are_cut_as_tokenizers_cuts_them(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, "bert")
    model = load_model(str(folder), settings={"max_tokens": 20})
    network, tokenizer = (auto.from_pretrained(folder) for auto in (AutoModelForSequenceClassification, AutoTokenizer))
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[0], "The cat"), ("The cat", TEXTS[0]), (TEXTS[2], None)]
    for (text, pair), output in zip(pairs, answers(model, [ask(*pair) for pair in pairs]), strict=True):
        encoded = tokenizer(text, pair, truncation=True, max_length=20, return_tensors="pt")
        whole = len(tokenizer(text, pair)["input_ids"])
        with torch.inference_mode():
            probs = network(**encoded).logits[0].softmax(-1)
        assert isinstance(output, LabelProbs)
        assert output.probs == pytest.approx(probs.tolist(), abs=1e-5)
        assert output.num_truncated == whole - 20


def test_labels_that_do_not_match_are_one_line(tmp_path: Path) -> None:
    named = load_model(str(save_classifier(tmp_path / "named", "bert")))
    outputs = answers(named, [ask("The", labels=("yes", "no")), ask("The", labels=()), ask("The", labels=LABELS[:2])])
    assert isinstance(outputs[0], Failure)
    assert "entailment, neutral, Contradiction, not yes, no" in outputs[0].reason
    assert isinstance(outputs[1], Failure)
    assert "one number" in outputs[1].reason
    assert isinstance(outputs[2], LabelProbs)
    assert sum(outputs[2].probs) == pytest.approx(1.0)
    plain = load_model(str(save_classifier(tmp_path / "plain", "bert", ("LABEL_0", "LABEL_1"))))
    by_order, by_name, three = answers(
        plain, [ask("The", labels=("yes", "no")), ask("The", labels=("LABEL_0", "LABEL_1")), ask("The")]
    )
    assert by_order == by_name
    assert isinstance(three, Failure)
    with pytest.raises(ModelError, match="several labels"):
        load_model(str(save_classifier(tmp_path / "multi", "bert", problem_type="multi_label_classification")))


def test_a_regression_head_gives_its_number(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path, "bert", ("LABEL_0",))
    network, tokenizer = (auto.from_pretrained(folder) for auto in (AutoModelForSequenceClassification, AutoTokenizer))
    number, failure = answers(load_model(str(folder)), [ask("The", "A cat", labels=()), ask("The")])
    with torch.inference_mode():
        expected = float(network(**tokenizer("The", "A cat", return_tensors="pt")).logits[0, 0])
    assert isinstance(number, LabelProbs)
    assert number.probs == pytest.approx([expected], abs=1e-5)
    assert isinstance(failure, Failure)


# ------------------------------------------------------------------------------------------------- spans


def brute_force(folder: Path, question: str, passage: str, longest: int, stride: int) -> tuple[str, float, float]:
    """(best text, its score, score of no answer): the tokenizer's own windows, one forward each, all spans tried."""
    network, tokenizer = (auto.from_pretrained(folder) for auto in (AutoModelForQuestionAnswering, AutoTokenizer))
    windows = tokenizer(
        question,
        passage,
        truncation="only_second",
        max_length=longest,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    best, text, null = -math.inf, "", math.inf
    for w, ids in enumerate(windows["input_ids"]):
        extra = {"token_type_ids": torch.tensor([windows["token_type_ids"][w]])} if "token_type_ids" in windows else {}
        with torch.inference_mode():
            out = network(input_ids=torch.tensor([ids]), **extra)
        starts, ends = out.start_logits[0].tolist(), out.end_logits[0].tolist()
        of, where = windows.sequence_ids(w), windows["offset_mapping"][w]
        cls = ids.index(tokenizer.cls_token_id)
        null = min(null, starts[cls] + ends[cls])
        for i in range(len(ids)):
            for j in range(i, min(len(ids), i + 30)):
                if of[i] == of[j] == 1 and starts[i] + ends[j] > best:
                    best, text = starts[i] + ends[j], passage[where[i][0] : where[j][1]].strip()
    return text, best, null


@pytest.mark.parametrize("name", ["bert", "roberta", "xlnet", "bart"])
def test_spans_equal_brute_force(name: str, tmp_path: Path) -> None:
    folder = save_family(tmp_path / name, name, head=transformers.AutoModelForQuestionAnswering, scale=4.0)
    settings = {"max_tokens": 40, "doc_stride": 8}
    model = load_model(str(folder), settings=settings)
    always = load_model(str(folder), settings=settings | {"no_answer": False, "batch_tokens": 50})
    assert (model.info.family, model.info.can) == ("span", ("span",))
    questions = [("Who sat?", " ".join(TEXTS[:5])), ("问题", TEXTS[6]), ("What?", "The cat.")]
    requests = [SpanRequest(sample_id="s", index=i, question=q, passage=p) for i, (q, p) in enumerate(questions)]
    for (question, passage), output, forced in zip(
        questions, answers(model, requests), answers(always, requests), strict=True
    ):
        text, best, null = brute_force(folder, question, passage, 40, 8)
        assert isinstance(output, Span), output
        assert isinstance(forced, Span)
        assert (forced.text, passage[forced.start : forced.end], forced.no_answer_prob) == (text, text, None)
        assert output.no_answer_prob == pytest.approx(1 / (1 + math.exp(best - null)), abs=1e-4)
        assert output.text == ("" if null > best else text)


def test_questions_and_passages_that_do_not_fit(tmp_path: Path) -> None:
    folder = save_family(tmp_path / "b", "bert", head=transformers.AutoModelForQuestionAnswering)
    model = load_model(str(folder), settings={"max_tokens": 24, "doc_stride": 8})
    long, empty, label = answers(
        model,
        [
            SpanRequest(sample_id="s", index=0, question=TEXTS[0], passage=TEXTS[1]),
            SpanRequest(sample_id="s", index=1, question="Who?", passage=""),
            ask("The"),
        ],
    )
    assert isinstance(long, Failure)
    assert "doc_stride" in long.reason
    assert isinstance(empty, Failure)
    assert isinstance(label, Failure)
    with pytest.raises(ModelError, match="doc_stride"):
        load_model(str(folder), settings={"doc_stride": -1})
