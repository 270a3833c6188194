"""XLNet from left to right: against one position at a time, sums to one, and what it does not do."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lydite.engine.permutation import PermutationScorer, left_to_right
from lydite.engine.reader import Reader
from lydite.models.permutation import load_permutation
from lydite.types import LogProbs, ScoreRequest
from tests.families import save_family
from tests.naive import window
from tests.tiny import TEXTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(tmp_path_factory.mktemp("xlnet"), "xlnet")


def step_by_step(model: torch.nn.Module, ids: list[int], first: int) -> list[float]:
    """log p(ids[i] | ids[:i]): the tokens before it and a dummy in its place, so that nothing later is even there."""
    values = []
    for i in range(first, len(ids)):
        row = torch.tensor([[*ids[:i], 0]])
        unseen = torch.zeros(1, i + 1, i + 1)
        for a, b in itertools.product(range(i + 1), repeat=2):
            unseen[0, a, b] = float(b >= a)
        target = torch.zeros(1, 1, i + 1)
        target[0, 0, i] = 1.0
        with torch.inference_mode():
            logits = model(input_ids=row, perm_mask=unseen, target_mapping=target).logits[0, 0]
        values.append(float(logits.log_softmax(-1)[ids[i]]))
    return values


def test_scores_equal_one_position_at_a_time(folder: Path) -> None:
    model = load_permutation(folder, name="tiny", source="test")
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    pairs = [("", TEXTS[2]), (TEXTS[0], " the dog"), ("The", " cat sat on the mat")]
    requests = [ScoreRequest(sample_id=f"s{i}", index=0, context=c, continuation=t) for i, (c, t) in enumerate(pairs)]
    for position, output in model.answer(requests):
        assert isinstance(output, LogProbs)
        context, continuation = pairs[position]
        ids = tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
        if not context:
            ids = [tokenizer.bos_token_id, *ids]
        expected = step_by_step(network, ids, len(ids) - len(output.logprobs))
        assert output.logprobs == pytest.approx(expected, abs=1e-4)
        assert (output.rule, output.join) == ("permutation", "clean")
    assert model.info.can == ("score",)


def test_probabilities_of_all_strings_sum_to_one(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(14)
    model.config.vocab_size = 14
    model.eval()
    probe, _ = left_to_right([window([1, 3, 4, 5], 2)], 5)
    scorer = PermutationScorer(Reader(model, probe, batch_tokens=100), pad=5)
    windows = [window([1, 6, a, b], 2) for a, b in itertools.product(range(14), repeat=2)]
    total = math.fsum(math.exp(scored.logprobs.sum()) for _, scored in scorer.score(windows))
    assert total == pytest.approx(1.0, abs=1e-5)


def test_slots_that_a_row_does_not_need_ask_for_nothing() -> None:
    inputs, slots = left_to_right([window([1, 2, 3], 1), window([1, 2, 3, 4], 3)], 0)
    assert slots == 2
    targets = inputs["target_mapping"]
    assert isinstance(targets, torch.Tensor)
    assert np.asarray(targets.sum(dim=-1)).tolist() == [[1.0, 1.0], [1.0, 0.0]]
