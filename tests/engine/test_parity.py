"""The engine's numbers against a naive loop in plain transformers, on tiny random models with sharp attention.

Weights are scaled up tenfold, so that a wrong mask or a wrong position moves log-probabilities by far more than the
tolerance; the mutation tests at the end make sure of that.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

import lydite.engine.attention as attention
import lydite.engine.score as score_module
from lydite.engine.head import OwnLogits
from lydite.engine.plan import Batch, Block
from lydite.engine.score import Scorer
from lydite.engine.tokens import Window
from tests.naive import naive, window
from tests.tiny import CONFIGS, tiny_model

PACKED = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi", "gpt2", "gpt_neox", "opt"]
PLAIN = ["falcon", "bloom", "mamba", "rwkv"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tree_windows(seed: int = 0, count: int = 14, vocab: int = 320) -> list[Window]:
    """Sequences of 2 to 100 tokens that share prefixes of many lengths, two of them equal."""
    rng = np.random.default_rng(seed)
    trunk = rng.integers(0, vocab, 60).tolist()
    windows = []
    for _ in range(count):
        ids = trunk[: rng.integers(0, 60)] + rng.integers(0, vocab, rng.integers(2, 40)).tolist()
        windows.append(window(ids, int(rng.integers(1, len(ids)))))
    return [*windows, windows[0], window(windows[1].ids, len(windows[1].ids) - 1)]


def largest_difference(scorer: Scorer, windows: list[Window], check_greedy: bool = True) -> float:
    answers = dict(scorer.score(windows))
    assert sorted(answers) == list(range(len(windows)))
    differences = []
    for index, asked in enumerate(windows):
        expected, greedy = naive(scorer.model, asked.ids, asked.first)
        differences.append(np.abs(answers[index].logprobs - expected).max())
        if check_greedy:
            assert bool(answers[index].greedy.all()) == greedy
    return float(max(differences))


@pytest.mark.parametrize("architecture", PACKED)
@pytest.mark.parametrize("batch_tokens", [17, 64, 4096])
def test_packed_logprobs_equal_the_naive_loop(architecture: str, batch_tokens: int) -> None:
    scorer = Scorer(tiny_model(architecture, scale=10.0), batch_tokens=batch_tokens)
    assert (scorer.path, scorer.reason) == ("packed", "")
    assert not isinstance(scorer.head, OwnLogits)
    windows = tree_windows()
    assert largest_difference(scorer, windows) < 1e-4
    distinct = {tuple(w.ids[: n + 1]) for w in windows for n in range(len(w.ids) - 1)}
    assert scorer.num_computed == len(distinct)


@pytest.mark.parametrize("architecture", PLAIN)
def test_architectures_without_the_attention_interface_fall_back_to_the_same_numbers(architecture: str) -> None:
    # Mamba exponentiates products of its weights: at scale 10 two ways to sum differ by more than 1e-4 on some processors.
    scorer = Scorer(tiny_model(architecture, scale=3.0 if architecture == "mamba" else 10.0), batch_tokens=256)
    assert scorer.path == "plain"
    assert "never calls" in scorer.reason
    assert largest_difference(scorer, tree_windows(count=10)) < 1e-4


def test_every_architecture_is_tested() -> None:
    assert sorted(PACKED + PLAIN) == sorted(CONFIGS)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_the_plain_path_gives_the_same_numbers(architecture: str) -> None:
    scorer = Scorer(tiny_model(architecture, scale=10.0), batch_tokens=256, plain=True)
    assert scorer.path == "plain"
    assert largest_difference(scorer, tree_windows()) < 1e-4


def test_sequences_that_change_their_neighbours_are_scored_alone() -> None:
    """Long-rope models rotate all rows of a batch by other angles when one of them is long."""
    model = tiny_model("llama", scale=10.0)
    model.config.rope_parameters = dict(model.config.rope_parameters) | {"rope_type": "longrope"}
    scorer = Scorer(model, batch_tokens=256)
    assert scorer.path == "plain"
    assert scorer.one_by_one
    calls = []
    handle = model.model.register_forward_pre_hook(
        lambda module, args, inputs: calls.append(inputs["input_ids"].shape[0]), with_kwargs=True
    )
    assert largest_difference(scorer, tree_windows(count=4)) < 1e-4
    handle.remove()
    assert set(calls) == {1}


def test_own_logits_give_the_same_numbers() -> None:
    scorer = Scorer(tiny_model("gemma2", scale=10.0), batch_tokens=64)
    scorer.head = OwnLogits(320)
    assert largest_difference(scorer, tree_windows()) < 1e-4


# ------------------------------------------------------------------------------------------ mutations


def forgetful(block: Block) -> Block:
    """A wrong mask: the block's rows no longer see the first key of their anchor."""
    if not block.anchor:
        return block
    first = block.anchor[0]
    return replace(block, anchor=(replace(first, start=first.start + 1, depth=first.depth + 1), *block.anchor[1:]))


