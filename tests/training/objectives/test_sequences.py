"""Objectives of encoder-decoders, and the prefix language model of a decoder."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lydite.errors import DataError, ModelError, UserError
from lydite.training.batch import IGNORE
from lydite.training.objectives import make_objective
from lydite.training.objectives.prefix import prefix_mask
from tests.training.objectives.networks import (
    PIECES,
    Sentences,
    Tokenizer,
    batches,
    network,
    pieces_tokenizer,
    plain,
    same_examples,
    same_loss,
)

BOS, EOS, MASK = 1, 2, 6
LENGTHS = [100, 30, 55, 70, 2, 1]
KINDS = {
    "span_corruption": {"context": 40, "layout": "documents"},
    "prefix": {"context": 40, "architecture": "encoder-decoder", "layout": "documents"},
    "denoising": {"context": 64},
}


def make(name, documents=None, seed=0, settings=None):
    documents = Sentences(plain(LENGTHS)) if documents is None else documents
    return make_objective(name, documents, pieces_tokenizer(), KINDS[name] if settings is None else settings, seed)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_the_loss_is_that_of_transformers(name, kind):
    objective = make(name)
    net = network(kind, scale=1.0 if kind == "t5" else 5.0)  # T5 does not scale its scores: they are sharp as they are
    batch = next(batches(objective, 4))
    same_loss(net, objective.loss(net, batch).total(), net(**batch.inputs, labels=batch.targets["tokens"]).loss)


@pytest.mark.parametrize("name", KINDS)
def test_examples_are_functions_of_their_key(name):
    same_examples(lambda seed: make(name, seed=seed))


def test_a_row_of_512_is_exactly_full():
    objective = make("span_corruption", plain([5000]), settings={})
    for i in range(objective.num_examples(0)):
        fields = objective.example(0, i).fields
        assert (len(fields["source"]), len(fields["target"])) == (512, 114)
        assert fields["source"][-1] == fields["target"][-1] == EOS


def test_span_corruption_gives_the_document_back():
    sentinels = [pieces_tokenizer().convert_tokens_to_ids(f"<extra_id_{n}>") for n in range(40)]
    assert sentinels == list(range(PIECES - 1, PIECES - 41, -1))  # descending, as in T5
    documents = plain(LENGTHS)
    objective = make("span_corruption", documents)
    pieces = []
    for i in range(objective.num_examples(0)):
        fields = objective.example(0, i).fields
        source, target = fields["source"][:-1].tolist(), fields["target"][:-1].tolist()
        spans, current = {}, []
        for token in target:
            if token in sentinels:
                current = spans.setdefault(token, [])
            else:
                current.append(token)
        assert list(spans) == sentinels[: len(spans)]
        pieces.append([t for token in source for t in (spans.get(token, [token]))])
    # 44 tokens make 40 inputs: 7 are noise, in 2 runs, and 37 + 2 + 1 = 40.
    wanted = [part.tolist() for document in documents for part in np.split(document, range(44, len(document), 44))]
    assert sorted(pieces) == sorted(wanted)


def test_denoising_targets_are_the_documents():
    documents = Sentences(plain([60] * 200), every=7)
    objective = make("denoising", documents, settings={"context": 64})
    originals = {tuple(document.tolist()) for document in documents}
    kept = masks = moved = 0
    for i in range(objective.num_examples(0)):
        fields = objective.example(0, i).fields
        source, target = fields["source"], fields["target"]
        assert (target[0], target[-1], source[0], source[-1]) == (BOS, EOS, BOS, EOS)
        assert tuple(target[1:-1].tolist()) in originals
        body = source[1:-1][source[1:-1] != MASK]
        place = {int(token): where for where, token in enumerate(target)}
        moved += (np.diff([place[int(token)] for token in body]) < 0).any()
        kept += len(body)
        masks += int((source == MASK).sum())
        assert set(body.tolist()) <= set(target.tolist())
    total = 200 * 60
    assert 1 - kept / total == pytest.approx(0.3, abs=0.01)
    # Words of 1.5 tokens, spans of 3 words; few spans a row, of which the last is shortened, make a few more.
    assert 1.0 < masks / (0.3 * total / 1.5 / 3.0) < 1.25
    assert moved > 190  # sentences are out of order


def test_denoising_without_sentences_keeps_the_order():
    documents = [np.unique(document) for document in plain([60] * 20)]
    objective = make("denoising", documents, settings={"context": 64, "permute_sentences": False})
    for i in range(20):
        source = objective.example(0, i).fields["source"][1:-1]
        assert (np.diff(source[source != MASK]) > 0).all()
    with pytest.raises(UserError, match="permute_sentences = false"):
        make("denoising", documents)


# ----------------------------------------------------------------------------------------- prefix of a decoder


def decoder(**options):
    return make_objective("prefix", plain([60, 9, 33], seed=1), pieces_tokenizer(), {"context": 32, **options})


def gpt2(**options):
    return network("gpt2", vocab=PIECES, **options)


def test_prefix_mask():
    mask = prefix_mask(torch.tensor([1, 3]), 4)[:, 0].int().tolist()
    assert mask[0] == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert mask[1] == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_only_what_follows_the_prefix_is_predicted(attention):
    objective = decoder(layout="documents")
    net = gpt2(attn_implementation=attention)
    rows = [objective.example(0, i) for i in range(objective.num_examples(0))]
    for example in rows:
        tokens, cut = example.fields["tokens"].tolist(), int(example.fields["cut"])
        batch = objective.collate([example])
        labels = batch.targets["tokens"][0]
        assert labels[labels != IGNORE].tolist() == tokens[cut:]
        assert batch.counts["tokens"] == len(tokens) - cut
    whole = objective.loss(net, objective.collate(rows)).parts["tokens"].sum
    single = sum(objective.loss(net, objective.collate([row])).parts["tokens"].sum for row in rows)
    torch.testing.assert_close(whole, single, rtol=1e-5, atol=1e-4)
    same_loss(net, whole / 10, single / 10)
    # With a prefix of one token it is the causal loss.
    row = max(rows, key=lambda row: row.length)
    row.fields["cut"] = np.array(1)
    ids = torch.tensor(row.fields["tokens"])[None]
    causal = cross_entropy(net(input_ids=ids[:, :-1]).logits[0], ids[0, 1:], reduction="sum")
    mine = objective.loss(net, objective.collate([row])).parts["tokens"].sum
    torch.testing.assert_close(mine, causal, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layout", ["stream", "documents"])
def test_a_prefix_and_its_rest_stand_between_what_a_scored_text_stands_between(layout):
    documents = plain([60, 9, 33, 14], seed=1)
    settings = {"context": 16, "layout": layout}
    pair = make_objective("prefix", documents, Framing(), settings | {"architecture": "encoder-decoder"})
    for i in range(pair.num_examples(0)):
        fields = pair.example(0, i).fields
        source, target = fields["source"].tolist(), fields["target"].tolist()
        assert (source[0], source[-1], target[0]) == (BOS, EOS, BOS)
        assert 3 <= len(source) <= 16
        assert 2 <= len(target) <= 16
    alone = make_objective("prefix", documents, Framing(), settings)
    rows = [alone.example(0, i).fields["tokens"].tolist() for i in range(alone.num_examples(0))]
    assert max(map(len, rows)) <= 17
    firsts = {after for row in rows for before, after in pairwise(row) if before == BOS}
    assert firsts <= {int(document[0]) for document in documents}
    assert len(firsts) == 4 if layout == "documents" else firsts


def test_a_network_that_ignores_the_mask_is_refused():
    objective = decoder()
    batch = next(batches(objective, 3))

    class Deaf(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = torch.nn.Embedding(PIECES, 8), torch.nn.Linear(8, PIECES)

        def forward(self, input_ids, attention_mask=None):
            return type("Output", (), {"logits": self.head(self.embed(input_ids).cumsum(1))})()

    with pytest.raises(ModelError, match="does not attend as a prefix"):
        objective.loss(Deaf(), batch)
    corruption = make("span_corruption")
    batch = next(batches(corruption, 2))
    with pytest.raises(ModelError, match="no encoder-decoder"):
        corruption.loss(gpt2(), batch)


# --------------------------------------------------------------------------------------------- parallel text


def parallel(**settings):
    sources, targets = plain([5, 30, 12, 7, 7, 40]), plain([6, 28, 13, 5, 9, 44], seed=1)
    return make_objective("seq2seq", sources, pieces_tokenizer(), {"group": 2, **settings}, targets=targets)


def test_pairs_stay_together_and_like_lengths_meet():
    objective = parallel()
    sources, targets = plain([5, 30, 12, 7, 7, 40]), plain([6, 28, 13, 5, 9, 44], seed=1)
    # This tokenizer puts nothing around a text; a target ends all the same.
    pairs = {tuple(s.tolist()): [*t.tolist(), EOS] for s, t in zip(sources, targets, strict=True)}
    for epoch in range(3):
        rows = [objective.example(epoch, i).fields for i in range(6)]
        for fields in rows:
            assert pairs[tuple(fields["source"].tolist())] == fields["target"].tolist()
        groups = sorted(sorted(len(f["source"]) for f in rows[i : i + 2]) for i in (0, 2, 4))
        assert groups == [[5, 7], [7, 12], [30, 40]]
    assert objective.num_truncated == 0
    assert parallel(max_source_length=20).num_truncated == 2


def test_what_the_tokenizer_puts_around_a_text_stands_there():
    sources, targets = plain([5, 30]), plain([6, 28], seed=1)
    objective = make_objective("seq2seq", sources, Framing(), {"max_source_length": 20}, targets=targets)
    fields = [objective.example(0, i).fields for i in range(2)]
    found = {tuple(f["source"].tolist()): f["target"].tolist() for f in fields}
    assert found == {
        (BOS, *sources[0].tolist(), EOS): [BOS, *targets[0].tolist(), EOS],
        (BOS, *sources[1][:18].tolist(), EOS): [BOS, *targets[1].tolist(), EOS],
    }


class Framing(Tokenizer):
    """Puts BOS and EOS around a text, BOS alone before a target."""

    bos_token_id = BOS
    eos_token_id = EOS

    def __call__(self, text=None, text_target=None, add_special_tokens=True):
        if text_target is not None:
            return {"input_ids": [BOS, 9]}
        return {"input_ids": [BOS, 9, EOS] if add_special_tokens else [9]}


def test_label_smoothing_is_that_of_torch():
    objective = parallel(label_smoothing=0.1)
    net = network("bart")
    batch = next(batches(objective, 4))
    labels = batch.targets["tokens"]
    logits = net(**batch.inputs, labels=labels).logits
    plain_loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
    wanted = cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
    torch.testing.assert_close(objective.loss(net, batch).total(), plain_loss)  # held-out text is not smoothed
    net.training = True  # it alone: no dropout
    same_loss(net, objective.loss(net, batch).total(), wanted)


def test_parallel_text_that_does_not_do():
    with pytest.raises(DataError, match="3 source documents and 2 target documents"):
        make_objective("seq2seq", plain([3, 3, 3]), pieces_tokenizer(), {}, targets=plain([3, 3]))
    with pytest.raises(UserError, match="name both"):
        make_objective("seq2seq", plain([3]), pieces_tokenizer(), {})
    with pytest.raises(UserError, match="no target documents"):
        make_objective("causal", plain([3]), pieces_tokenizer(), {}, targets=plain([3]))


def test_too_few_sentinels():
    class Few(Tokenizer):
        unk_token_id = 3

        def convert_tokens_to_ids(self, token):
            return 60 if token == "<extra_id_0>" else 3

    with pytest.raises(UserError, match="has 1 sentinels"):
        make_objective("span_corruption", plain([900]), Few(), {})
