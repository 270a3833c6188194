"""n-gram models through load_model: the contract of `answer`, folders, ARPA files, generation, bad input."""

import json
import math

import numpy as np
import pytest

from lydite.errors import ModelError
from lydite.models import load_model
from lydite.models.ngram import save_ngram
from lydite.models.ngram_arpa import write_arpa
from lydite.models.ngram_train import train_ngram
from lydite.types import Completion, Decoding, Failure, GenerateRequest, LabelRequest, LogProbs, ScoreRequest
from tests.models.test_ngram_arpa import SMALL
from tests.tiny import TEXTS, tiny_tokenizer


def save(folder, smoothing="kneser_ney", order=3, copies=1):
    tokenizer = tiny_tokenizer()
    documents = [np.array(tokenizer(text)["input_ids"]) for text in TEXTS * copies]
    trained = train_ngram(documents, order=order, vocab_size=len(tokenizer), bos=0, eos=1, smoothing=smoothing)
    save_ngram(folder, trained, tokenizer, smoothing)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("ngram"))


@pytest.fixture(scope="module")
def model(folder):
    return load_model(str(folder))


def score(model, *pairs, window="none"):
    requests = [
        ScoreRequest(sample_id=f"s{i}", index=0, context=context, continuation=continuation, window=window)
        for i, (context, continuation) in enumerate(pairs)
    ]
    answers = dict(model.answer(requests))
    assert sorted(answers) == list(range(len(pairs)))
    return [answers[i] for i in range(len(pairs))]


def write(model, prompt, seed=0, **options):
    request = GenerateRequest(sample_id="g", index=0, prompt=prompt, seed=seed, decoding=Decoding(**options))
    [(_, answer)] = model.answer([request])
    return answer


PAIRS = (
    ("", "The cat sat on the mat."),
    ("The cat sat on", " the mat."),
    ("The dog", " sleeps 今天天气很好"),
    ("Seven plus", " five"),
    ("", "zebra \U0001f600\x00"),
)


# --------------------------------------------------------------------------------------------- answers


def test_what_the_model_says_of_itself(model):
    assert (model.info.family, model.info.rule, model.info.can) == ("ngram", "causal", ("score", "generate"))
    assert model.info.max_tokens is None
    assert model.info.settings["vocabulary"] == "open"
    assert model.info.settings["smoothing"] == "kneser_ney"


def test_scores_are_the_tables(model):
    for (context, continuation), answer in zip(PAIRS, score(model, *PAIRS), strict=True):
        assert isinstance(answer, LogProbs)
        ids = [0, *model.encoder.tokenizer(context + continuation)["input_ids"]]
        naive = [model.table.distribution(ids[:i])[ids[i]] for i in range(1, len(ids))]
        np.testing.assert_allclose(answer.logprobs, naive[len(naive) - len(answer.logprobs) :], atol=1e-9)
        greedy = all(
            model.table.distribution(ids[:i]).max() - 1e-9 <= model.table.distribution(ids[:i])[ids[i]]
            for i in range(len(ids) - len(answer.logprobs), len(ids))
        )
        assert answer.greedy == greedy


def test_any_order_any_neighbours(model):
    alone = [score(model, pair)[0] for pair in PAIRS]
    assert score(model, *PAIRS) == alone
    assert score(model, *PAIRS[::-1]) == alone[::-1]
    assert score(model, *PAIRS * 70) == alone * 70


def test_the_chain_rule(model):
    whole, first, second = score(
        model, ("", "The cat sat on the mat."), ("", "The"), ("The", " cat sat on the mat.")
    )  # BOS stands before all of them
    assert whole.total == pytest.approx(first.total + second.total, abs=1e-9)


def test_windows_change_nothing(model):
    text = " ".join(TEXTS * 3)
    assert len({score(model, ("", text), window=w)[0] for w in ("none", "max_context", "disjoint")}) == 1


