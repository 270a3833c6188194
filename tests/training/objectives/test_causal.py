"""Causal language modelling: what is predicted, and that packing, streams and hooks change nothing of it."""

import itertools

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.nn.functional import cross_entropy

from lydite.errors import ModelError, UserError
from lydite.training.batch import IGNORE, Loss, Part
from lydite.training.objectives import forward, make_objective
from lydite.training.objectives.causal import Causal, labels_around
from lydite.training.objectives.packing import best_fit
from tests.training.objectives.networks import VOCAB, Tokenizer, batches, corpus, network, same_loss

LENGTHS = [5, 40, 1, 17, 90, 3, 8, 30]


def predicted(objective, epoch=0):
    """(what stands before, what is predicted) of every labelled position."""
    pairs = []
    for batch in batches(objective, 3, epoch):
        ids, labels = batch.inputs["input_ids"], batch.targets["tokens"]
        keep = labels != IGNORE
        assert batch.counts["tokens"] == batch.num_tokens == int(keep.sum())
        pairs += list(zip(ids[keep].tolist(), labels[keep].tolist(), strict=True))
    return pairs


def stream(documents):
    return np.concatenate([np.append(document, 1) for document in documents]).tolist()


def test_blocks_are_the_stream_moved_by_one():
    documents = corpus([300, 50, 7])
    objective = make_objective("causal", documents, Tokenizer(), {"context": 16})
    whole = stream(documents)
    everything = set(itertools.pairwise(whole))
    pairs = predicted(objective)
    assert len(pairs) == objective.num_examples(0) * 16
    assert len(whole) - len(pairs) < 2 * 16 + 1
    assert set(pairs) <= everything
    offsets = set()
    for epoch in range(20):
        blocks = {tuple(objective.example(epoch, i).fields["tokens"]) for i in range(objective.num_examples(epoch))}
        assert len(blocks) == objective.num_examples(epoch)
        starts = sorted(
            next(s for s in range(len(whole) - 16) if tuple(whole[s : s + 17]) == block) for block in blocks
        )
        assert set(np.diff(starts)) == {16}  # one after another: each token once
        offsets.add(starts[0])
    assert len(offsets) > 8
    assert max(offsets) < 16


def test_examples_are_functions_of_their_key():
    for layout in ("blocks", "packed"):
        first, second = (
            make_objective("causal", corpus(LENGTHS), Tokenizer(), {"context": 16, "layout": layout}, seed=3)
            for _ in range(2)
        )
        forward = [first.example(1, i).fields["tokens"].tolist() for i in range(first.num_examples(1))]
        second.example(0, 0)
        backward = [second.example(1, i).fields["tokens"].tolist() for i in reversed(range(second.num_examples(1)))]
        assert forward == backward[::-1]
        other = make_objective("causal", corpus(LENGTHS), Tokenizer(), {"context": 16, "layout": layout}, seed=4)
        assert forward != [other.example(1, i).fields["tokens"].tolist() for i in range(other.num_examples(1))]


def test_packed_rows_predict_every_token_of_every_document_once():
    documents = corpus(LENGTHS)
    objective = make_objective("causal", documents, Tokenizer(), {"context": 32, "layout": "packed"})
    wanted = sorted(pair for document in documents for pair in itertools.pairwise([1, *document.tolist(), 1]))
    for epoch in range(2):
        assert sorted(predicted(objective, epoch)) == wanted
    assert objective.num_examples(0) == -(-sum(n + 1 for n in LENGTHS) // 32)  # no row more than the arithmetic asks


def test_packed_documents_begin_as_texts_that_are_scored_do():
    """Each with BOS, or with what stands there where the tokenizer has none: nothing else comes before its first token."""
    documents = corpus(LENGTHS)
    for bos, first in ((None, 1), (1, 1), (2, 2)):
        tokenizer = Tokenizer()
        tokenizer.bos_token_id = bos
        settings = {"context": 100, "layout": "packed"}
        pairs = predicted(make_objective("causal", documents, tokenizer, settings))
        assert sorted(after for before, after in pairs if before == first) == sorted(d[0] for d in documents)
        assert len(pairs) == sum(LENGTHS) + len(LENGTHS)
    settings["end_of_document"] = False
    pairs = predicted(make_objective("causal", documents, Tokenizer(), settings))
    assert len(pairs) == sum(LENGTHS) - len(LENGTHS)


@pytest.mark.parametrize("bos", [None, 2])
@pytest.mark.parametrize("layout", ["blocks", "packed", "streams"])
def test_labels_are_counted_as_they_are_made(layout, bos):
    """So bits per byte divide the nats of an epoch by the bytes of its text, BOS and ends counted where they are predicted."""
    documents = corpus([30] * 40)
    tokenizer = Tokenizer()
    tokenizer.bos_token_id = bos
    for end in (True, False):
        settings = {"context": 6, "layout": layout, "end_of_document": end} | (
            {"streams": 1} if layout == "streams" else {}
        )
        pairs = predicted(make_objective("causal", documents, tokenizer, settings))
        wanted = 40 * (30 + labels_around(tokenizer, Causal(**settings)))
        assert wanted - 12 <= len(pairs) <= wanted  # blocks leave room for an offset


def test_best_fit_is_never_worse_than_known_packings():
    assert best_fit(np.array([6, 5, 5, 4, 4, 3, 3]), 10).max() + 1 == 3
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 129, size=5000)
    rows = best_fit(lengths, 128)
    filled = np.bincount(rows, weights=lengths)
    assert filled.max() <= 128
    assert filled.sum() / (128 * len(filled)) > 0.99


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_loss_of_packed_documents_is_that_of_each_alone(kind, attention):
    documents = corpus(LENGTHS[:4])
    net = network(kind, attn_implementation=attention)
    objective = make_objective("causal", documents, Tokenizer(), {"context": 48, "layout": "packed"})
    packed = sum(objective.loss(net, batch).parts["tokens"].sum for batch in batches(objective, 2))
    alone = sum(
        net(input_ids=ids, labels=ids).loss * (ids.shape[1] - 1)
        for document in documents
        for ids in [torch.tensor([[1, *document.tolist(), 1]])]
    )
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-4)
    gradients = []
    for total in (packed, alone):
        net.zero_grad()
        total.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-3)


