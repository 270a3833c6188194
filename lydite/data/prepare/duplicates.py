"""Keys of documents by which duplicates are found: a hash of the content, and MinHash signatures in bands.

Exact: BLAKE2b of the text with every run of white space as one space. Near: MinHash (Broder 1997) over the set of n-grams,
banded for locality-sensitive hashing (Leskovec, Rajaraman and Ullman, *Mining of Massive Datasets*, chapter 3): documents
that agree in all hashes of a band are compared, and the share of equal hashes in their signatures estimates the Jaccard
similarity. With 20 bands of 6, a pair of similarity s is compared with probability 1 - (1 - s^6)^20: 0.998 at 0.8, 0.27
at 0.5. Signatures are kept at 8 bits a hash, which chance makes equal once in 256 (Li and König 2010), and that is taken off.

Written here, in numpy: the hash of a corpus follows from these values, so they must not change with another library's
version; and shingles of Chinese characters have to be made here anyway.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lydite.data.prepare.ngrams import Hashes, mix, ngram_hashes

BANDS, ROWS = 20, 6
HASHES = BANDS * ROWS
_BLOCK = 4096
"""Shingles at one time, so that the products stay in the cache."""
_NUMBERS = np.random.Generator(np.random.PCG64(20260101)).integers(1, 1 << 63, (2, HASHES), np.uint64)
_FACTORS = _NUMBERS[0] | np.uint64(1)
_SHIFTS = _NUMBERS[1]
_NOTHING = np.zeros(1, np.uint64)
"""The one shingle of a text without words: such texts are alike."""


def content_key(text: str, seed: int) -> bytes:
    """16 bytes that equal texts share, white space aside; they also decide the order of documents and their split."""
    plain = " ".join(text.split()).encode("utf-8")
    return hashlib.blake2b(plain, digest_size=16, key=seed.to_bytes(16, "little", signed=True)).digest()


def minhash(documents: Sequence[Hashes], n: int) -> Hashes:
    """Signatures over the n-grams of documents, each a row of units [units]; shorter ones have one shingle, the whole.

    uint64 [documents, HASHES].
    """
    shingles = [ngram_hashes(values, min(n, len(values))) if len(values) else _NOTHING for values in documents]
    lowest = np.full((len(documents), HASHES), np.iinfo(np.uint64).max, np.uint64)
    owners = np.repeat(np.arange(len(documents)), [len(part) for part in shingles])
    flat = np.concatenate([_NOTHING[:0], *shingles])
    for start in range(0, len(flat), _BLOCK):  # all documents together: numpy is slow on short ones alone
        block = _FACTORS[:, None] * flat[None, start : start + _BLOCK]
        block += _SHIFTS[:, None]
        here = owners[start : start + _BLOCK]
        firsts = np.flatnonzero(np.r_[True, here[1:] != here[:-1]])
        found = np.minimum.reduceat(block, firsts, axis=1).T
        lowest[here[firsts]] = np.minimum(lowest[here[firsts]], found)
    return lowest


def bands(signatures: Hashes) -> Hashes:
    """A hash a band, no two bands alike: [documents, HASHES] to [documents, BANDS]."""
    parts = signatures.reshape(-1, BANDS, ROWS)
    total = np.broadcast_to(np.arange(1, BANDS + 1, dtype=np.uint64), parts.shape[:2]).copy()
    for row in range(ROWS):
        total = mix(total ^ parts[:, :, row])
    return total


def small(signatures: Hashes) -> NDArray[np.uint8]:
    """Eight bits a hash: what is stored."""
    return (mix(signatures) & np.uint64(255)).astype(np.uint8)


def similarity(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of signatures at eight bits: [pairs, HASHES] twice, to [pairs]."""
    equal = np.asarray(np.mean(one == other, axis=1), np.float64)
    return np.asarray((equal - 1 / 256) / (1 - 1 / 256), np.float64)