def test_texts_of_a_tiny_vocabulary_sum_to_one():
    """All strings of two bytes and an end, up to a length: what is missing is the mass of longer ones."""
    table = train_ngram([np.array([2, 3, 3]), np.array([3])], order=3, vocab_size=4, bos=0, eos=1).table
    mass, open_texts = 0.0, [[0]]
    for _ in range(13):
        nexts = [[*text, w] for text in open_texts for w in (1, 2, 3)]
        totals = [math.exp(table.score([np.array(text)], [1]).logprobs.sum()) for text in nexts]
        mass += sum(p for p, text in zip(totals, nexts, strict=True) if text[-1] == 1)
        open_texts = [text for text in nexts if text[-1] != 1]
        left = sum(p for p, text in zip(totals, nexts, strict=True) if text[-1] != 1)
        assert mass + left == pytest.approx(1, abs=1e-6)
        if len(open_texts) > 500:
            break


def test_the_training_text_is_likelier_than_its_shuffle(model):
    words = TEXTS[0].split()
    right, wrong = score(model, ("", " ".join(words)), ("", " ".join(words[::-1])))
    assert right.total > wrong.total + 10


def test_what_it_cannot_answer(model):
    [(_, answer)] = model.answer([LabelRequest(sample_id="a", index=0, text="x", labels=("y",))])
    assert isinstance(answer, Failure)
    assert isinstance(write(model, "The", num_beams=2), Failure)
    assert isinstance(score(model, ("a", ""))[0], Failure)


def test_the_rule_of_scores_is_its_own(tmp_path):
    model = load_model(str(save(tmp_path, "stupid_backoff")))
    assert model.info.rule == "stupid_backoff"
    seen, unseen = score(model, ("", "The cat sat"), ("", "\U0001f600"))
    assert seen.rule == "stupid_backoff"
    assert unseen == Failure(reason="zero probability")


# ------------------------------------------------------------------------------------------ generation


def test_greedy_text_is_the_argmax_at_each_step(model):
    answer = write(model, "The quick", max_new_tokens=8)
    ids = [0, *model.encoder.tokenizer("The quick")["input_ids"]]
    new = []
    for _ in range(8):
        new.append(int(model.table.distribution([*ids, *new]).argmax()))
    assert answer == Completion(text=model.encoder.decode(new), num_tokens=8, finish="length")


def test_sampled_text_depends_on_its_seed_alone(model):
    options = {"max_new_tokens": 12, "do_sample": True}
    one, two = write(model, "The", **options), write(model, "The", seed=1, **options)
    assert one != two
    requests = [
        GenerateRequest(sample_id="g", index=0, prompt=p, seed=s, decoding=Decoding(**options))
        for p, s in (("Question:", 5), ("The", 0), ("The", 1), ("", 3))
    ]
    answers = dict(model.answer(requests))
    assert [answers[1], answers[2]] == [one, two]


def test_sampling_follows_the_distribution(model):
    """400 first tokens against the probabilities: chi-square would be far off were the options or the rows mixed up."""
    requests = [
        GenerateRequest(sample_id=str(i), index=0, prompt="The", decoding=Decoding(max_new_tokens=1, do_sample=True))
        for i in range(400)
    ]
    texts = [answer.text for _, answer in model.answer(requests)]
    ids = [0, *model.encoder.tokenizer("The")["input_ids"]]
    probs = np.exp(model.table.distribution(ids))
    likely = int(probs.argmax())
    share = texts.count(model.encoder.decode([likely])) / 400
    assert abs(share - probs[likely]) < 4 * math.sqrt(probs[likely] / 400)


def test_options_of_decoding(model):
    assert write(model, "The cat", max_new_tokens=30, stop_strings=["mat"]).finish == "stop"
    assert "mat" not in write(model, "The cat", max_new_tokens=30, stop_strings=["mat"]).text
    greedy = write(model, "The", max_new_tokens=6)
    assert write(model, "The", max_new_tokens=6, do_sample=True, top_k=1) == greedy
    assert write(model, "The", max_new_tokens=6, do_sample=True, temperature=0.0) == greedy
    chosen = write(model, "The cat is", choices=(" black", " white"))
    assert chosen.text in (" black", " white")


