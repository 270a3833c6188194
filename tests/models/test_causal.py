"""Causal models from a checkpoint folder: contract of `answer`, generation, failures, loading."""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lydite.errors import ModelError
from lydite.models.causal import CausalModel, load_causal
from lydite.types import (
    Completion,
    Decoding,
    Failure,
    GenerateRequest,
    LabelRequest,
    LogProbs,
    Message,
    Output,
    Request,
    ScoreRequest,
)
from tests.naive import naive, window
from tests.tiny import TEXTS, save_tiny


def load(folder: Path, **settings: object) -> CausalModel:
    return load_causal(folder, name="tiny", source=str(folder), settings=settings)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products are slower on two threads, much slower where others use the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "llama", "llama", scale=10.0, chat=True, max_tokens=256)


@pytest.fixture(scope="module")
def gemma_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "gemma3", "gemma3", scale=10.0, bos=True, max_tokens=256)


@pytest.fixture(scope="module")
def model(folder: Path) -> CausalModel:
    return load(folder)


def answers(model: CausalModel, requests: Sequence[Request]) -> list[Output]:
    """In the order of requests; each exactly once."""
    found = list(model.answer(requests))
    assert sorted(position for position, _ in found) == list(range(len(requests)))
    return [output for _, output in sorted(found, key=lambda pair: pair[0])]


def logprobs(model: CausalModel, requests: Sequence[Request]) -> list[LogProbs]:
    outputs = answers(model, requests)
    assert all(isinstance(output, LogProbs) for output in outputs), outputs
    return [output for output in outputs if isinstance(output, LogProbs)]


def score(context: str, continuation: str, sample: str = "s", index: int = 0, window: str = "none") -> ScoreRequest:
    return ScoreRequest(sample_id=sample, index=index, context=context, continuation=continuation, window=window)


def some_requests() -> list[ScoreRequest]:
    """Shots shared by questions, questions shared by choices, equal requests, empty contexts, spanned joins."""
    shots = "\n".join(TEXTS[:2]) + "\n\n"
    requests = []
    for q, text in enumerate(TEXTS):
        for c, choice in enumerate((" the cat", " the dog", "s", " A", " B")):
            requests.append(score(shots + text[:20], choice, f"q{q}", c))
        requests.append(score("", text, f"e{q}"))
    return [*requests, requests[0], requests[5]]


def assert_equal(ours: Sequence[Output], theirs: Sequence[Output], tolerance: float = 1e-4) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert isinstance(a, LogProbs)
        assert isinstance(b, LogProbs)
        assert (a.tokens, a.join, a.num_truncated) == (b.tokens, b.join, b.num_truncated)
        assert a.logprobs == pytest.approx(b.logprobs, abs=tolerance)


# ------------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_logprobs_equal_plain_transformers_from_the_folder(
    name: str, folder: Path, gemma_folder: Path, request: pytest.FixtureRequest
) -> None:
    where = folder if name == "llama" else gemma_folder
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(where), AutoTokenizer.from_pretrained(where)
    for asked, output in zip(some_requests(), logprobs(load(where), some_requests()), strict=True):
        if output.join == "spanned":
            continue
        front = [] if name == "llama" and asked.context else [0]
        ids = front + tokenizer(asked.context + asked.continuation, add_special_tokens=False)["input_ids"]
        expected, greedy = naive(plain, ids, len(ids) - len(output.logprobs))
        assert output.logprobs == pytest.approx(expected, abs=1e-4)
        assert output.greedy == greedy
        assert "".join(output.tokens) == asked.continuation or "\ufffd" in "".join(output.tokens)
        assert output.rule == "causal"


def test_chain_rule(model: CausalModel) -> None:
    """log p(ab) = log p(a) + log p(b | a) at token borders."""
    a, b = "The cat sat", " on the mat."
    whole, first, second = logprobs(model, [score("Q:", a + b), score("Q:", a, "t"), score("Q:" + a, b, "u")])
    assert (whole.join, first.join, second.join) == ("clean", "clean", "clean")
    assert whole.total == pytest.approx(first.total + second.total, abs=1e-4)


