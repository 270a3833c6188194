"""The rules on repetition and the search for evaluation items beside plain loops over the words themselves."""

import random
from collections import Counter

import pytest

from lydite.data.prepare.ngrams import numbers, units
from lydite.data.prepare.overlap import BannedText, Overlap
from lydite.data.prepare.rules import gopher_repetition

TOP = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def grams(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def plain_repetition(words):
    """Rae et al. 2021, table A1, word by word."""
    total = sum(map(len, words))
    for n, limit in TOP.items():
        counts = Counter(grams(words, n))
        if not counts:
            return None
        most = max(counts.values())
        sizes = {most * sum(map(len, gram)) for gram, count in counts.items() if count == most}
        if most > 1 and min(sizes) > limit * total:  # of n-grams that are equally frequent any may be the top one
            return f"top {n}-gram"
        assert most == 1 or max(sizes) <= limit * total or min(sizes) > limit * total
    for n, limit in REPEATED.items():
        counts = Counter(grams(words, n))
        if not counts:
            return None
        covered = {i + k for i, gram in enumerate(grams(words, n)) if counts[gram] > 1 for k in range(n)}
        if sum(len(words[i]) for i in covered) > limit * total:
            return f"repeated {n}-grams"
    return None


@pytest.mark.parametrize("seed", range(60))
def test_repetition_is_that_of_a_plain_count(seed):
    rng = random.Random(seed)
    kinds = rng.choice((8, 40, 200, 3000))
    words = [f"w{rng.randrange(kinds)}x" for _ in range(rng.randrange(1, 300))]
    for _ in range(rng.randrange(4)):  # a passage that stands there again
        start, size = rng.randrange(len(words)), rng.randrange(1, 20)
        words += words[start : start + size]
    try:
        wanted = plain_repetition(words)
    except AssertionError:
        pytest.skip("equally frequent n-grams of different sizes")
    text = " ".join(words)
    assert gopher_repetition(text, units(text), numbers(units(text))) == wanted


def test_items_are_found_where_a_plain_search_finds_them():
    rng = random.Random(0)
    some = lambda size: [rng.choice("天地玄黄宇宙洪荒日月盈昃辰宿列张") for _ in range(size)]  # noqa: E731
    items = [some(rng.randrange(1, 40)) for _ in range(60)]
    overlap = Overlap([BannedText("task", str(i), "".join(item)) for i, item in enumerate(items)], 13, 8)
    num_found = 0
    for _ in range(80):
        document = some(200)
        if rng.random() < 0.5:
            item = rng.choice(items)
            document[50:50] = item[: rng.randrange(1, len(item) + 1)]
        wanted = []
        for length in range(13, 7, -1):
            here = [
                gram for gram in grams(document, length)
                if any(min(len(item), 13) == length and gram in grams(item, length) for item in items)
            ]  # fmt: skip
            if here:
                wanted = [(" ".join(here[0]), len(here))]
                break
        hit = overlap.find(document, numbers(document))
        assert ([] if hit is None else [(hit.shared, hit.num_shared)]) == wanted
        num_found += hit is not None
        if hit is not None:
            assert hit.shared.replace(" ", "") in "".join(items[int(hit.item)])
    assert num_found > 10
    assert overlap.num_too_short["task"] == sum(len(item) < 8 for item in items)