def test_an_architecture_that_would_let_packed_documents_meet_is_refused():
    class Leaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(VOCAB, 8), nn.Linear(8, VOCAB)

        def forward(self, input_ids, position_ids=None):
            states = self.embed(input_ids).cumsum(1)
            return type("Output", (), {"logits": self.head(states)})()

    objective = make_objective("causal", corpus([5, 6]), Tokenizer(), {"context": 32, "layout": "packed"})
    with pytest.raises(UserError, match='see each other; set layout = "blocks"'):
        objective.loss(Leaky(), next(batches(objective, 2)))


@pytest.mark.parametrize("layout", ["blocks", "packed"])
@pytest.mark.parametrize("kind", ["BertLMHeadModel", "XLNetLMHeadModel"])
def test_a_network_that_sees_what_it_predicts_is_refused(kind, layout):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "XLNetLMHeadModel":
        sizes = {"d_model": 16, "d_inner": 32, "n_layer": 2, "n_head": 2}
    architecture = getattr(transformers, kind)
    objective = make_objective("causal", corpus([200]), Tokenizer(), {"context": 32, "layout": layout})
    net = architecture(architecture.config_class(vocab_size=VOCAB, **sizes)).train()
    with pytest.raises(ModelError, match=r"see those behind it.*is_decoder = true"):
        objective.loss(net, next(batches(objective, 2)))
    assert net.training
    if kind == "BertLMHeadModel" and layout == "blocks":
        net = architecture(architecture.config_class(vocab_size=VOCAB, is_decoder=True, **sizes))
        assert objective.loss(net, next(batches(objective, 2))).total() > 0


@pytest.mark.parametrize(
    ("kind", "options", "factor"),
    [
        ("gpt2", {}, 1.0),
        ("cohere", {"logit_scale": 0.25}, 0.25),
        ("granite", {"logits_scaling": 3.0}, 1 / 3),
        ("gemma2", {"attn_implementation": "eager"}, None),  # its logits are capped after the head
    ],
)
def test_the_loss_is_the_networks_own(kind, options, factor):
    objective = make_objective("causal", corpus([200]), Tokenizer(), {"context": 16})
    net = network(kind, **options)
    batch = next(batches(objective, 4))
    loss = objective.loss(net, batch)
    assert forward._FACTORS[net] == (factor if factor is None else pytest.approx(factor))
    logits = net(**batch.inputs).logits
    same_loss(net, loss.total(), cross_entropy(logits.flatten(0, 1), batch.targets["tokens"].flatten()))


def test_dropout_is_as_it_was_after_the_trial():
    objective = make_objective("causal", corpus([200]), Tokenizer(), {"context": 16})
    net = network("gpt2").train()
    net.transformer.h[0].eval()
    before = [module.training for module in net.modules()]
    objective.loss(net, next(batches(objective, 4)))
    assert [module.training for module in net.modules()] == before


class TinyLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm = nn.Embedding(VOCAB, 8), nn.LSTM(8, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, VOCAB)

    def forward(self, input_ids, state=None):
        before = None if state is None else tuple(torch.stack(parts) for parts in zip(*state, strict=True))
        states, (h, c) = self.lstm(self.embed(input_ids), before)
        state = tuple(zip(h, c, strict=True))  # for each layer (h [B, H], c [B, H])
        return type("Output", (), {"logits": self.head(states), "state": state})()