def test_probabilities_of_all_strings_sum_to_one(tmp_path: Path) -> None:
    """All strings of two tokens over a tiny vocabulary, straight through the scorer."""
    from lydite.engine.score import Scorer
    from tests.tiny import tiny_model

    scorer = Scorer(tiny_model("llama", scale=10.0, vocab_size=20), batch_tokens=64)
    windows = [window([0, a, b], 1) for a, b in itertools.product(range(20), repeat=2)]
    total = math.fsum(math.exp(scored.logprobs.sum()) for _, scored in scorer.score(windows))
    assert total == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("batch_tokens", [7, 100_000])
def test_values_do_not_depend_on_the_batch(batch_tokens: int, folder: Path, model: CausalModel) -> None:
    ours = answers(load(folder, batch_tokens=batch_tokens), some_requests())
    assert_equal(ours, answers(model, some_requests()))


def test_values_do_not_depend_on_order_neighbours_or_threads(model: CausalModel) -> None:
    requests = some_requests()
    reference = answers(model, requests)
    assert_equal(answers(model, requests[::-1])[::-1], reference)
    assert_equal(answers(model, requests[10:20]), reference[10:20])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_equal(answers(model, requests), reference)
    finally:
        torch.set_num_threads(threads)


def test_the_plain_path_gives_the_same_answers(folder: Path, model: CausalModel) -> None:
    plain = load(folder, packing=False)
    assert plain.info.settings["engine"] == "plain (asked for)"
    assert model.info.settings["engine"] == "packed"
    assert_equal(answers(plain, some_requests()), answers(model, some_requests()))


