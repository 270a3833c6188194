"""Counting, smoothing and lookup: a case worked by hand, a naive implementation, nltk, and sums to one."""

import weakref
from collections import Counter, defaultdict

import numpy as np
import pytest
from nltk.lm import StupidBackoff, WittenBellInterpolated
from nltk.lm.preprocessing import padded_everygram_pipeline

from lydite.errors import DataError
from lydite.models.ngram_table import KeyIndex
from lydite.models.ngram_train import FALLBACK, SMOOTHINGS, modified_discounts, train_ngram

BOS, EOS = 0, 1


def documents(seed=0, vocab=9, number=60, longest=14):
    """Skewed tokens, so that all counts of counts occur; some documents are empty, some very short."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, vocab - 1)
    sizes = rng.integers(0, longest, number)
    return [rng.choice(np.arange(2, vocab), size=size, p=weights / weights.sum()) for size in sizes]


def train(order=3, smoothing="kneser_ney", docs=None, vocab=9, eos=EOS):
    docs = documents(vocab=vocab) if docs is None else docs
    return train_ngram(docs, order=order, vocab_size=vocab, bos=BOS, eos=eos, smoothing=smoothing)


def logprobs(table, document, eos=EOS):
    """Of every token of a document and its end."""
    return table.score([np.array([BOS, *document, eos])], [1]).logprobs


# -------------------------------------------------------------------------------------------- by hand


def test_bigrams_of_three_documents_by_hand():
    """Vocabulary <s> </s> a b c (ids 0 to 4), order 2, documents "a b", "a b", "a c".

    Bigrams and counts:    <s> a 3   a b 2   a c 1   b </s> 2   c </s> 1
    Counts of counts:      n1 = 2, n2 = 2, n3 = 1, n4 = 0, so Y = 2 / (2 + 4) = 1/3 and
                           D1 = 1 - 2/3 * 2/2 = 1/3,  D2 = 2 - 3/3 * 1/2 = 3/2,  D3 = 3 - 4/3 * 0 = 3
    Words before each one: a: {<s>} 1   b: {a} 1   c: {a} 1   </s>: {b, c} 2;  <s>: none, never predicted.
                           n1 = 3, n2 = 1, n3 = 0: no discounts, so 0.5, 1, 1.5.
    Single words:          5 in all; freed 3 * 0.5 + 1 = 2.5, that is 1/2, shared by </s> a b c (1/4 each):
                           p(a) = p(b) = p(c) = 0.5/5 + 0.5/4 = 0.225,  p(</s>) = 1/5 + 0.5/4 = 0.325  (sum 1)
    After <s>:             3 in all; freed D3 = 3, so p(w | <s>) = 0/3 + 1 * p(w): p(a | <s>) = 0.225
    After a:               3 in all; freed D2 + D1 = 11/6, share 11/18:
                           p(b | a) = (2 - 3/2)/3 + 11/18 * 0.225 = 1/6 + 0.1375 = 0.3041667
                           p(c | a) = (1 - 1/3)/3 + 11/18 * 0.225 = 2/9 + 0.1375 = 0.3597222
    After b:               2 in all; freed D2 = 3/2, share 3/4: p(</s> | b) = (2 - 3/2)/2 + 3/4 * 0.325 = 0.49375
    After c:               1 in all; freed D1 = 1/3, share 1/3: p(</s> | c) = 2/3 + 1/3 * 0.325 = 0.775
    Not seen:              p(a | b) = 3/4 * 0.225 = 0.16875
    """
    trained = train(2, docs=[np.array([2, 3]), np.array([2, 3]), np.array([2, 4])], vocab=5)
    assert trained.discounts == ((0.5, 1.0, 1.5), pytest.approx((1 / 3, 1.5, 3.0)))
    assert trained.fallbacks == (1,)
    np.testing.assert_allclose(np.exp(logprobs(trained.table, [2, 3])), [0.225, 0.30416667, 0.49375], rtol=1e-6)
    np.testing.assert_allclose(np.exp(logprobs(trained.table, [2, 4])), [0.225, 0.35972222, 0.775], rtol=1e-6)
    assert np.exp(trained.table.distribution([BOS, 3]))[2] == pytest.approx(0.16875)
    assert (trained.num_tokens, trained.num_documents) == (9, 3)


def test_discounts_by_hand():
    counts = np.repeat([1, 2, 3, 4, 9], [40, 20, 10, 5, 3])  # Y = 40 / 80
    assert modified_discounts(counts) == pytest.approx((0.5, 1.25, 2.0))
    assert modified_discounts(np.array([1, 1, 2, 2])) is None  # no count of 3
    assert modified_discounts(np.repeat([1, 2, 3], [1, 1, 9])) is None  # D2 would be below zero


# ---------------------------------------------------------------------------------------------- naive


class Naive:
    """Modified Kneser-Ney from its definition, with dictionaries."""

    def __init__(self, docs, order, vocab, eos=EOS):
        self.words = [w for w in range(vocab) if w != BOS or eos == BOS]
        raw = [Counter() for _ in range(order + 1)]
        for doc in docs:
            text = (BOS, *map(int, doc), eos)
            for n in range(1, order + 1):
                raw[n].update(text[i : i + n] for i in range(len(text) - n + 1))
        self.counts = [Counter() for _ in range(order + 1)]
        self.counts[order] = raw[order]
        for n in range(1, order):
            before = defaultdict(set)
            for gram in raw[n + 1]:
                before[gram[1:]].add(gram[0])
            for gram, count in raw[n].items():
                self.counts[n][gram] = len(before[gram]) or (count if n > 1 else 0)
        if order == 1:
            self.counts[1][(BOS,)] -= len(docs)
        self.followers = defaultdict(list)
        for n in range(1, order + 1):
            for gram, count in self.counts[n].items():
                self.followers[gram[:-1]].append(count)
        self.discounts = [
            (0, *(modified_discounts(np.array(list(self.counts[n].values()) or [0])) or FALLBACK))
            for n in range(1, order + 1)
        ]

    def prob(self, word, context):
        lower = self.prob(word, context[1:]) if context else 1 / len(self.words)
        counts = self.followers.get(tuple(context), [])
        total = sum(counts)
        if not total:
            return lower
        discounts = self.discounts[len(context)]
        count = self.counts[len(context) + 1][(*context, word)]
        share = sum(discounts[min(c, 3)] for c in counts) / total
        return (count - discounts[min(count, 3)]) / total + share * lower


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("eos", [EOS, BOS])
def test_kneser_ney_is_its_definition(order, eos):
    docs = documents()
    table = train(order, docs=docs, eos=eos).table
    naive = Naive(docs, order, 9, eos)
    for doc in [*documents(seed=1)[:12], docs[3], docs[5]]:
        text = [BOS, *map(int, doc), eos]
        expected = [naive.prob(text[i], text[max(0, i - order + 1) : i]) for i in range(1, len(text))]
        np.testing.assert_allclose(np.exp(logprobs(table, doc, eos)), expected, rtol=2e-6)


@pytest.mark.parametrize(
    ("smoothing", "peer"), [("witten_bell", WittenBellInterpolated), ("stupid_backoff", StupidBackoff)]
)
def test_as_in_nltk(smoothing, peer):
    """nltk pads with order - 1 symbols on both sides and counts them, so contexts within the text are compared; its
    Witten-Bell has no uniform distribution at the bottom, which the share of unseen words there tells apart."""
    docs = [doc for doc in documents() if len(doc)]
    texts = [[str(w) for w in doc] for doc in docs]
    grams, vocabulary = padded_everygram_pipeline(3, texts)
    model = peer(order=3) if smoothing == "witten_bell" else peer(alpha=0.4, order=3)
    model.fit(grams, vocabulary)
    table = train(3, smoothing, docs).table
    single = table.distribution([]) if table.order == 1 else table.levels[0].logprobs
    compared = 0
    for doc in docs[:20]:
        for i in range(2, len(doc)):
            context, word = doc[i - 2 : i], int(doc[i])
            ours = table.score([np.array([*context, word])], [2]).logprobs[0]
            if smoothing == "stupid_backoff":
                seen = model.counts[[str(w) for w in context]][str(word)]
                if not seen:
                    continue
                assert np.exp(ours) == pytest.approx(model.score(str(word), [str(w) for w in context]), rel=1e-6)
            else:
                assert np.exp(ours) == pytest.approx(_witten_bell(model, str(word), context, single), rel=1e-6)
            compared += 1
    assert compared > 50


def _witten_bell(model, word, context, single):
    """nltk's own recursion, on our single words."""
    if not len(context):
        return float(np.exp(single[int(word)]))
    names = [str(w) for w in context]
    alpha, gamma = model.estimator.alpha_gamma(word, tuple(names))
    return alpha + gamma * _witten_bell(model, word, context[1:], single)


