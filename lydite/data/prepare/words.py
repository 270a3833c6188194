"""Byte-level BPE tokenizers in numpy: the same ids as `tokenizers`, in less time.

A byte-level tokenizer cuts a text into words by a regular expression, and its model turns each word into tokens without
looking at the others. So the tokens of a word can be kept. Chinese "words" are whole clauses that hardly ever repeat; `clauses`
encodes them anew. What must agree with `tokenizers` is the cutting. It does where both engines agree on what is a letter, a
number and white space, so only texts of `cutting.KNOWN` characters go this way; all others, and texts that spell an added
token, go through `tokenizers`. And the first texts are encoded both ways: a difference ends it.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lydite.data.prepare import cutting
from lydite.data.prepare.bpe import LETTERS, Ids, Merges, merges_of
from lydite.data.prepare.clauses import Clauses
from lydite.data.prepare.ngrams import is_han
from lydite.data.prepare.tables import Table

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""What ByteLevel cuts by when nothing else is said (Radford et al. 2019)."""
_MOST = 1 << 19
"""Words that are remembered."""
_SHORT = 16
"""Bytes of a word that is one key of the table."""
_BATCH = 1 << 18
"""Characters of texts that are encoded together."""
_CHECKED = 8
"""Texts of each kind that are encoded both ways."""
_MASKS = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)


