"""How text is corrupted: which positions are chosen, and what stands there instead. Plain arrays in, plain arrays out.

Shares are exact to one position: of n positions, share * n are chosen, rounded up or down at random so that the mean
is right for short texts too, but never none. Spans do not overlap; where they are placed `apart`, at least one position
stands between two of them, as long as there is room.

Sources: Devlin et al. 2019 (BERT: 15%, 80/10/10); Joshi et al. 2020 (SpanBERT: geometric lengths); Raffel et al. 2020 and the
function random_spans_noise_mask of its code (T5); Lewis et al. 2020 (BART: Poisson lengths, spans of length 0 insert a mask);
Yang et al. 2019 (XLNet: spans of 1 to 5 in contexts of K times their length).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Random = np.random.Generator


def amount(n: int, share: float, rng: Random) -> int:
    """How many of n are chosen: share * n in the mean, at least 1 and at most n (0 of none)."""
    return min(n, max(1, int(n * share + rng.random()))) if n else 0


def ranges(starts: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> Ints:
    """starts[0], starts[0] + 1, ... lengths[0] numbers, then those of the next: int64 [sum of lengths]."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


# -------------------------------------------------------------------------------- choosing positions


def choose(n: int, share: float, rng: Random) -> Ints:
    """`share` of n positions, each as likely as any other, in order."""
    return np.sort(rng.permutation(n)[: amount(n, share, rng)])


def choose_whole(lengths: Ints, share: float, rng: Random) -> Ints:
    """Which units (words of so many tokens) make up `share` of all tokens: units in random order, one that would be too
    many is passed over, as in BERT's code. Numbers of units, in order."""
    order = rng.permutation(len(lengths))
    left = amount(int(lengths.sum()), share, rng)
    sizes = lengths[order]
    taken = int(np.searchsorted(np.cumsum(sizes), left, side="right"))
    chosen = [order[:taken]]
    left -= int(sizes[:taken].sum())
    while left > 0:
        fitting = np.flatnonzero(sizes[taken:] <= left)
        if not len(fitting):
            break
        taken += int(fitting[0]) + 1
        chosen.append(order[taken - 1 : taken])
        left -= int(sizes[taken - 1])
    found = np.sort(np.concatenate(chosen))
    return found if len(found) else order[:1]  # one long word is better than nothing to learn


def geometric_lengths(total: int, p: float, longest: int, rng: Random) -> Ints:
    """Span lengths from the geometric distribution, cut off above `longest` and rescaled (mean 3.8 for p = 0.2 and 10), that
    add up to `total`: the last one is shortened."""
    sizes = np.arange(1, longest + 1)
    weights = p * (1 - p) ** (sizes - 1)
    drawn = rng.choice(sizes, size=total, p=weights / weights.sum())
    return _up_to(drawn, total)


def poisson_lengths(total: int, mean: float, rng: Random) -> Ints:
    """Span lengths from the Poisson distribution, zeros among them, that add up to `total`: the last one is shortened."""
    drawn = rng.poisson(mean, size=total)
    while drawn.sum() < total:
        drawn = np.concatenate([drawn, rng.poisson(mean, size=total)])
    return _up_to(drawn, total)


def _up_to(drawn: Ints, total: int) -> Ints:
    sums = np.cumsum(drawn)
    last = int(np.searchsorted(sums, total))
    lengths = drawn[: last + 1].copy()
    lengths[-1] -= sums[last] - total
    return lengths


def place(n: int, lengths: Ints, rng: Random, *, apart: bool = False) -> Ints:
    """Starts of spans of these lengths (in this order) among n positions, every placement as likely as any other."""
    count, free = len(lengths), n - int(lengths.sum())
    between = 1 if apart and free >= count - 1 else 0
    free -= between * (count - 1)
    # Where the spans stand among free + count things, as positions without repetition.
    slots = np.sort(rng.permutation(free + count)[:count])
    before = slots - np.arange(count)  # free positions before each span
    return before + np.cumsum(lengths) - lengths + between * np.arange(count)