def test_streams_carry_their_state():
    documents = corpus([101, 60])
    net = TinyLSTM()
    settings = {"context": 16, "layout": "streams", "streams": 4, "reset_prob": 0}
    objective = make_objective("causal", documents, Tokenizer(), settings)
    assert objective.rows == 4
    whole = torch.tensor(stream(documents))
    lane = (len(whole) - 1) // 4
    lanes = torch.stack([whole[i * lane : (i + 1) * lane + 1] for i in range(4)])
    wanted = cross_entropy(net(lanes[:, :-1]).logits.flatten(0, 1), lanes[:, 1:].flatten(), reduction="sum")
    # Once all lanes in one batch, once in uneven micro-batches, with the state saved and taken up in between.
    steps = -(-lane // 16)
    assert objective.num_examples(0) == 4 * steps
    total, split = 0.0, 0.0
    for step in range(steps):
        examples = [objective.example(0, step * 4 + row) for row in range(4)]
        total += objective.loss(net, objective.collate(examples)).parts["tokens"].sum.item()
    again = make_objective("causal", documents, Tokenizer(), settings)
    for step in range(steps):
        kept = again.carried()
        again = make_objective("causal", documents, Tokenizer(), settings)
        again.carry(kept)
        for part in (slice(0, 1), slice(1, 4)):
            examples = [again.example(0, step * 4 + row) for row in range(4)][part]
            split += again.loss(net, again.collate(examples)).parts["tokens"].sum.item()
    assert total == pytest.approx(wanted.item(), rel=1e-5)
    assert split == pytest.approx(wanted.item(), rel=1e-5)


def test_a_network_without_a_state_has_no_streams():
    objective = make_objective("causal", corpus([101]), Tokenizer(), {"context": 16, "layout": "streams", "streams": 4})
    with pytest.raises(ModelError, match='GPT2LMHeadModel hands on no state; set layout = "blocks"'):
        objective.loss(network("gpt2"), next(batches(objective, 4)))


def test_streams_begin_anew_now_and_then_while_training():
    documents = corpus([801, 600])
    net = TinyLSTM()

    def losses(reset_prob):
        settings = {"context": 16, "layout": "streams", "streams": 4, "reset_prob": reset_prob}
        objective = make_objective("causal", documents, Tokenizer(), settings, seed=1)
        batches = [
            objective.collate([objective.example(0, at + row) for row in range(4)])
            for at in range(0, objective.num_examples(0), 4)
        ]
        found = [objective.loss(net, batch).parts["tokens"].sum.item() for batch in batches]
        return found, sum(batch.targets["places"][:, 2].sum().item() for batch in batches), batches

    alone, every, batches = losses(1)
    assert every == 4 * len(batches)
    for loss, batch in zip(alone, batches, strict=True):  # each row by itself, from nothing
        logits = net(batch.inputs["input_ids"]).logits
        wanted = cross_entropy(logits.flatten(0, 1), batch.targets["tokens"].flatten(), reduction="sum")
        assert loss == pytest.approx(wanted.item(), rel=1e-5)
    carried, _, _ = losses(0)
    some, share, _ = losses(0.3)
    assert 0.15 < share / (4 * len(batches)) < 0.45
    assert carried[0] == some[0] == alone[0]
    assert len({sum(carried), sum(some), sum(alone)}) == 3
    net.eval()  # what is held out is read with the state carried on, always
    assert losses(1)[0] == losses(0)[0]


def test_sums_over_uneven_batches_are_exact():
    one = Loss({"a": Part(torch.tensor(6.0), 2), "b": Part(torch.tensor(1.0), 4, 50.0)})
    two = Loss({"a": Part(torch.tensor(2.0), 6), "b": Part(torch.tensor(3.0), 4, 50.0)})
    counts = {"a": 8, "b": 8}
    assert float(one.total(counts) + two.total(counts)) == 8 / 8 + 50 * 4 / 8
    shared = Loss({"x": Part(torch.tensor(6.0), 2, pool="t"), "y": Part(torch.tensor(2.0), 6, pool="t")})
    assert float(shared.total()) == 1.0
    assert float(Loss({"a": Part(torch.tensor(0.0), 0)}).total()) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contxt": 8}, "unknown field `contxt`"),
        ({"context": 0}, "context must be 1 or more"),
        ({"layout": "streams"}, "go together"),
        ({"layout": "rows"}, "Invalid enum value"),
        ({"layout": "streams", "streams": 4, "reset_prob": 2}, "reset_prob must be between 0 and 1"),
    ],
)
def test_bad_settings_are_one_line(settings, message):
    with pytest.raises(UserError, match=message) as error:
        make_objective("causal", corpus([50]), Tokenizer(), settings)
    assert "\n" not in str(error.value)


def test_bad_documents_are_one_line():
    class NoEnd(Tokenizer):
        eos_token_id = None

    with pytest.raises(UserError, match="end_of_document = false"):
        make_objective("causal", corpus([50]), NoEnd(), {})
    with pytest.raises(UserError, match="no tokens"):
        make_objective("causal", [], Tokenizer(), {})
    with pytest.raises(UserError, match="unknown objective"):
        make_objective("casual", corpus([50]), Tokenizer(), {})