def test_stupid_backoff_by_hand():
    """Documents "a b", "a c" (ids 2 3, 2 4). S(b | a) = 1/2; S(c | b) = 0.4 * 1/6; S(b | c, d) = 0.4 * 0.4 * 1/6."""
    table = train(3, "stupid_backoff", [np.array([2, 3]), np.array([2, 4])], vocab=6).table
    assert np.exp(table.score([np.array([2, 3])], [1]).logprobs) == pytest.approx([0.5])
    assert np.exp(table.score([np.array([3, 4])], [1]).logprobs) == pytest.approx([0.4 / 6])
    assert np.exp(table.score([np.array([5, 4, 3])], [2]).logprobs) == pytest.approx([0.16 / 6])
    assert np.exp(table.distribution([5, 4]))[3] == pytest.approx(0.16 / 6)
    assert np.isneginf(table.score([np.array([2, 5])], [1]).logprobs).all()


# ----------------------------------------------------------------------------------------- invariants


@pytest.mark.parametrize("smoothing", ["kneser_ney", "witten_bell"])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_sums_to_one_after_every_context(smoothing, order):
    table = train(order, smoothing).table
    contexts = [[BOS], [BOS, 2], [2, 2, 2], [8, 8, 8], [3, 7, 2, 5], *[list(doc) for doc in documents(seed=2)[:20]]]
    for context in contexts:
        probs = np.exp(table.distribution(context))
        assert probs.sum() == pytest.approx(1, abs=1e-6)
        assert probs[BOS] == 0
        if len(context) and context[0] == BOS:
            scored = table.score([np.array([*context, w]) for w in range(9)], [len(context)] * 9).logprobs
            np.testing.assert_allclose(np.exp(scored), probs, atol=1e-12)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_greedy_is_what_the_whole_distribution_says(smoothing):
    table = train(3, smoothing).table
    decided = 0
    for doc in documents(seed=3)[:30]:
        text = np.array([BOS, *doc, EOS])
        scores = table.score([text], [1])
        for i in range(1, len(text)):
            truth = table.is_greedy(text, i)
            if not scores.undecided[i - 1]:
                assert bool(scores.greedy[i - 1]) == truth
                decided += 1
    assert decided > 50


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_neither_order_nor_neighbours_nor_far_words_matter(smoothing):
    table = train(3, smoothing).table
    texts = [np.array([BOS, *doc, EOS]) for doc in documents(seed=4)[:20]]
    together = table.score(texts, [1] * 20).logprobs
    alone = np.concatenate([table.score([text], [1]).logprobs for text in texts])
    assert np.array_equal(together, alone)
    text = texts[int(np.argmax([len(text) for text in texts]))]
    parts = [table.score([text[: i + 1]], [i]).logprobs[0] for i in range(1, len(text))]
    assert np.array_equal(parts, table.score([text], [1]).logprobs)


