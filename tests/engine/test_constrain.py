"""Constrained answers: whatever a random model would rather say, its text has the form; others' texts do not change.

The oracles are Python's `re` and `json` and a schema checked by hand; the models are random, so that without the
constraint no answer ever has the form.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lydite.engine.constrain import Constraints
from lydite.errors import ModelError
from lydite.models.causal import CausalModel, load_causal
from lydite.types import Completion, Decoding, Failure, GenerateRequest
from tests.tiny import TEXTS, save_tiny

PHONE = "\\+[0-9]{2} [0-9]{3}-[0-9]{4}"
CHINESE = ("公园", "公园里", "天气很好", "第一个", "龘")
CHOICES = ("yes", "yes, of course", 'no "way"\n', "a\\b|c.*", "\x7f €")
SCHEMA = {
    "type": "object",
    "properties": {
        "名字": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["猫", "dog"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["名字", "age", "kind", "tags"],
    "additionalProperties": False,
}
FORMS: list[dict[str, Any]] = [
    {"regex": PHONE},
    {"json_schema": SCHEMA},
    {"choices": CHINESE},
    {"choices": CHOICES},
    {"regex": "(猫|狗){1,4}。|[a-f]{2,5}!"},
]


def fits(text: str, form: dict[str, Any]) -> bool:
    if "regex" in form:
        return re.fullmatch(form["regex"], text) is not None
    if "choices" in form:
        return text in form["choices"]
    found = json.loads(text)
    return (
        list(found) == ["名字", "age", "kind", "tags"]
        and len(found["名字"]) <= 6
        and type(found["age"]) is int
        and 0 <= found["age"] <= 150
        and found["kind"] in ("猫", "dog")
        and len(found["tags"]) <= 3
        and all(type(tag) is bool for tag in found["tags"])
    )


def load(folder: Path, **settings: object) -> CausalModel:
    return load_causal(folder, name="tiny", source="test", settings=settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llama"), "llama", scale=6.0, max_tokens=512)


@pytest.fixture(scope="module")
def model(folder: Path) -> CausalModel:
    return load(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> CausalModel:
    """A model that goes through transformers' `generate`."""
    found = load(save_tiny(tmp_path_factory.mktemp("falcon"), "falcon", scale=6.0, max_tokens=512))
    assert not found.scorer.can_decode
    return found


def ask(prompt: str, sample: str = "s", **decoding: Any) -> GenerateRequest:
    return GenerateRequest(
        sample_id=sample, index=0, prompt=prompt, decoding=Decoding(**({"max_new_tokens": 150} | decoding))
    )


def answers(model: CausalModel, requests: list[GenerateRequest]) -> list[Completion]:
    found = dict(model.answer(requests))
    outputs = [found[i] for i in range(len(requests))]
    assert all(isinstance(output, Completion) for output in outputs), outputs
    return outputs  # type: ignore[return-value]


def mixed(**options: Any) -> tuple[list[GenerateRequest], list[dict[str, Any]]]:
    """Every form for every prompt, and between them as many free texts."""
    prompts = (f"{TEXTS[2]} Answer:", TEXTS[6])
    forms = [form for form in FORMS for _ in prompts]
    requests = [ask(prompts[i % 2], str(i), **form, **options) for i, form in enumerate(forms)]
    free = [ask(prompts[i % 2], f"free{i}", max_new_tokens=12, **options) for i in range(len(forms))]
    both = [request for pair in zip(requests, free, strict=True) for request in pair]
    return both, [form for form in forms for form in (form, {})]


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 1.5, "top_p": 0.95}])
@pytest.mark.parametrize("path", ["packed", "plain"])
def test_every_answer_has_its_form(path: str, options: dict[str, Any], model: CausalModel, plain: CausalModel) -> None:
    one = model if path == "packed" else plain
    requests, forms = mixed(**options)
    found = answers(one, requests)
    for output, form in zip(found, forms, strict=True):
        if form:
            assert output.finish == "stop", output
            assert fits(output.text, form), (output.text, form)
            assert output.num_tokens <= len(output.text.encode())
    free = [request for request, form in zip(requests, forms, strict=True) if not form]
    alone = answers(one, free)
    assert alone == [output for output, form in zip(found, forms, strict=True) if not form]
    assert not any(re.fullmatch(PHONE, output.text) or output.text in CHINESE for output in alone)


def test_few_slots_and_guesses_change_nothing(folder: Path, model: CausalModel) -> None:
    requests, _ = mixed()
    expected = answers(model, requests)
    for settings in ({"batch_tokens": 450}, {"prompt_lookup": 3}):
        assert answers(load(folder, **settings), requests) == expected


