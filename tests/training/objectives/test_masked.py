"""Masked language modelling: shares as in the papers, no special token touched, the loss that transformers computes."""

import numpy as np
import pytest

from lydite.errors import UserError
from lydite.training.batch import IGNORE
from lydite.training.objectives import make_objective
from tests.training.objectives.networks import (
    PLAIN,
    Tokenizer,
    batches,
    close,
    network,
    pieces_tokenizer,
    plain,
    same_examples,
    same_loss,
)

CLS, SEP, MASK = 4, 5, 6
KEPT = 1 / (PLAIN[1] - PLAIN[0])
"""A random token is the right one so often."""


def make(unit="token", seed=0, lengths=(40_000, 60_000, 300), **settings):
    return make_objective("masked", plain(list(lengths)), pieces_tokenizer(), {"unit": unit, **settings}, seed)


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_shares(unit):
    """About 1e5 tokens: 15% are predicted; of those 80% are masked, 10% random, 10% as they were."""
    objective = make(unit)
    total = chosen = masked = kept = 0
    for i in range(objective.num_examples(0)):
        fields = objective.example(0, i).fields
        ids, labels = fields["input_ids"], fields["labels"]
        assert len(ids) == 512
        assert (ids[0], ids[-1]) == (CLS, SEP)
        picked = labels != IGNORE
        originals = np.where(picked, labels, ids)
        special = np.isin(originals, [CLS, SEP])
        assert not (picked & special).any()
        assert (ids[~picked] != MASK).all()
        assert ((ids[picked] == MASK) | (ids[picked] >= PLAIN[0])).all()  # no special token comes in by chance
        total += int((~special).sum())
        chosen += int(picked.sum())
        masked += int((ids[picked] == MASK).sum())
        kept += int((ids[picked] == labels[picked]).sum())
    assert total > 95_000
    assert close(chosen / total, 0.15, total)
    groups = chosen / 3.8 if unit == "span" else chosen  # a span has one fate
    assert close(masked / chosen, 0.8, groups)
    assert close(kept / chosen, 0.1 + 0.1 * KEPT, groups)


def test_whole_words_are_chosen_whole():
    objective = make("word", lengths=(20_000,))
    begins = np.array([not t.startswith("##") for t in pieces_tokenizer().convert_ids_to_tokens(range(PLAIN[1]))])
    for i in range(objective.num_examples(0)):
        fields = objective.example(0, i).fields
        picked = fields["labels"] != IGNORE
        ids = np.where(picked, fields["labels"], fields["input_ids"])
        continues = ~begins[ids]
        continues[1] = False  # the first token of a row begins a word, since what was before is not there
        assert (picked[1:] == picked[:-1])[continues[1:]].all()


def test_spans_are_whole_words_and_share_their_fate():
    objective = make("span", lengths=(60_000,), geometric_p=0.2)
    runs = []
    for i in range(objective.num_examples(0)):
        fields = objective.example(0, i).fields
        places = np.flatnonzero(fields["labels"] != IGNORE)
        for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
            masked = fields["input_ids"][run] == MASK
            assert masked.all() or not masked.any()
            runs.append(len(run))
    # Words have 1.5 tokens, so spans of 3.8 words have about 5.7 (the last of each row is shortened).
    assert np.mean(runs) == pytest.approx(3.8 * 1.5, abs=0.5)


def test_examples_are_functions_of_their_key():
    for layout in ("stream", "documents"):
        same_examples(lambda seed, layout=layout: make(seed=seed, lengths=(300, 900, 80), context=64, layout=layout))


def test_documents_alone_in_their_rows():
    lengths = [5, 62, 63, 200, 17, 30, 8, 9]
    objective = make(lengths=lengths, context=64, layout="documents", group=2)
    rows = [objective.example(0, i) for i in range(objective.num_examples(0))]
    assert sorted(row.length - 2 for row in rows) == sorted([5, 62, 62, 1, 62, 62, 62, 14, 17, 30, 8, 9])
    batch = objective.collate(rows[:2])
    assert batch.inputs["input_ids"].shape[1] % 8 == 0
    assert batch.num_tokens == rows[0].length + rows[1].length
    if "attention_mask" in batch.inputs:
        assert int(batch.inputs["attention_mask"].sum()) == batch.num_tokens


def test_full_rows_need_no_mask():
    batch = next(batches(make(context=64), 4))
    assert set(batch.inputs) == {"input_ids"}
    assert batch.inputs["input_ids"].shape == (4, 64)


@pytest.mark.parametrize("kind", ["bert", "roberta", "albert", "electra_masked"])
@pytest.mark.parametrize("layout", ["stream", "documents"])
def test_the_loss_is_that_of_transformers(kind, layout):
    objective = make(lengths=(100, 30, 55, 70), context=64, layout=layout)
    net = network(kind)
    batch = next(batches(objective, 3))
    theirs = net(**batch.inputs, labels=batch.targets["tokens"]).loss
    same_loss(net, objective.loss(net, batch).total(), theirs)


def test_settings_and_tokenizers_that_do_not_do():
    bad = {"mlm_probability": 0, "mask_replace_prob": 0.95, "unit": "sentence", "context": 2, "chunk": 3}
    for name, value in bad.items():
        with pytest.raises(UserError, match=name):
            make(**{name: value})

    class NoMask(Tokenizer):
        cls_token_id, sep_token_id, mask_token_id, all_special_ids = 2, 3, None, (0, 1, 2, 3)

    with pytest.raises(UserError, match="no mask_token"):
        make_objective("masked", plain([50]), NoMask(), {})
