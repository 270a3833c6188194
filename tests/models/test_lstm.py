"""The LSTM: its network against plain PyTorch, its scores against a naive loop, state carried over any cut."""

import itertools
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lydite.errors import ModelError
from lydite.models import load_model, lstm_model
from lydite.models.lstm import LyditeLSTMConfig, LyditeLSTMForCausalLM, detached
from lydite.models.own import register
from lydite.types import Completion, Decoding, Failure, GenerateRequest, LabelRequest, LogProbs, ScoreRequest
from tests.tiny import TEXTS, tiny_tokenizer

SIZES = {"embedding_size": 16, "hidden_size": 24, "num_hidden_layers": 3}


def network(vocab_size=328, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = LyditeLSTMForCausalLM(LyditeLSTMConfig(vocab_size=vocab_size, **SIZES, **options)).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(4)  # so that a wrong state shows in the numbers
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lstm")
    tiny_tokenizer().save_pretrained(folder)
    network().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_model(str(folder))


def ids(*shape, vocab=328, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(3, vocab, shape))


# --------------------------------------------------------------------------------------------- network


@pytest.mark.parametrize("tie", [True, False])
def test_forward_is_plain_pytorch(tie):
    made = network(tie_word_embeddings=tie)
    text = ids(3, 11)
    with torch.no_grad():
        values = made.lstm.embedding.weight[text]
        for layer in made.lstm.layers:
            plain = torch.nn.LSTM(layer.input_size, layer.hidden_size, batch_first=True)
            plain.load_state_dict(layer.state_dict())
            values, _ = plain(values)
        expected = values @ made.lm_head.weight.T + made.lm_head.bias
        out = made(text, labels=text)
    torch.testing.assert_close(out.logits, expected, atol=1e-6, rtol=1e-5)
    surprise = -expected[:, :-1].log_softmax(-1).gather(-1, text[:, 1:, None]).mean()
    torch.testing.assert_close(out.loss, surprise)
    assert (made.lm_head.weight is made.lstm.embedding.weight) == tie


@pytest.mark.parametrize("cut", [1, 4, 10])
def test_state_carried_over_a_cut_is_the_text_at_once(cut):
    made, text = network(), ids(2, 11)
    with torch.no_grad():
        whole = made(text)
        first = made(text[:, :cut])
        second = made(text[:, cut:], state=first.state)
    torch.testing.assert_close(torch.cat([first.logits, second.logits], 1), whole.logits, atol=1e-5, rtol=1e-5)
    for (h, c), (h2, c2) in zip(second.state, whole.state, strict=True):
        torch.testing.assert_close(h, h2, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(c, c2, atol=1e-5, rtol=1e-5)


def test_truncated_backpropagation_cuts_the_gradient_and_not_the_numbers():
    """With the state attached the gradient is that of the whole text; detached, the second piece's alone."""
    text = ids(2, 12)

    def gradient(carry):
        made = network()
        first = made(text[:, :6])
        second = made(text[:, 6:], state=carry(first.state))
        loss = second.logits.log_softmax(-1)[..., 5].sum()
        loss.backward()
        return loss.detach(), made.lstm.layers[0].weight_hh_l0.grad

    made = network()
    whole = made(text).logits[:, 6:].log_softmax(-1)[..., 5].sum()
    whole.backward()
    attached_loss, attached = gradient(lambda state: state)
    cut_loss, cut = gradient(detached)
    torch.testing.assert_close(attached_loss, whole.detach())
    torch.testing.assert_close(cut_loss, whole.detach())
    torch.testing.assert_close(attached, made.lstm.layers[0].weight_hh_l0.grad, atol=1e-4, rtol=1e-4)
    assert (cut - attached).abs().max() > 1e-3


def test_padding_changes_nothing():
    made = network()
    lengths = [7, 3, 5]
    text = ids(3, 7)
    mask = torch.arange(7)[None] < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        out = made(text, attention_mask=mask)
        for row, length in enumerate(lengths):
            alone = made(text[row : row + 1, :length])
            torch.testing.assert_close(out.logits[row, :length], alone.logits[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(out.state[0][0][row], alone.state[0][0][0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(out.state[2][1][row], alone.state[2][1][0], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="right"):
        made(text, attention_mask=mask.flip(1))


def test_dropouts():
    """None in evaluation; each one, alone, changes the numbers in training; locked masks are the same at every step."""
    names = ("embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout", "weight_dropout")
    none = dict.fromkeys(names, 0.0)
    text = ids(2, 9)
    base = network(**none).train()(text).logits
    for name in names:
        made = network(**(none | {name: 0.5}))
        torch.testing.assert_close(made(text).logits, base)
        torch.manual_seed(0)
        assert (made.train()(text).logits - base).abs().max() > 1e-3, name
    torch.manual_seed(0)
    states = network(**(none | {"output_dropout": 0.5})).train()(text).last_hidden_state
    gone = states == 0
    assert torch.equal(gone.all(1), gone.any(1))
    assert 0.2 < gone[:, 0].float().mean() < 0.8
    assert not torch.equal(gone[0, 0], gone[1, 0])


def test_it_learns():
    """A network that sees one sentence again and again gets sure of it; the carried state lets it count."""
    made = network(vocab_size=12, **dict.fromkeys(("embedding_dropout", "input_dropout", "hidden_dropout"), 0.0))
    made.train()
    made.config.output_dropout = made.config.weight_dropout = 0.0
    text = torch.tensor([[3, 4, 3, 5, 3, 6, 3, 7, 3, 8]])
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    losses = []
    for _ in range(150):
        loss = made(text, labels=text).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 < losses[0]


def test_saved_and_loaded_by_the_auto_class(folder):
    register()
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(again, LyditeLSTMForCausalLM)
    assert again.lm_head.weight is again.lstm.embedding.weight
    text = ids(2, 5)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(text).logits, network()(text).logits)


def test_config_refuses():
    for wrong in ({"input_dropout": 1.0}, {"num_hidden_layers": 0}):
        with pytest.raises(ModelError):
            LyditeLSTMConfig(**wrong)


# --------------------------------------------------------------------------------------------- answers

LONG = " ".join(TEXTS)
PAIRS = (
    ("", "The cat sat on the mat."),
    ("The cat sat on", " the mat."),
    ("The cat sat on", " the dog's mat, 今天"),
    (LONG, " The end."),
    ("Seven", LONG),
    ("", "x"),
)


def score(model, *pairs, window="none"):
    requests = [
        ScoreRequest(sample_id=f"s{i}", index=0, context=context, continuation=continuation, window=window)
        for i, (context, continuation) in enumerate(pairs)
    ]
    answers = dict(model.answer(requests))
    assert sorted(answers) == list(range(len(pairs)))
    return [answers[i] for i in range(len(pairs))]


def naive(model, context, continuation, count):
    """Token by token with the whole text read anew each time."""
    text = model.encoder.tokenizer(context + continuation)["input_ids"]
    text = text if context else [0, *text]  # the tokenizer puts no BOS of its own
    found = []
    with torch.no_grad():
        for i in range(len(text) - count, len(text)):
            found.append(float(network()(torch.tensor([text[:i]])).logits[0, -1].log_softmax(-1)[text[i]]))
    return found


def test_scores_are_the_naive_loops(model):
    assert (model.info.family, model.info.rule, model.info.max_tokens) == ("lstm", "causal", None)
    for pair, answer in zip(PAIRS, score(model, *PAIRS), strict=True):
        assert isinstance(answer, LogProbs)
        np.testing.assert_allclose(answer.logprobs, naive(model, *pair, len(answer.logprobs)), atol=1e-5)


@pytest.mark.parametrize(("piece", "rows"), [(1, 2), (7, 64), (1000, 1)])
def test_however_texts_are_cut_and_batched(model, monkeypatch, piece, rows):
    expected = score(model, *PAIRS)
    monkeypatch.setattr(lstm_model, "PIECE", piece)
    monkeypatch.setattr(lstm_model, "ROWS", rows)
    for window in ("none", "max_context", "disjoint"):
        for one, two in zip(score(model, *PAIRS[::-1], window=window)[::-1], expected, strict=True):
            np.testing.assert_allclose(one.logprobs, two.logprobs, atol=1e-5)
            assert (one.tokens, one.greedy, one.num_truncated) == (two.tokens, two.greedy, 0)


def test_a_context_is_read_once(model):
    before = model.usage.tokens_computed
    score(model, *[(LONG, f" {word}") for word in ("one", "two", "three", "four", "five")])
    assert model.usage.tokens_computed - before < 2 * len(model.encoder.tokenizer(LONG)["input_ids"])


def test_the_chain_rule(model):
    whole, first, second = score(
        model, ("The cat", " sat on the mat."), ("The cat", " sat on"), ("The cat sat on", " the mat.")
    )
    assert whole.total == pytest.approx(first.total + second.total, abs=1e-4)


def test_texts_of_a_tiny_vocabulary_sum_to_one():
    """All texts of three tokens over a vocabulary of five."""
    reader = lstm_model.Reader(network(vocab_size=5))
    texts = [np.array(text, dtype=np.int32) for text in itertools.product(range(5), repeat=3)]
    state, last = reader.read([np.array([0], dtype=np.int32)] * len(texts))
    totals = [logprobs.sum() for logprobs, _ in reader.score(texts, state, last)]
    assert math.fsum(map(math.exp, totals)) == pytest.approx(1, abs=1e-5)


def test_greedy_text_is_the_argmax_at_each_step(model):
    request = GenerateRequest(sample_id="g", index=0, prompt="The cat", decoding=Decoding(max_new_tokens=6))
    others = [
        GenerateRequest(
            sample_id=f"o{i}", index=0, prompt=text, decoding=Decoding(max_new_tokens=3 + i, do_sample=True)
        )
        for i, text in enumerate(TEXTS)
    ]
    text = list(model.encoder.tokenizer("The cat")["input_ids"])
    start = len(text)
    with torch.no_grad():
        for _ in range(6):
            text.append(int(network()(torch.tensor([text])).logits[0, -1].argmax()))
            if text[-1] == 1:
                break
    [(_, alone)] = model.answer([request])
    expected = model.encoder.decode([token for token in text[start:] if token != 1], skip_special=True)
    assert isinstance(alone, Completion)
    assert alone.text == expected
    assert dict(model.answer([*others, request]))[len(others)] == alone


def test_sampled_texts_do_not_depend_on_their_neighbours(model):
    requests = [
        GenerateRequest(sample_id=f"o{i}", index=0, prompt=text, decoding=Decoding(max_new_tokens=5, do_sample=True))
        for i, text in enumerate(TEXTS)
    ]
    together = dict(model.answer(requests))
    assert [together[i] for i in range(len(requests))] == [next(iter(model.answer([r])))[1] for r in requests]


def test_what_it_cannot_answer(model):
    [(_, answer)] = model.answer([LabelRequest(sample_id="a", index=0, text="x", labels=("y",))])
    assert isinstance(answer, Failure)
    beams = GenerateRequest(sample_id="g", index=0, prompt="The", decoding=Decoding(num_beams=2))
    [(_, answer)] = model.answer([beams])
    assert isinstance(answer, Failure)
    assert isinstance(score(model, ("a", ""))[0], Failure)


def test_not_a_number_is_a_failure(folder):
    broken = load_model(str(folder))
    with torch.no_grad():
        broken.network().lm_head.bias.fill_(math.nan)
    assert score(broken, ("", "The"))[0] == Failure(reason="not a number among the model's log-probabilities")
    request = GenerateRequest(sample_id="g", index=0, prompt="The")
    assert isinstance(next(iter(broken.answer([request])))[1], Failure)