# ---------------------------------------------------------------------------------------- ARPA as a spec


def test_an_arpa_file_of_words(tmp_path):
    (tmp_path / "small.arpa").write_text(SMALL, encoding="utf-8")
    model = load_model(str(tmp_path / "small.arpa"))
    assert (model.info.name, model.info.rule) == ("small", "causal:unk")
    assert "<unk>" in model.info.settings["vocabulary"]
    known, unknown = score(model, ("", "the cat"), ("", "the dog"))
    np.testing.assert_allclose(np.array(known.logprobs) / np.log(10), [-0.2, -0.1], atol=1e-6)
    np.testing.assert_allclose(np.array(unknown.logprobs) / np.log(10), [-0.2, -1.4], atol=1e-6)
    assert unknown.tokens[-1] == "<unk>"
    assert unknown.rule == "causal:unk"
    assert write(model, "the", max_new_tokens=2).text.strip() == "cat"


def test_an_arpa_file_that_has_no_unknown_word(tmp_path):
    text = SMALL.replace("ngram 1=6", "ngram 1=5").replace("-1.0\t<unk>\n", "")
    (tmp_path / "small.arpa").write_text(text, encoding="utf-8")
    model = load_model(str(tmp_path / "small.arpa"))
    known, unknown = score(model, ("", "the cat"), ("", "the dog"))
    np.testing.assert_allclose(np.array(known.logprobs) / np.log(10), [-0.2, -0.1], atol=1e-6)
    assert unknown == Failure(reason="zero probability")


def test_an_arpa_file_of_a_tokenizer(tmp_path, folder, model):
    names = model.encoder.tokenizer.convert_ids_to_tokens(range(len(model.encoder.tokenizer)))
    write_arpa(model.table, tmp_path / "m.arpa.gz", names, bos=0, eos=1)
    again = load_model(str(tmp_path / "m.arpa.gz"), settings={"tokenizer": str(folder)})
    assert again.info.rule == "causal"
    for one, two in zip(score(model, *PAIRS), score(again, *PAIRS), strict=True):
        np.testing.assert_allclose(one.logprobs, two.logprobs, atol=2e-6)
        assert one.tokens == two.tokens


# ------------------------------------------------------------------------------------------- bad input


def test_folders_that_are_damaged(tmp_path):
    folder = save(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    for change, says in (
        ({"order": 4}, "3.backoffs"),
        ({"vocab_size": 5}, "differ"),
        ({"num_ngrams": [1, 2, 3]}, "differ"),
        ({"extra": 1}, "unknown field"),
        ({"smoothing": "magic"}, "magic"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=says) as raised:
            load_model(str(folder))
        assert "\n" not in str(raised.value)
    (folder / "config.json").write_text(json.dumps(config))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ModelError):
        load_model(str(folder))


def test_settings_and_specs_that_do_not_exist(tmp_path, folder):
    with pytest.raises(ModelError, match="batch_tokens"):
        load_model(str(folder), settings={"batch_tokens": 5})
    with pytest.raises(ModelError, match="ARPA"):
        load_model(str(folder), settings={"tokenizer": str(folder)})
    with pytest.raises(ModelError, match="no file"):
        load_model(str(tmp_path / "none.arpa"))
    (tmp_path / "small.arpa").write_text(SMALL, encoding="utf-8")
    with pytest.raises(ModelError, match="is no token of the tokenizer"):
        load_model(str(tmp_path / "small.arpa"), settings={"tokenizer": str(folder)})


def test_the_fingerprint_tells_models_apart(tmp_path, folder, model):
    other = load_model(str(save(tmp_path, copies=2)))
    assert other.info.fingerprint != model.info.fingerprint
    assert load_model(str(folder)).info.fingerprint == model.info.fingerprint
