"""`bench` on a model whose speed is known, because its clock is ours."""

import math

import pytest

from lydite.bench import Grid, bench, measure
from lydite.errors import UserError
from lydite.types import Completion, Failure, GenerateRequest, LogProbs, ModelInfo, Usage

INFO = {"name": "clockwork", "family": "fake", "rule": "causal", "parameters": 0, "fingerprint": "clock-1"}


class Clockwork:
    """A word is `tokens_a_word` tokens; reading and writing one takes a fixed time on a clock that does not run by itself."""

    def __init__(self, monkeypatch, *, read=0.001, write=0.01, tokens_a_word=2, can=("score", "generate"), **more):
        self.now = 0.0
        self.read, self.write, self.tokens_a_word = read, write, tokens_a_word
        self.info = ModelInfo(**INFO, can=can, max_tokens=more.get("max_tokens"))
        self.usage = Usage()
        self.fails, self.silent = more.get("fails"), more.get("silent", False)
        self.seen = []
        monkeypatch.setattr(measure.time, "perf_counter", lambda: self.now)

    def answer(self, requests):
        for position, request in enumerate(requests):
            writes = isinstance(request, GenerateRequest)
            text = request.prompt if writes else request.context
            tokens = len(text.split()) * self.tokens_a_word
            self.seen.append((len(requests), tokens, text))
            new = 0 if not writes or self.silent else request.decoding.max_new_tokens
            self.now += tokens * self.read + new * self.write
            self.usage.tokens_requested += tokens
            self.usage.tokens_computed += tokens
            self.usage.tokens_generated += new
            if self.fails and tokens > self.fails:
                yield position, Failure(reason="too long for it")
            elif writes:
                yield position, Completion(text="", num_tokens=new, finish="length")
            else:
                yield position, LogProbs(tokens=("x",), logprobs=(-1.0,), greedy=True, rule="causal")


def test_speeds_are_those_of_the_clock(monkeypatch):
    model = Clockwork(monkeypatch)
    speeds = bench(model, Grid(batches=(4, 1), lengths=(100, 20), new_tokens=5))
    assert [(cell.length, cell.batch) for cell in speeds.cells] == [(20, 1), (20, 4), (100, 1), (100, 4)]
    for cell in speeds.cells:
        assert cell.prompt_tokens == cell.length
        assert math.isclose(cell.prefill, 1000, rel_tol=1e-6)
        assert math.isclose(cell.decode, 100, rel_tol=1e-6)
        assert math.isclose(cell.first_token, cell.batch * (cell.length * 0.001 + 0.01), rel_tol=1e-6)
        assert not cell.note
    assert speeds.peak_memory_bytes >= speeds.loaded_memory_bytes > 1 << 20


def test_no_text_comes_twice_and_batches_are_as_asked(monkeypatch):
    model = Clockwork(monkeypatch)
    bench(model, Grid(batches=(3,), lengths=(60,), new_tokens=2, repeats=2))
    texts = [text for _, _, text in model.seen]
    assert len(set(texts)) == len(texts)
    assert [batch for batch, _, _ in model.seen[1:]] == [3] * (3 * 3 * 2)


def test_slow_cells_run_once(monkeypatch):
    model = Clockwork(monkeypatch, read=1.0)
    bench(model, Grid(batches=(1,), lengths=(50,), new_tokens=1, repeats=5))
    assert len(model.seen) == 1 + 3


def test_a_cell_without_a_number_says_why(monkeypatch):
    model = Clockwork(monkeypatch, fails=150)
    short, long = bench(model, Grid(batches=(1,), lengths=(100, 200), new_tokens=2)).cells
    assert short.decode is not None
    assert (long.prefill, long.decode, long.note) == (None, None, "too long for it")
    [cell] = bench(Clockwork(monkeypatch, silent=True), Grid(batches=(1,), lengths=(10,))).cells
    assert cell.decode is None
    assert cell.prefill is not None
    assert "ends its text" in cell.note


def test_models_that_only_score_or_only_write(monkeypatch):
    grid = Grid(batches=(1,), lengths=(10,))
    [scores] = bench(Clockwork(monkeypatch, can=("score",)), grid).cells
    assert scores.prefill is not None
    assert (scores.decode, scores.first_token) == (None, None)
    [writes] = bench(Clockwork(monkeypatch, can=("generate",)), grid).cells
    assert writes.prefill is None
    assert math.isclose(writes.decode, 100, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batches": ()}, "batches must be"),
        ({"lengths": (0,)}, "lengths must be"),
        ({"new_tokens": 0}, "new_tokens and repeats"),
        ({"lengths": (128,)}, "choose --lengths of 53 at most"),
    ],
)
def test_mistakes(monkeypatch, changes, message):
    model = Clockwork(monkeypatch, max_tokens=100)
    with pytest.raises(UserError, match=message):
        bench(model, Grid(**({"batches": (1,), "lengths": (16,)} | changes)))
    with pytest.raises(UserError, match="nothing to measure"):
        bench(Clockwork(monkeypatch, can=("label",)), Grid())


def test_progress_counts_to_the_end(monkeypatch):
    heard = []
    bench(Clockwork(monkeypatch), Grid(batches=(1, 2), lengths=(8,)), on_progress=lambda *what: heard.append(what[:2]))
    assert heard == [(0, 2), (0, 2), (1, 2), (2, 2)]