class _Memory:
    """Words and their ids: short ones by their bytes as two numbers, long ones in a dict."""

    def __init__(self, tokenizer: Tokenizer, merges: Merges | None) -> None:
        self._model, self._merges, self._most = tokenizer.model, merges, _MOST
        self._letters = dict(enumerate(LETTERS))
        self._table = Table(2, _MOST)
        self._begin()

    def _begin(self) -> None:
        self._table.clear()
        self._of_key = np.zeros(self._table.most + 1, np.int64)
        """Number of a key to the word's."""
        self._long: dict[bytes, int] = {}
        self._offsets, self._counts = _Growing(), _Growing()
        self._pool = _Growing()
        nothing = np.zeros(1, np.uint64)  # cutting.BETWEEN, which has no tokens
        self._of_key[self._table.add([nothing, nothing])] = self._keep(np.zeros(0, np.int64), np.zeros(1, np.int64))

    def encode(self, data: bytes, starts: NDArray[np.int64]) -> tuple[Ids, NDArray[np.int64]]:
        """Words that begin at `starts` [words] of `data` to ids [tokens] and the number of tokens of each [words]."""
        if len(starts) > self._most // 2:  # more than may be new at one time
            middle = len(starts) // 2
            place = int(starts[middle])
            halves = self.encode(data[:place], starts[:middle]), self.encode(data[place:], starts[middle:] - place)
            return np.concatenate([half[0] for half in halves]), np.concatenate([half[1] for half in halves])
        lengths = np.diff(np.r_[starts, len(data)])
        if self._table.size + len(starts) > self._most or len(self._long) > self._most:
            self._begin()
        words = np.zeros(len(starts), np.int64)
        short = np.flatnonzero(lengths <= _SHORT)
        keys = _keys(data, starts[short], lengths[short])
        found = self._table.find(keys)
        missing = np.flatnonzero(found == 0)
        if len(missing):
            found[missing] = self._learn([key[missing] for key in keys])
        words[short] = self._of_key[found]
        for place in np.flatnonzero(lengths > _SHORT).tolist():
            start = int(starts[place])
            words[place] = self._of_long(data[start : start + int(lengths[place])])
        counts = self._counts.values[words]
        before = np.cumsum(counts) - counts
        places = np.repeat(self._offsets.values[words] - before, counts)
        places += np.arange(len(places))
        return self._pool.values[places], counts

    def _learn(self, keys: Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
        """Numbers of keys that are new, of which some may be alike."""
        order = np.lexsort(keys)
        sorted_keys = [key[order] for key in keys]
        new = np.r_[True, (sorted_keys[0][1:] != sorted_keys[0][:-1]) | (sorted_keys[1][1:] != sorted_keys[1][:-1])]
        distinct = [key[new] for key in sorted_keys]
        raw = np.stack(distinct, 1).astype("<u8").view(np.uint8).reshape(len(distinct[0]), _SHORT)
        kept = raw != 0
        lengths = kept.sum(1)
        if self._merges is None:
            texts = [row[:size].tobytes() for row, size in zip(raw, lengths.tolist(), strict=True)]
            listed = [self._tokens(text) for text in texts]
            ids, counts = np.array([i for part in listed for i in part]), np.array([len(part) for part in listed])
        else:
            starts = np.cumsum(lengths) - lengths
            joined = self._merges.join(self._merges.byte_ids[raw[kept]], starts)
            counts = np.add.reduceat(joined >= 0, starts, dtype=np.int64)
            ids = joined[joined >= 0]
        numbers = self._table.add(distinct)
        self._of_key[numbers] = self._keep(ids, counts)
        back = np.empty(len(order), np.int64)
        back[order] = numbers[np.cumsum(new) - 1]
        return back

    def _of_long(self, word: bytes) -> int:
        number = self._long.get(word)
        if number is None:
            ids = self._tokens(word)
            number = self._long[word] = int(self._keep(np.array(ids), np.array([len(ids)]))[0])
        return number

    def _keep(self, ids: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        numbers = self._counts.size + np.arange(len(counts))
        self._offsets.extend(self._pool.size + np.cumsum(counts) - counts)
        self._counts.extend(counts)
        self._pool.extend(ids)
        return numbers

    def _tokens(self, word: bytes) -> list[int]:
        letters = word.decode("latin-1").translate(self._letters)
        return [token.id for token in self._model.tokenize(letters)]


class _Growing:
    """An array of numbers that grows at its end."""

    def __init__(self) -> None:
        self.values = np.zeros(1 << 12, np.int64)
        self.size = 0

    def extend(self, more: NDArray[Any]) -> None:
        if self.size + len(more) > len(self.values):
            self.values = np.concatenate([self.values, np.zeros(max(len(more), len(self.values)), np.int64)])
        self.values[self.size : self.size + len(more)] = more
        self.size += len(more)


def _keys(data: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[NDArray[np.uint64]]:
    """The bytes of words of at most 16 as two numbers each, with zeros behind them."""
    padded = data + bytes(_SHORT)
    eights: NDArray[np.uint64] = np.ndarray((len(data) + 9,), "<u8", padded, strides=(1,))
    first = eights[starts] & _MASKS[np.minimum(lengths, 8)]
    second = eights[starts + 8] & _MASKS[np.maximum(lengths - 8, 0)]
    return [first, second]


def _batches(places: list[int], texts: Sequence[str]) -> Iterator[list[int]]:
    """Places of texts that are encoded together: memory does not grow with their number."""
    held, size = list[int](), 0
    for place in places:
        if held and size + len(texts[place]) > _BATCH:
            yield held
            held, size = [], 0
        held.append(place)
        size += len(texts[place])
    if held:
        yield held


class WordEncoder:
    """`encode` gives the ids of texts, or None where `tokenizers` has to."""

    def __init__(self, tokenizer: Tokenizer, pattern: str, model: dict[str, Any]) -> None:
        self._tokenizer, self._pattern = tokenizer, pattern
        cutter = regex.compile(pattern)
        assert cutter.groups == 0, "findall gives whole words"
        self._find = cutter.findall
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values() if not token.special]
        self._added = regex.compile("|".join(map(regex.escape, added))).search if added else None
        self._merges = merges_of(model)
        self._memory = _Memory(tokenizer, self._merges)
        self._left = {True: _CHECKED, False: _CHECKED}
        self._agrees = {True: self._merges is not None, False: True}

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32] | None]:
        """Ids [tokens] of each text."""
        found: list[NDArray[np.uint32] | None] = [None] * len(texts)
        fit = [place for place, text in enumerate(texts) if self._fits(text)]
        is_clauses = {place: not texts[place].isascii() and is_han(texts[place]) for place in fit}
        for kind in (False, True):
            for some in _batches([place for place in fit if is_clauses[place] == kind], texts):
                if self._agrees[kind]:
                    for place, ids in zip(some, self._encode([texts[place] for place in some], kind), strict=True):
                        found[place] = self._checked(texts[place], ids, kind)
        return found

    @functools.cached_property
    def _clauses(self) -> Clauses:
        assert self._merges is not None, "asked for only where there are merges"
        return Clauses(self._merges)

    def _fits(self, text: str) -> bool:
        return bool(text) and not cutting.UNKNOWN.search(text) and not (self._added and self._added(text))

    def _checked(self, text: str, ids: NDArray[np.uint32] | None, kind: bool) -> NDArray[np.uint32] | None:
        if ids is not None and self._left[kind] and self._agrees[kind]:
            self._left[kind] -= 1
            self._agrees[kind] = ids.tolist() == self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids if self._agrees[kind] else None

    def _encode(self, texts: list[str], kind: bool) -> Sequence[NDArray[np.uint32] | None]:
        """Texts that fit, all of clauses or all of words."""
        joined = cutting.BETWEEN.join(texts)
        codes = cutting.characters(joined)
        if self._pattern == GPT2:
            starts = cutting.word_starts(codes)
        else:
            maybe = self._cut(texts, len(codes))
            if maybe is None:
                return [None] * len(texts)
            starts = maybe
        lengths = np.array([len(text) + 1 for text in texts])
        left = set[int]()
        begins = np.cumsum(lengths) - lengths  # of texts, in characters; BETWEEN belongs to the one before
        if kind:
            ids, counts, alone = self._clauses.encode(codes, starts)
            left = set((np.searchsorted(begins, alone, side="right") - 1).tolist())
        else:
            data = joined.encode()
            places = np.flatnonzero(starts)
            if len(data) != len(codes):
                width = cutting.widths(codes)
                places = (np.cumsum(width) - width)[places]
            ids, of_words = self._memory.encode(data, places)
            counts = np.zeros(len(codes), np.int64)
            counts[starts] = of_words
        sums = np.add.reduceat(counts, begins)
        ends = np.cumsum(sums)
        border = np.append(counts[begins[1:] - 1], 0)
        narrow = ids.astype(np.uint32)
        spans = zip(sums.tolist(), ends.tolist(), border.tolist(), strict=True)
        return [
            None if number in left else narrow[end - size : end - last]
            for number, (size, end, last) in enumerate(spans)
        ]

    def _cut(self, texts: list[str], size: int) -> NDArray[np.bool_] | None:
        """Where words start by any expression; None where it passes over characters."""
        words: list[str] = []
        for text in texts:
            here = self._find(text)
            if sum(map(len, here)) != len(text):
                return None
            words += here
            words.append(cutting.BETWEEN)
        words.pop()
        starts = np.zeros(size, bool)
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        starts[np.cumsum(lengths) - lengths] = True
        return starts


def word_encoder(tokenizer: Tokenizer, whole: dict[str, Any]) -> WordEncoder | None:
    """For tokenizers that cut by one regular expression and are byte-level; None for all others. `whole`: its JSON."""
    model, cutter = whole["model"], whole.get("pre_tokenizer") or {}
    if whole.get("normalizer") or model["type"] != "BPE" or model.get("dropout") or model.get("byte_fallback"):
        return None
    parts = cutter.get("pretokenizers") if cutter.get("type") == "Sequence" else [cutter]
    pattern = _pattern(parts or [])
    return WordEncoder(tokenizer, pattern, model) if pattern else None


def _pattern(parts: list[dict[str, Any]]) -> str | None:
    """The expression of ByteLevel alone, or of Split before it."""
    last = parts[-1] if parts else {}
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if len(parts) == 1 and last.get("use_regex", True):
        return GPT2
    first = parts[0]
    if len(parts) != 2 or first.get("type") != "Split" or last.get("use_regex", True):
        return None
    pattern = first["pattern"].get("Regex")
    if pattern is None or first.get("invert") or first.get("behavior") != "Isolated":
        return None
    try:
        return pattern if regex.compile(pattern).groups == 0 else None
    except regex.error:
        return None