def test_rolling_windows_equal_naive_windows(folder: Path) -> None:
    """Tokens of a document of several windows, each scored in a window that a naive loop scores too."""
    short = load(folder, max_tokens=32)
    text = "\n".join(TEXTS)
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = [0, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    (output,) = logprobs(short, [score("", text, window="max_context")])
    expected: list[float] = []
    done = 1
    while done < len(ids):  # windows of 33 ids (32 inputs) that move by 16
        end = min(len(ids), done + 16 if expected else 33)
        begin = max(0, end - 33)
        expected += naive(plain, ids[begin:end], done - begin)[0]
        done = end
    assert output.logprobs == pytest.approx(expected, abs=1e-4)


def test_truncation_is_counted(folder: Path) -> None:
    short = load(folder, max_tokens=16)
    text = " ".join(TEXTS)
    (output,) = logprobs(short, [score(text, " The end")])
    assert output.num_truncated > 0
    (failure,) = answers(short, [score("", text)])
    assert isinstance(failure, Failure)
    assert "16" in failure.reason


def test_usage_counts_what_was_asked_and_what_was_done(folder: Path) -> None:
    counting = load(folder)
    asked = [score("The cat sat on", " the mat", "a", i) for i in range(3)]
    output = logprobs(counting, asked)[0]
    size = len(output.tokens) + len(counting.encoder.tokenizer("The cat sat on")["input_ids"]) - 1
    assert counting.usage.tokens_requested == 3 * size
    assert counting.usage.tokens_computed == size


# ----------------------------------------------------------------------------------------- not a number


def poisoned(folder: Path, token: int, value: float = math.nan) -> CausalModel:
    broken = load(folder)
    with torch.no_grad():
        broken.scorer.model.get_input_embeddings().weight[token] = value
    return broken


@pytest.mark.parametrize("batch_tokens", [None, 40])
def test_not_a_number_fails_only_the_requests_that_it_touches(folder: Path, batch_tokens: int | None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bad = min(set(tokenizer(" dog")["input_ids"]) - set(tokenizer("The quick brown cat sat on the mat.")["input_ids"]))
    requests = [
        score("The quick brown", " cat", "a"),
        score("The quick brown dog", " cat", "b"),
        score("The quick brown", " cat dog", "c"),  # the last token is never an input
        score("", "The cat sat on the mat.", "d"),
    ]
    reference = logprobs(load(folder), requests)
    broken = poisoned(folder, bad)
    if batch_tokens:
        broken.scorer.batch_tokens = batch_tokens
    outputs = answers(broken, requests)
    assert isinstance(outputs[1], Failure)
    assert "not a number" in outputs[1].reason
    assert_equal([outputs[i] for i in (0, 2, 3)], [reference[i] for i in (0, 2, 3)])


@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_beams": 3}])
def test_not_a_number_in_generation_is_a_failure_of_its_row_alone(folder: Path, options: dict[str, object]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bad = min(set(tokenizer(" dog")["input_ids"]) - set(tokenizer("The quick brown cat sat on the mat.")["input_ids"]))
    requests = [
        ask("The quick brown dog", "a", **options),
        ask("The quick brown cat", "b", max_new_tokens=1, **options),
    ]
    broken, fine = answers(poisoned(folder, bad), requests)
    assert isinstance(broken, Failure)
    assert "not a number" in broken.reason
    assert fine == answers(load(folder), requests)[1]


def test_zero_probability_is_a_failure(folder: Path) -> None:
    model = load(folder)
    head = torch.nn.Linear(model.scorer.head.module.in_features, model.scorer.head.module.out_features)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        head.weight.copy_(model.scorer.head.module.weight)
        head.bias.zero_()
        head.bias[tokenizer(" cat")["input_ids"][-1]] = -math.inf
    model.scorer.head.module = head
    outputs = answers(model, [score("The", " cat"), score("The", " dog", "t")])
    assert outputs[0] == Failure(reason="zero probability")
    assert isinstance(outputs[1], LogProbs)


# ------------------------------------------------------------------------------------------- generation


def ask(prompt: str, sample: str = "s", seed: int = 0, **decoding: object) -> GenerateRequest:
    return GenerateRequest(
        sample_id=sample, index=0, prompt=prompt, seed=seed, decoding=Decoding(**({"max_new_tokens": 12} | decoding))
    )


def completions(model: CausalModel, requests: Sequence[Request]) -> list[Completion]:
    outputs = answers(model, requests)
    assert all(isinstance(output, Completion) for output in outputs), outputs
    return [output for output in outputs if isinstance(output, Completion)]


def greedy_by_hand(folder: Path, prompt: list[int], steps: int) -> list[int]:
    """Argmax, one token at a time, without cache, batch or padding."""
    plain = AutoModelForCausalLM.from_pretrained(folder)
    ids = list(prompt)
    for _ in range(steps):
        with torch.inference_mode():
            ids.append(int(plain(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 1:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_greedy_text_equals_argmax_by_hand(name: str, folder: Path, gemma_folder: Path) -> None:
    where = folder if name == "llama" else gemma_folder
    model, tokenizer = load(where), AutoTokenizer.from_pretrained(where)
    prompts = [TEXTS[0], "The", TEXTS[6][:5], ""]
    for prompt, output in zip(prompts, completions(model, [ask(p) for p in prompts]), strict=True):
        front = [0] if name == "gemma3" or not prompt else []
        by_hand = greedy_by_hand(where, front + tokenizer(prompt, add_special_tokens=False)["input_ids"], 12)
        stopped = by_hand[-1] == 1
        by_hand = by_hand[:-1] if stopped else by_hand
        assert output.text == tokenizer.decode(by_hand)
        assert output.num_tokens == len(by_hand)
        assert output.finish == ("stop" if stopped else "length")


def test_stop_strings_cut_the_text_also_across_tokens(model: CausalModel) -> None:
    (free,) = completions(model, [ask(TEXTS[0])])
    pieces = model.encoder.tokenizer(free.text, add_special_tokens=False)["input_ids"]
    assert len(pieces) > 4
    border = len(model.encoder.decode(pieces[:3]))
    stop = free.text[border - 1 : border + 1]  # the end of one token and the beginning of the next
    (cut, other) = completions(
        model, [ask(TEXTS[0], stop_strings=(stop, "never")), ask("The", "t", stop_strings=(stop, "never"))]
    )
    assert cut.text == free.text[: free.text.find(stop)]
    assert cut.finish == "stop"
    assert cut.num_tokens <= 4
    assert stop not in other.text


def test_prompts_are_cut_from_the_left_and_counted(folder: Path) -> None:
    short = load(folder, max_tokens=24)
    prompt = " ".join(TEXTS)
    (output,) = completions(short, [ask(prompt)])
    ids = short.encoder.tokenizer(prompt)["input_ids"]
    assert output.num_truncated == len(ids) - 12
    by_hand = greedy_by_hand(folder, ids[-12:], 12)
    assert output.text == short.encoder.decode(by_hand, skip_special=True)
    (failure,) = answers(short, [ask("The", max_new_tokens=24)])
    assert isinstance(failure, Failure)
    assert "24" in failure.reason


def test_sampling_depends_on_seed_and_sample_only(model: CausalModel) -> None:
    requests = [ask("The cat", f"s{i}", do_sample=True, temperature=1.5) for i in range(4)]
    together = completions(model, requests)
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    assert completions(model, requests[2:3]) == together[2:3]
    assert completions(model, requests[::-1]) == together[::-1]
    assert len({output.text for output in together}) > 1
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's generator must not move"
    other = ask("The cat", "s0", seed=1, do_sample=True, temperature=1.5)
    assert completions(model, [other]) != together[:1]


def test_sampling_follows_the_model(model: CausalModel) -> None:
    """First tokens of 150 samples against exact probabilities (chi-square, bins of expected count at least 5)."""
    from scipy.stats import chisquare

    n, options = 150, {"do_sample": True, "temperature": 0.25, "max_new_tokens": 1}
    outputs = completions(model, [ask("The cat", f"{i}", **options) for i in range(n)])
    plain = model.scorer.model
    ids = model.encoder.prompt_ids(["The cat"])
    with torch.inference_mode():
        probs = (plain(input_ids=torch.tensor(ids)).logits[0, -1].double() / 0.25).softmax(-1).tolist()
    likely = {model.encoder.text_of(t): p for t, p in enumerate(probs) if p * n >= 5}
    likely = {text: p for text, p in likely.items() if text and "\ufffd" not in text}
    observed = [sum(output.text == text for output in outputs) for text in likely]
    expected = [p * n for p in likely.values()]
    observed.append(n - sum(observed))
    expected.append(n - sum(expected))
    assert len(expected) > 2
    assert chisquare(observed, expected).pvalue > 1e-4


def test_beams_find_a_text_at_least_as_likely(model: CausalModel) -> None:
    greedy, beams = completions(
        model, [ask("The cat", "a", max_new_tokens=4), ask("The cat", "b", max_new_tokens=4, num_beams=4)]
    )
    assert beams.finish == "length" or beams.num_tokens < 4
    totals = [
        output.total
        for output in logprobs(model, [score("The cat", o.text, str(i)) for i, o in enumerate((greedy, beams))])
    ]
    if greedy.finish == beams.finish == "length":
        assert totals[1] >= totals[0] - 1e-4 or "\ufffd" in greedy.text + beams.text


def test_messages_and_mixed_requests(model: CausalModel) -> None:
    messages = (Message(role="user", content="The cat?"),)
    chat = GenerateRequest(sample_id="c", index=0, messages=messages, decoding=Decoding(max_new_tokens=5))
    plain = GenerateRequest(
        sample_id="p", index=0, prompt="<s>user\nThe cat?</s>\n<s>assistant\n", decoding=Decoding(max_new_tokens=5)
    )
    label = LabelRequest(sample_id="l", index=0, text="x")
    outputs = answers(model, [chat, score("The", " cat"), label, plain])
    assert outputs[0] == outputs[3]
    assert isinstance(outputs[1], LogProbs)
    assert isinstance(outputs[2], Failure)


def test_the_checkpoints_own_decoding_defaults_do_not_leak_in(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text(
        '{"do_sample": true, "temperature": 5.0, "repetition_penalty": 9.0, "eos_token_id": [1, 7], "max_length": 3}'
    )
    other = load(tmp_path)
    assert other.generator.texts.eos == {1, 7}
    other.generator.eos = frozenset({1})
    assert completions(other, [ask("The")]) == completions(load(folder), [ask("The")])


# --------------------------------------------------------------------------------------------- loading


def test_what_the_model_says_of_itself(folder: Path, model: CausalModel, gemma_folder: Path) -> None:
    info = model.info
    assert (info.name, info.family, info.rule, info.can) == ("tiny", "causal", "causal", ("score", "generate"))
    assert info.max_tokens == 256
    assert info.dtype == "float32"
    assert info.parameters == sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(folder).parameters())
    assert info.settings["bos"].startswith("none")
    assert load(gemma_folder).info.settings["bos"] == "<s>"
    assert load(folder).info.fingerprint == info.fingerprint
    assert load(gemma_folder).info.fingerprint != info.fingerprint


def test_loading_is_quiet(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(folder)
    load(save_tiny(tmp_path / "bloom", "bloom"))
    capfd.readouterr()
    load(tmp_path / "bloom")
    load(folder)
    assert capfd.readouterr() == ("", "")


def test_dtype_is_explicit(folder: Path) -> None:
    half = load_causal(folder, name="t", source="t", dtype="bfloat16")
    assert half.info.dtype == "bfloat16"
    assert half.info.settings["engine"] == "packed"
    assert isinstance(answers(half, [score("The", " cat")])[0], LogProbs)
    with pytest.raises(ModelError, match="dtype"):
        load_causal(folder, name="t", source="t", dtype="float31")


def test_unknown_settings_name_the_known(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"batch_size.*batch_tokens"):
        load(folder, batch_size=8)
    with pytest.raises(ModelError, match="batch_tokens"):
        load(folder, batch_tokens="many")
    with pytest.raises(ModelError, match="batch_tokens"):
        load(folder, batch_tokens=0)
    with pytest.raises(ModelError, match="256"):
        load(folder, max_tokens=4096)
    assert load(folder, max_tokens="64").info.max_tokens == 64


def test_a_chat_template_from_a_file(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "template.jinja"
    path.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}:")
    request = ScoreRequest(
        sample_id="s", index=0, messages=(Message(role="user", content="The cat sat"),), continuation=" on"
    )
    model = load(folder, chat_template=str(path))
    assert_equal(answers(model, [request]), answers(model, [score("The cat sat:", " on")]))
    assert model.info.settings["chat_template"] != load(folder).info.settings["chat_template"]
    with pytest.raises(ModelError, match="chat_template"):
        load(folder, chat_template=str(tmp_path / "absent"))


def test_pickles_are_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ModelError, match="no weights"):
        load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"pickled weights \(pytorch_model\.bin\)"):
        load(tmp_path)


def test_unreadable_folders_are_one_clear_line(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="cannot be read") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_refused(tmp_path: Path, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="up_proj"):
        load(tmp_path)


# ------------------------------------------------------------------------------------------ a real model


@pytest.mark.real
def test_a_real_model_equals_plain_transformers() -> None:
    """SmolLM2-135M: shots shared by questions, questions by choices; largest difference a token, in float32."""
    from lydite.models.sources import find_checkpoint

    folder = find_checkpoint("smollm2-135m-instruct").folder
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = load(folder)
    assert model.info.settings["engine"] == "packed"
    requests = some_requests()[::2]
    worst = 0.0
    for asked, output in zip(requests, logprobs(model, requests), strict=True):
        if output.join == "spanned":
            continue
        front = [] if asked.context else [tokenizer.bos_token_id]
        ids = front + tokenizer(asked.context + asked.continuation, add_special_tokens=False)["input_ids"]
        expected, greedy = naive(plain, ids, len(ids) - len(output.logprobs))
        worst = max(worst, *(abs(a - b) for a, b in zip(output.logprobs, expected, strict=True)))
        assert output.greedy == greedy
    assert 0 < worst < (1e-4 if model.scorer.kernel.name == "default" else 3e-4)