def test_same_documents_same_model():
    one, two = train(4).table, train(4).table
    for a, b in zip(one.levels, two.levels, strict=True):
        assert np.array_equal(a.logprobs, b.logprobs)
        assert np.array_equal(a.words, b.words)


def test_more_data_surprises_less():
    held_out = documents(seed=5)
    few, many = train(3, docs=documents()[:5]).table, train(3, docs=documents(number=2000)).table
    surprise = [sum(-logprobs(table, doc).sum() for doc in held_out) for table in (few, many)]
    assert surprise[1] < surprise[0]


def test_refused():
    with pytest.raises(DataError, match="no documents"):
        train(docs=[])
    with pytest.raises(DataError, match="token 9 is none of the vocabulary's 9"):
        train(docs=[np.array([2, 9])])


def test_empty_documents_have_an_end():
    table = train(2, docs=[np.array([], dtype=np.int64)] * 3).table
    assert np.isfinite(logprobs(table, [])).all()


def test_find():
    assert KeyIndex(np.array([2, 5, 9])).find(np.array([9, 1, 5, 5, 10])).tolist() == [2, -1, 1, 1, -1]
    assert KeyIndex(np.array([], dtype=np.int64)).find(np.array([3])).tolist() == [-1]


def test_an_index_holds_its_keys_once():
    keys = np.arange(10) * 3
    held = weakref.ref(keys)
    index = KeyIndex(keys)
    assert index.find(np.array([6])).tolist() == [2]
    del keys
    assert held() is None
    assert index.find(np.array([9, 10])).tolist() == [3, -1]


def test_find_among_keys_that_share_their_buckets():
    rng = np.random.default_rng(0)
    keys = np.unique(rng.integers(0, 1 << 40, size=3000))
    wanted = np.concatenate([rng.permutation(keys), rng.integers(0, 1 << 40, size=3000)])
    places = {int(key): place for place, key in enumerate(keys)}
    assert KeyIndex(keys).find(wanted).tolist() == [places.get(int(key), -1) for key in wanted]