def test_every_token_is_the_likeliest_of_those_that_keep_the_form(model: CausalModel) -> None:
    """A naive forward pass at each step, and the bytes that a list of choices still allows. Where the next byte is
    certain, llguidance writes it in the tokenizer's own tokens."""
    tokenizer, network = model.encoder.tokenizer, model.network()
    choices = [text.encode() for text in ("cat", "cats sit", "dog", "今天天气", "今年", "散步", "0 1", "1 2")]
    alphabet = {char: byte for byte, char in bytes_to_unicode().items()}
    specials = set(tokenizer.all_special_ids)
    vocabulary = {token: piece for piece, token in tokenizer.get_vocab().items() if token not in specials}
    pieces = {token: bytes(alphabet[char] for char in piece) for token, piece in vocabulary.items()}
    num_chosen = 0
    for text in TEXTS:
        new: list[int] = []
        model.generator.watch = lambda _, token, new=new: new.append(token)
        (output,) = answers(model, [ask(text, choices=tuple(choice.decode() for choice in choices))])
        model.generator.watch = None
        prompt, written = model.encoder.prompt_ids([text])[0], b""
        for step, token in enumerate(new):
            left = [choice[len(written) :] for choice in choices if choice.startswith(written)]
            allowed = [one for one, piece in pieces.items() if any(rest.startswith(piece) for rest in left)]
            allowed += [1] if b"" in left else []
            assert token in allowed
            if len({rest[:1] for rest in left}) > 1:  # else bytes are forced
                with torch.no_grad():
                    logits = network(torch.tensor([prompt + new[:step]])).logits[0, -1]
                assert token == max(allowed, key=lambda one, logits=logits: float(logits[one]))
                num_chosen += 1
            written += pieces.get(token, b"")
        assert output.text == written.decode()
        assert written in choices
    assert num_chosen >= len(TEXTS)


def bytes_to_unicode() -> dict[int, str]:
    """GPT-2's alphabet of bytes, as transformers has it."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode as alphabet

    return dict(alphabet())


def test_padded_rows_and_special_tokens_are_never_allowed(model: CausalModel) -> None:
    constraint = model.generator.texts.constraints.make(Decoding(regex="(?s).*"))
    assert constraint is not None
    assert not isinstance(constraint, Failure)
    assert model.scorer.model.config.vocab_size == 328
    mask = constraint.mask(328)
    assert mask[:320].sum() > 200
    assert not mask[320:].any()
    assert not mask[[0, 2]].any()
    assert mask[1], "the text may stop"
    assert constraint.may_stop
    assert not constraint.is_done
    logits = torch.randn(328)
    masked = constraint.apply(logits)
    assert torch.equal(masked[mask], logits[mask])
    assert bool((masked[~mask] == -torch.inf).all())
    assert constraint.mask(40).tolist() == mask[:40].tolist(), "a model may have fewer rows than its tokenizer"


def test_without_an_end_token_a_text_ends_where_nothing_may_follow(model: CausalModel) -> None:
    constraint = Constraints(model.encoder, frozenset()).make(Decoding(regex="1{2,3}"))
    assert constraint is not None
    assert not isinstance(constraint, Failure)
    one = model.encoder.prompt_ids(["1"])[0][-1]
    seen = []
    for _ in range(3):
        assert constraint.mask(328).nonzero().flatten().tolist() == [one]
        constraint.accept(one)
        seen.append((constraint.may_stop, constraint.is_done))
    assert seen == [(False, False), (True, False), (True, True)]


def test_an_answer_that_is_cut_says_so(model: CausalModel, plain: CausalModel) -> None:
    for one in (model, plain):
        cut, whole = answers(one, [ask("The", regex="[0-9]{9}", max_new_tokens=n) for n in (4, 9)])
        assert (cut.finish, whole.finish) == ("length", "stop")
        assert re.fullmatch("[0-9]{4}", cut.text)
        assert re.fullmatch("[0-9]{9}", whole.text)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"regex": "(a"}, "regex '(a' cannot be used: unclosed group"),
        ({"regex": "(?=a)b"}, "look-around"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema cannot be used: Invalid type: nonsense"),
        ({"json_schema": {"enum": []}}, "Unsatisfiable schema"),
        ({"json_schema": {"not": {"type": "integer"}}}, "Unimplemented keys"),
    ],
)
def test_a_form_that_cannot_be_used_fails_its_own_request(
    form: dict[str, Any], reason: str, model: CausalModel
) -> None:
    found = dict(model.answer([ask("The cat", **form), ask("The cat", max_new_tokens=4)]))
    assert isinstance(found[0], Failure)
    assert reason in found[0].reason
    assert "\n" not in found[0].reason
    assert isinstance(found[1], Completion)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"regex": "a", "choices": ("b",)}, "exclude each other"),
        ({"regex": "a", "json_schema": {}}, "exclude each other"),
        ({"json_schema": "[1]"}, "no JSON object"),
        ({"json_schema": "{"}, "no JSON object"),
        ({"choices": ("a", "")}, "empty"),
        ({"regex": "a", "num_beams": 2}, "beam search"),
    ],
)
def test_decoding_refuses(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Decoding(**options)


def test_a_schema_keeps_its_order_and_can_be_a_key() -> None:
    one = Decoding(json_schema={"properties": {"b": {}, "a": {}}})
    assert one.json_schema == '{"properties":{"b":{},"a":{}}}'
    assert {one: 1}[Decoding(json_schema=one.json_schema)] == 1


def test_without_llguidance_one_line_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folder)
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ModelError, match=r"pip install 'lydite\[constrain\]'"):
        list(model.answer([ask("The cat", regex="a")]))
