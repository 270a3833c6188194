"""Our decoder against transformers' `generate`: the same tokens, whatever runs beside them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, GenerationConfig

from lydite.engine.run import look_up
from lydite.engine.sampling import draw, penalise, probabilities
from lydite.models.causal import CausalModel, load_causal
from lydite.types import Completion, Decoding, Failure, GenerateRequest
from tests.tiny import TEXTS, save_tiny

PACKED = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi", "gpt2", "gpt_neox", "opt"]
SHOTS = " ".join(TEXTS[:4])


def load(folder: Path, **settings: object) -> CausalModel:
    return load_causal(folder, name="tiny", source="test", settings=settings)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    known: dict[str, Path] = {}

    class Made(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = save_tiny(tmp_path_factory.mktemp(name), name, scale=6.0, max_tokens=512)
            return self[name]

    return Made(known)


@pytest.fixture(scope="module")
def model(folders: dict[str, Path]) -> CausalModel:
    return load(folders["llama"])


def ask(prompt: str, sample: str = "s", seed: int = 0, index: int = 0, **decoding: object) -> GenerateRequest:
    options = {"max_new_tokens": 20} | decoding
    return GenerateRequest(sample_id=sample, index=index, prompt=prompt, seed=seed, decoding=Decoding(**options))


def completions(model: CausalModel, requests: list[GenerateRequest]) -> list[Completion]:
    found = dict(model.answer(requests))
    assert sorted(found) == list(range(len(requests)))
    outputs = [found[i] for i in range(len(requests))]
    assert all(isinstance(output, Completion) for output in outputs), outputs
    return outputs  # type: ignore[return-value]


def with_transformers(folder: Path, model: CausalModel, prompt: str, **options: object) -> str:
    """One prompt alone, through `generate`."""
    network = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor(model.encoder.prompt_ids([prompt]))
    config = GenerationConfig(**({"max_new_tokens": 20, "eos_token_id": 1, "pad_token_id": 2, "top_k": 0} | options))
    out = network.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return model.encoder.decode(out[0, ids.shape[1] :].tolist(), skip_special=True)


PROMPTS = [
    f"{SHOTS} The cat",
    f"{SHOTS} The dog and the",
    f"{SHOTS} The cat",
    f"{SHOTS} Question: which",
    f"{SHOTS} {TEXTS[5]} 今天天气",
]


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("shared", [True, False])
def test_greedy_text_equals_transformers(name: str, shared: bool, folders: dict[str, Path]) -> None:
    model = load(folders[name])
    assert model.scorer.can_decode, model.scorer.reason
    prompts = PROMPTS if shared else [TEXTS[0], "The", f"{SHOTS} {TEXTS[5]} 今天天气", TEXTS[3]]
    outputs = completions(model, [ask(p, str(i)) for i, p in enumerate(prompts)])
    for prompt, output in zip(prompts, outputs, strict=True):
        assert output.text == with_transformers(folders[name], model, prompt)
    assert (model.generator.num_computed < model.generator.num_requested) == shared


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_few_slots_rows_that_leave_and_guesses_change_nothing(name: str, folders: dict[str, Path]) -> None:
    prompts = [f"{SHOTS[: 20 * i]} The cat sat. The cat" for i in range(9)]
    requests = [ask(p, str(i), max_new_tokens=4 + 3 * i) for i, p in enumerate(prompts)]
    expected = [completions(load(folders[name]), [request])[0] for request in requests]
    for settings in ({}, {"batch_tokens": 300}, {"prompt_lookup": 4}, {"prompt_lookup": 3, "batch_tokens": 400}):
        assert completions(load(folders[name], **settings), requests) == expected


def test_guesses_save_steps_where_the_text_repeats(folders: dict[str, Path]) -> None:
    """A model in a loop is guessed right: fewer steps than tokens, the same text."""
    requests = [ask(TEXTS[2], max_new_tokens=120)]
    plain, guessing = load(folders["gpt2"]), load(folders["gpt2"], prompt_lookup=6)
    steps = []
    for one in (plain, guessing):
        calls: list[int] = []
        forward = one.scorer.forward
        one.scorer.forward = lambda ids, forward=forward, calls=calls, **more: (calls.append(1), forward(ids, **more))[
            1
        ]  # type: ignore[method-assign]
        steps.append((completions(one, requests), len(calls)))
    assert steps[0][0] == steps[1][0]
    assert steps[1][1] < 0.8 * steps[0][1]


def test_look_up_takes_what_followed_the_last_time() -> None:
    assert look_up([1, 2, 3, 9, 1, 2, 3], 2) == [9, 1]
    assert look_up([1, 2, 3, 4], 2) == []
    assert look_up([5, 7, 5, 8, 5], 3) == [8, 5]


@pytest.mark.parametrize("name", ["falcon", "mamba"])
def test_models_that_cannot_be_packed_generate_the_same(name: str, folders: dict[str, Path]) -> None:
    model = load(folders[name])
    assert not model.scorer.can_decode
    for prompt, output in zip(PROMPTS[:2], completions(model, [ask(p) for p in PROMPTS[:2]]), strict=True):
        assert output.text == with_transformers(folders[name], model, prompt)


@pytest.mark.parametrize(
    "options", [{"repetition_penalty": 1.7}, {"num_beams": 3}, {"num_beams": 3, "length_penalty": 3.0}]
)
def test_penalties_and_beams_equal_transformers(
    options: dict[str, object], model: CausalModel, folders: dict[str, Path]
) -> None:
    for prompt in ("The cat", TEXTS[3]):
        (output,) = completions(model, [ask(prompt, **options)])
        assert output.text == with_transformers(folders["llama"], model, prompt, **options)


def test_a_sampled_text_depends_on_its_seed_alone(model: CausalModel, folders: dict[str, Path]) -> None:
    requests = [ask(p, str(i), do_sample=True, temperature=1.2, top_p=0.9) for i, p in enumerate(PROMPTS)]
    together = completions(model, requests)
    assert [completions(model, [request])[0] for request in requests] == together
    assert completions(load(folders["llama"], batch_tokens=350), requests[::-1])[::-1] == together
    assert together[0].text != together[2].text, "equal prompts of different samples"
    again = ask(PROMPTS[0], "0", seed=1, do_sample=True, temperature=1.2)
    other = ask(PROMPTS[0], "0", index=1, do_sample=True, temperature=1.2)
    assert len({o.text for o in (together[0], *completions(model, [again, other]))}) == 3


def test_between_two_answers_the_model_is_the_callers(folders: dict[str, Path]) -> None:
    """Whoever reads answers one by one may train or run the model meanwhile."""
    model = load(folders["llama"], batch_tokens=300, kernel="default")
    before = model.scorer.model.config._attn_implementation
    ids = torch.tensor(model.encoder.prompt_ids(["The cat"]))
    count = 0
    for _ in model.answer([ask(p, str(i), max_new_tokens=3 + i) for i, p in enumerate(PROMPTS)]):
        assert not torch.is_inference_mode_enabled()
        assert model.scorer.model.config._attn_implementation == before
        weights = torch.ones(2, requires_grad=True)
        (model.scorer.model(input_ids=ids, labels=ids).loss * weights).sum().backward()
        count += 1
    assert count == len(PROMPTS)


def test_a_row_of_nan_fails_alone(folders: dict[str, Path]) -> None:
    prompts = [f"{SHOTS} A cat", f"{SHOTS} A 天 cat 天", f"{SHOTS} The dog"]
    requests = [ask(p, max_new_tokens=6) for p in prompts]
    model = load(folders["llama"])
    first, _, last = completions(model, requests)
    ids = [set(found) for found in model.encoder.prompt_ids(prompts)]
    written = set(model.encoder.prompt_ids([first.text, last.text])[0])
    poison = min(ids[1] - ids[0] - ids[2] - written)
    with torch.no_grad():
        model.scorer.model.get_input_embeddings().weight[poison] = torch.nan
    model.scorer.prefixes.clear()
    found = dict(model.answer(requests))
    assert isinstance(found[1], Failure)
    assert (found[0], found[2]) == (first, last)


# ------------------------------------------------------------------------------------------- sampling

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
STEPS = [
    {"temperature": 0.7},
    {"top_k": 3},
    {"top_p": 0.8},
    {"top_p": 0.05},
    {"min_p": 0.2},
    {"typical_p": 0.6},
    {"temperature": 1.4, "top_k": 5, "top_p": 0.9, "min_p": 0.1},
]


@pytest.mark.parametrize("options", STEPS)
def test_sampling_steps_equal_transformers(options: dict[str, float]) -> None:
    """The warpers of transformers, in its order, are the oracle."""
    from transformers import generation as g

    scores = LOGITS[None].clone()
    made = [
        ("temperature", g.TemperatureLogitsWarper),
        ("top_k", g.TopKLogitsWarper),
        ("top_p", g.TopPLogitsWarper),
        ("min_p", g.MinPLogitsWarper),
        ("typical_p", g.TypicalLogitsWarper),
    ]
    for name, warper in made:
        if name in options:
            scores = warper(options[name])(None, scores)
    ours = probabilities(LOGITS, Decoding(do_sample=True, **options))
    assert torch.allclose(ours.float(), scores[0].softmax(-1), atol=1e-6)


@pytest.mark.parametrize("options", [{}, *STEPS])
def test_draws_follow_the_distribution(options: dict[str, float]) -> None:
    probs = probabilities(LOGITS, Decoding(do_sample=True, **options))
    generator = np.random.default_rng(3)
    counts = np.bincount([draw(probs, generator) for _ in range(4000)], minlength=len(LOGITS))
    allowed = probs.numpy() > 0
    assert not counts[~allowed].any()
    if allowed.sum() > 1:
        assert chisquare(counts[allowed], 4000 * probs.numpy()[allowed] / probs.numpy()[allowed].sum()).pvalue > 1e-4


def test_penalties_by_hand() -> None:
    ours = penalise(LOGITS, Decoding(repetition_penalty=2.0, presence_penalty=0.25), [0, 4], [4, 1])
    assert ours.tolist() == [1.0, 0.25, 0.5, 0.0, -2.25, -3.0]
    assert probabilities(LOGITS, Decoding(do_sample=True, temperature=0.0)).tolist() == [1, 0, 0, 0, 0, 0]