def nosy(block: Block) -> Block:
    """A wrong mask: each chain of a block also sees the chain before it."""
    parts = [replace(part, parent=part.start - 1) if part.start else part for part in block.parts]
    return replace(block, parts=tuple(parts))


MUTATIONS = {
    "mask without the first ancestor": lambda b: replace(b, blocks=tuple(forgetful(block) for block in b.blocks)),
    "mask with a neighbour": lambda b: replace(b, blocks=tuple(nosy(block) for block in b.blocks)),
    "position of the last row": lambda b: replace(b, positions=np.append(b.positions[:-1], b.positions[-1] + 1)),
    "positions counted by row": lambda b: replace(b, positions=np.arange(len(b.ids))),
    "reads one row late": lambda b: replace(b, reads=tuple(replace(r, row=max(0, r.row - 1)) for r in b.reads)),
}


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_wrong_mask_or_position_is_seen_by_parity_and_by_the_probe(
    architecture: str, mutation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(architecture, scale=10.0)
    scorer = Scorer(model, batch_tokens=64)
    right = score_module.make_plan

    def wrong(*args: object, **options: object) -> list[Batch]:
        return [MUTATIONS[mutation](batch) for batch in right(*args, **options)]  # type: ignore[arg-type]

    monkeypatch.setattr(score_module, "make_plan", wrong)
    if architecture == "gpt2" and mutation == "positions counted by row":
        windows = tree_windows(count=3)  # few enough rows for the position table
    else:
        windows = tree_windows()
    assert largest_difference(scorer, windows, check_greedy=False) > 1e-2
    assert Scorer(model, batch_tokens=64).path == "plain"


def test_a_window_that_is_one_too_wide_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gemma3", scale=10.0)
    scorer = Scorer(model, batch_tokens=64)
    right = attention._lower

    def wrong(block: Block, batch: Batch, window: int | None, *rest: object) -> object:
        return right(block, batch, None if window is None else window + 1, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(attention, "_lower", wrong)
    assert largest_difference(scorer, tree_windows(), check_greedy=False) > 1e-2
    assert Scorer(model, batch_tokens=64).path == "plain"


def test_an_attention_function_that_ignores_the_soft_cap_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention._product

    def wrong(*args: object) -> torch.Tensor:
        return right(*args[:-1], replace(args[-1], softcap=None))  # type: ignore[arg-type,type-var]

    monkeypatch.setattr(attention, "_product", wrong)
    scorer = Scorer(tiny_model("gemma2", scale=10.0), batch_tokens=64)
    assert scorer.path == "plain"
    assert "differ" in scorer.reason


def test_what_the_packed_tree_does_not_compute_is_refused() -> None:
    """Nothing that a model asks of its attention is dropped in silence."""
    model = tiny_model("llama")
    q = torch.zeros(1, 4, 3, 8)
    with pytest.raises(attention.Unsupported, match="outside"):
        attention._attention(model, q, q, q, None)
    (batch,) = score_module.make_plan([window([1, 2, 3, 4], 1)])
    token = attention._ACTIVE.set(attention.TreePass(batch, attention.Store()))
    try:
        attention._attention(model, q, q, q, None, scaling=0.5, position_ids=q, softcap=None, head_mask=None)
        for options in ({"position_bias": q}, {"head_mask": q}, {"dropout": 0.1}, {"is_causal": False}):
            with pytest.raises(attention.Unsupported):
                attention._attention(model, q, q, q, None, **options)
        with pytest.raises(attention.Unsupported, match="window"):
            attention._attention(model, q, q, q, None, sliding_window=2)
        with pytest.raises(attention.Unsupported, match="shapes"):
            attention._attention(model, q, q[:, :3], q[:, :3], None)
    finally:
        attention._ACTIVE.reset(token)
    config = model.config
    assert attention._mask(config=config) is None
    assert int(attention._mask(config=config, local_size=7)) == 7
    for options in ({"attention_mask": q}, {"use_vmap": True}, {"allow_is_bidirectional_skip": True}):
        with pytest.raises(attention.Unsupported):
            attention._mask(config=config, **options)
    config.attention_chunk_size = 7
    with pytest.raises(attention.Unsupported, match="chunks"):
        attention._mask(config=config, local_size=7)
