"""Every architecture answers the same requests: contract of `answer` through load_model, whatever the family."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from lydite.errors import ModelError
from lydite.models import load_model
from lydite.types import (
    Completion,
    Decoding,
    Failure,
    GenerateRequest,
    LabelRequest,
    LogProbs,
    Model,
    Output,
    Request,
    ScoreRequest,
    SpanRequest,
)
from tests.families import FAMILIES, save_family
from tests.tiny import TEXTS

RULES = {
    "gpt2": ("causal", "causal"),
    "llama": ("causal", "causal"),
    "qwen2": ("causal", "causal"),
    "bert": ("masked", "pseudo:within_word_l2r"),
    "roberta": ("masked", "pseudo:within_word_l2r"),
    "albert": ("masked", "pseudo:within_word_l2r"),
    "electra": ("masked", "pseudo:within_word_l2r"),
    "xlnet": ("permutation", "permutation"),
    "t5": ("seq2seq", "seq2seq"),
    "bart": ("seq2seq", "seq2seq"),
    "our-encoder": ("masked", "pseudo:within_word_l2r"),
    "our-decoder": ("causal", "causal"),
    "our-encoder-decoder": ("seq2seq", "seq2seq"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("families")
    return {name: save_family(top / name, name) for name in FAMILIES}


def answers(model: Model, requests: Sequence[Request]) -> list[Output]:
    """In the order of requests; each exactly once."""
    found = list(model.answer(requests))
    assert sorted(position for position, _ in found) == list(range(len(requests)))
    return [output for _, output in sorted(found, key=lambda pair: pair[0])]


def asked() -> list[Request]:
    """Choices that share contexts, empty contexts, equal requests, long texts in windows, texts to be written."""
    requests: list[Request] = []
    for q, text in enumerate(TEXTS):
        for c, choice in enumerate((" the cat", " the dog sat on it", "s", " 猫")):
            requests.append(ScoreRequest(sample_id=f"q{q}", index=c, context=text[:24], continuation=choice))
        requests.append(ScoreRequest(sample_id=f"e{q}", index=0, continuation=text[:18]))
    whole = " ".join(TEXTS[:4])
    requests += [ScoreRequest(sample_id="w", index=i, continuation=whole, window=kind) for i, kind in
                 enumerate(("max_context", "disjoint"))]  # fmt: skip
    requests.append(ScoreRequest(sample_id="cut", index=0, context=whole, continuation=" the end"))
    return [*requests, requests[0]]


def texts() -> list[Request]:
    prompts = [TEXTS[0], "The cat", TEXTS[6][:6], ""]
    decoding = Decoding(max_new_tokens=6)
    return [GenerateRequest(sample_id=f"g{i}", index=0, prompt=p, decoding=decoding) for i, p in enumerate(prompts)]


def assert_equal(ours: Sequence[Output], theirs: Sequence[Output]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        if isinstance(a, LogProbs):
            assert isinstance(b, LogProbs)
            assert (a.tokens, a.join, a.num_truncated, a.rule) == (b.tokens, b.join, b.num_truncated, b.rule)
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        else:
            assert a == b


@pytest.mark.parametrize("name", FAMILIES)
def test_one_contract_for_every_architecture(name: str, folders: dict[str, Path]) -> None:
    model = load_model(str(folders[name]))
    assert (model.info.family, model.info.rule) == RULES[name]
    assert model.info.dtype == "float32"
    requests = asked() + (texts() if "generate" in model.info.can else [])
    reference = answers(model, requests)
    for request, output in zip(requests, reference, strict=True):
        if isinstance(request, ScoreRequest):
            assert isinstance(output, LogProbs), output
            assert output.rule == model.info.rule
            assert output.tokens
            assert all(value <= 0 for value in output.logprobs)
        else:
            assert isinstance(output, Completion), output
    cut = reference[len(asked()) - 2]
    assert isinstance(cut, LogProbs)
    assert (cut.num_truncated > 0) == (model.info.max_tokens is not None)
    assert_equal(answers(model, requests[::-1])[::-1], reference)  # order
    assert_equal(answers(model, requests[5:9]), reference[5:9])  # neighbours
    small = load_model(str(folders[name]), settings={"batch_tokens": 150})
    assert_equal(answers(small, requests), reference)  # batches
    assert model.usage.tokens_requested > 0
    assert model.usage.tokens_computed > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_family_cannot_answer_is_one_failure(name: str, folders: dict[str, Path]) -> None:
    model = load_model(str(folders[name]))
    label = LabelRequest(sample_id="l", index=0, text="The cat", labels=("a", "b"))
    span = SpanRequest(sample_id="s", index=0, question="Who?", passage="The cat.")
    empty = ScoreRequest(sample_id="e", index=0, context="The", continuation="")
    fine = ScoreRequest(sample_id="f", index=0, context="The", continuation=" cat")
    outputs = answers(model, [label, span, empty, fine, *texts()[:1]])
    assert all(isinstance(output, Failure) for output in outputs[:3])
    assert isinstance(outputs[3], LogProbs)
    assert isinstance(outputs[4], Completion if "generate" in model.info.can else Failure)


@pytest.mark.parametrize("name", FAMILIES)
def test_not_a_number_is_a_failure(name: str, folders: dict[str, Path]) -> None:
    import torch

    model = load_model(str(folders[name]), settings={"kernel": "default"})
    with torch.no_grad():
        list(model.network().parameters())[-1].fill_(math.nan)  # type: ignore[attr-defined]
    [output] = answers(model, [ScoreRequest(sample_id="f", index=0, context="The", continuation=" cat")])
    assert isinstance(output, Failure)
    assert "not a number" in output.reason


def test_models_train_after_they_have_scored(folders: dict[str, Path]) -> None:
    import torch

    for name in ("bert", "t5", "xlnet"):
        model = load_model(str(folders[name]), settings={"kernel": "onednn"})
        answers(model, asked()[:3])
        network = model.network()  # type: ignore[attr-defined]
        network.requires_grad_(True)
        ids = torch.tensor([[7, 8, 9]])
        network(input_ids=ids, labels=ids).loss.backward()
        assert all(
            p.grad is not None
            for n, p in network.named_parameters()
            if "weight" in n and "pooler" not in n and "seg" not in n
        )


def test_an_electra_discriminator_says_what_it_is_for(tmp_path: Path) -> None:
    import transformers

    folder = save_family(tmp_path / "d", "electra", head=transformers.AutoModelForPreTraining)
    with pytest.raises(ModelError, match=r"discriminator.*no language-model head.*labels or spans") as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)


def test_settings_of_another_family_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="unknown model setting 'pll'"):
        load_model(str(folders["gpt2"]), settings={"pll": "original"})
    with pytest.raises(ModelError, match="wrong type"):
        load_model(str(folders["bert"]), settings={"pll": "backwards"})
    with pytest.raises(ModelError, match="<extra_id_0>"):
        load_model(str(folders["bart"]), settings={"rule": "seq2seq:sentinel"})
