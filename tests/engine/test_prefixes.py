"""Prefixes kept between blocks of requests: fewer rows, the same numbers."""

import numpy as np
import pytest
import torch

from lydite.engine.plan import Batch, make_plan
from lydite.engine.prefixes import PrefixCache
from lydite.engine.score import Scorer
from lydite.engine.tokens import Window
from tests.naive import naive
from tests.tiny import tiny_model


def block(seed: int, shots: list[int], questions: int = 8) -> list[Window]:
    """Questions behind the same shots, three one-token answers each."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(questions):
        question = rng.integers(3, 300, 9).tolist()
        rows += [shots + question + [answer] for answer in (10, 11, 12)]
    return [Window(np.asarray(ids, dtype=np.int32), len(ids) - 1) for ids in rows]


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("batch_tokens", [2048, 40])
def test_the_next_block_pays_for_its_questions_only(name: str, batch_tokens: int) -> None:
    model = tiny_model(name, scale=8.0)
    scorer = Scorer(model, batch_tokens=batch_tokens)
    shots = np.random.default_rng(9).integers(3, 300, 50).tolist()
    costs = []
    for seed in (1, 2):
        windows = block(seed, shots)
        before = scorer.num_computed
        for index, scored in scorer.score(windows):
            expected, greedy = naive(model, windows[index].ids.tolist(), windows[index].first)
            assert scored.logprobs == pytest.approx(expected, abs=1e-4)
            assert bool(scored.greedy.all()) == greedy
        costs.append(scorer.num_computed - before)
    assert costs == [50 + 8 * 9, 8 * 9]


def test_a_prefix_is_used_only_up_to_what_is_read() -> None:
    """One window scores a token inside the cached prefix: its row must be computed again."""
    model = tiny_model("llama", scale=8.0)
    scorer = Scorer(model, batch_tokens=2048)
    shots = np.random.default_rng(9).integers(3, 300, 50).tolist()
    list(scorer.score(block(1, shots)))
    windows = [*block(2, shots), Window(np.asarray(shots[:48], dtype=np.int32), 40)]
    for index, scored in scorer.score(windows):
        assert scored.logprobs == pytest.approx(
            naive(model, windows[index].ids.tolist(), windows[index].first)[0], abs=1e-4
        )


def test_prefixes_within_prefixes_are_kept_apart() -> None:
    """Shots shared by all, and behind them two subjects' instructions shared by many: two on the path of one sequence."""
    model = tiny_model("gemma3", scale=8.0)
    shots = np.random.default_rng(9).integers(3, 300, 40).tolist()

    def blocks(seed: int) -> list[Window]:
        first = block(seed, [*shots, *range(100, 110)])
        second = block(seed + 1, [*shots, *range(100, 105), *range(120, 127)])
        lone = block(seed + 2, shots)
        return [*first, *second, *lone]

    for batch_tokens in (2048, 64):
        scorer = Scorer(model, batch_tokens=batch_tokens)
        costs = []
        for seed in (1, 11):
            before = scorer.num_computed
            windows = blocks(seed)
            for index, scored in scorer.score(windows):
                expected = naive(model, windows[index].ids.tolist(), windows[index].first)[0]
                assert scored.logprobs == pytest.approx(expected, abs=1e-4)
            costs.append(scorer.num_computed - before)
        assert costs[1] == 3 * 8 * 9 < costs[0]


def test_new_weights_or_kernels_forget_all() -> None:
    scorer = Scorer(tiny_model("llama"), batch_tokens=2048)
    assert not len(scorer.prefixes)
    list(scorer.score(block(1, list(range(40, 90)))))
    assert len(scorer.prefixes) == 1
    scorer.restore()
    assert not len(scorer.prefixes)


def entry(start: int, size: int) -> tuple[np.ndarray, list[tuple[torch.Tensor, torch.Tensor]]]:
    keys = torch.zeros(1, size, 1)
    return np.arange(start, start + size), [(keys, keys.clone())]


def test_the_cache_keeps_its_budget_and_drops_the_oldest() -> None:
    cache = PrefixCache(max_bytes=8 * 100)
    for start in (0, 1000, 2000):
        cache.put(*entry(start, 40))
    assert cache.num_bytes == 640
    assert not cache.find([Window(np.arange(60, dtype=np.int32), 59)])
    cache.put(*entry(5000, 101))
    assert len(cache) == 2, "what is larger than the budget is not kept"
    cache.put(*entry(2000, 50))
    assert cache.num_bytes == 720, "a longer prefix takes the place of the shorter"


def test_plans_read_each_scored_token_once_with_cached_prefixes() -> None:
    shots = list(range(50))
    windows = block(3, shots)
    plan: list[Batch] = make_plan(windows, batch_tokens=16, cached=[np.asarray(shots)])
    assert sum(len(batch.ids) for batch in plan) == 8 * 9
    assert all(int(batch.positions.min()) >= 50 for batch in plan)
    reads = sorted((read.path, read.slot + i) for batch in plan for read in batch.reads for i in range(read.count))
    assert reads == [(path, 0) for path in range(len(windows))]