def choose_context_spans(n: int, k: int, longest: int, rng: Random) -> Ints:
    """XLNet's targets among n positions: for spans of L = 1 to `longest`, one somewhere in every k * L; about n / k, in order."""
    lengths = rng.integers(1, longest + 1, size=n // k + 1)
    contexts = np.cumsum(lengths * k)
    starts = contexts - lengths * k + rng.integers(0, lengths * (k - 1) + 1)
    inside = starts < n
    chosen = ranges(starts[inside], np.minimum(lengths[inside], n - starts[inside]))
    return chosen if len(chosen) else rng.integers(0, n, size=1)


# ------------------------------------------------------------------------------------ what stands there


def replace(
    ids: Ints, units: tuple[Ints, Ints], mask: int, others: Ints, shares: tuple[float, float], rng: Random
) -> Ints:
    """A copy of `ids` in which the chosen positions are masked, replaced by a random one of `others`, or kept.

    units: (chosen positions, for each of them the number of its unit): all of a unit share one fate.
    shares: of units that are masked, and of those whose tokens are replaced at random; the rest stays as it is.
    """
    positions, unit = units
    out = ids.copy()
    if not len(positions):
        return out
    fate = rng.random(int(unit.max()) + 1)[unit]
    out[positions[fate < shares[0]]] = mask
    swapped = positions[(fate >= shares[0]) & (fate < shares[0] + shares[1])]
    out[swapped] = others[rng.integers(0, len(others), size=len(swapped))]
    return out


# ------------------------------------------------------------------------------------------------- T5


def corrupted_counts(n: int, density: float, mean_length: float) -> tuple[int, int]:
    """(noise tokens, noise spans) of n tokens, as T5's code rounds them."""
    noise = min(max(round(n * density), 1), n - 1)
    return noise, min(max(round(noise / mean_length), 1), noise, n - noise)


def corrupted_lengths(n: int, density: float, mean_length: float) -> tuple[int, int]:
    """Lengths of T5's inputs and targets made of n tokens: a sentinel for each span, and the end of the sequence."""
    noise, spans = corrupted_counts(n, density, mean_length)
    return n - noise + spans + 1, noise + spans + 1


def fitting_length(inputs: int, density: float, mean_length: float) -> int:
    """The most tokens whose corrupted inputs have no more than `inputs` positions: 568 for 512, 0.15 and 3.0."""
    n = inputs
    while corrupted_lengths(n + 1, density, mean_length)[0] <= inputs:
        n += 1
    return n


def span_mask(n: int, density: float, mean_length: float, rng: Random) -> Bools:
    """Which of n tokens are noise: lengths of noise and of what stands between are random segmentations of their totals;
    the text begins with a token that is no noise and ends with one that is."""
    noise, spans = corrupted_counts(n, density, mean_length)
    lengths = np.empty(2 * spans, dtype=np.int64)
    lengths[0::2] = _segments(n - noise, spans, rng)
    lengths[1::2] = _segments(noise, spans, rng)
    return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)


def _segments(total: int, count: int, rng: Random) -> Ints:
    """`total` as the sum of `count` positive whole numbers, every such sum as likely as any other."""
    cuts = np.sort(rng.permutation(total - 1)[: count - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def to_sentinels(ids: Ints, noise: Bools, sentinels: Ints) -> tuple[Ints, Ints]:
    """(inputs, targets) of T5: each run of noise is one sentinel in the inputs, each run of the rest one in the targets."""
    return _runs_to_sentinels(ids, noise, sentinels), _runs_to_sentinels(ids, ~noise, sentinels)


def _runs_to_sentinels(ids: Ints, runs: Bools, sentinels: Ints) -> Ints:
    first = runs.copy()
    first[1:] &= ~runs[:-1]
    out = ids.copy()
    out[first] = sentinels[: int(first.sum())]
    return out[~runs | first]


# ----------------------------------------------------------------------------------------------- BART


def infill(ids: Ints, word_lengths: Ints, mask: int, settings: tuple[float, float], rng: Random) -> Ints:
    """BART's text infilling: spans of whole words, each one mask; spans of length 0 put a mask between two tokens.

    settings: (share of the words that are masked, mean of the Poisson distribution of span lengths in words).
    """
    share, mean = settings
    lengths = poisson_lengths(amount(len(word_lengths), share, rng), mean, rng)
    spans = lengths[lengths > 0]
    starts = place(len(word_lengths), spans, rng)
    borders = np.concatenate([[0], np.cumsum(word_lengths)])
    keep = np.ones(len(ids), dtype=bool)
    keep[ranges(borders[starts], borders[starts + spans] - borders[starts])] = False
    out = ids.copy()
    keep[borders[starts]] = True
    out[borders[starts]] = mask
    out = out[keep]
    inserted = int((lengths == 0).sum())
    return np.insert(out, rng.integers(0, len(out) + 1, size=inserted), mask) if inserted else out
