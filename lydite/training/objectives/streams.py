"""Documents as a stream, as pieces, and in the order of an epoch: the ways in which objectives cut text.

Contract: nothing is copied but what is asked for; a stream over a mapped corpus costs 8 bytes a document.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from lydite.errors import DataError
from lydite.training.batch import Ints
from lydite.training.objectives.base import Documents, generator
from lydite.types import Record

POOL = 8192
"""Examples among which those of like length are brought together."""
_ORDER, _OFFSET, _GROUPS = 1, 2, 3
"""Salts of generators that belong to an epoch, not to an example."""


@runtime_checkable
class KnowsLengths(Protocol):
    """Documents that know their lengths without being read (a Split of a corpus)."""

    def lengths(self) -> Ints: ...


def document_lengths(documents: Documents) -> Ints:
    """Tokens of each document, int64. Raises DataError where there is nothing to learn from."""
    if isinstance(documents, KnowsLengths):
        lengths = np.asarray(documents.lengths(), dtype=np.int64)
    else:
        lengths = np.fromiter((len(document) for document in documents), dtype=np.int64, count=len(documents))
    if not lengths.sum():
        raise DataError("the split to train on has no tokens; prepare a corpus with text in it")
    return lengths


class Stream:
    """All documents one after another, `before` and `after` each of them; a sequence of tokens that is never made whole."""

    def __init__(self, documents: Documents, before: Sequence[int] = (), after: Sequence[int] = ()) -> None:
        self.documents = documents
        self.before, self.after = np.array(before, np.int64), np.array(after, np.int64)
        sizes = document_lengths(documents) + len(before) + len(after)
        self.starts = np.concatenate([[0], np.cumsum(sizes)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, start: int, stop: int) -> Ints:
        """Tokens [start, stop), int64; needs 0 <= start < stop <= len."""
        assert 0 <= start < stop <= len(self)
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        last = int(np.searchsorted(self.starts, stop, side="left"))
        parts = []
        for number in range(first, last):
            begin = max(0, start - int(self.starts[number]))
            end = min(int(self.starts[number + 1]), stop) - int(self.starts[number])
            parts.append(self._document(number, begin, end))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _document(self, number: int, begin: int, end: int) -> Ints:
        """Positions [begin, end) of a document with what stands around it; only those are read."""
        tokens = self.documents[number]
        if not len(self.before) and not len(self.after):
            return tokens[begin:end].astype(np.int64)
        lead = len(self.before)
        middle = tokens[max(0, begin - lead) : max(0, end - lead)].astype(np.int64)
        tail = lead + len(tokens)
        return np.concatenate([self.before[begin:end], middle, self.after[max(0, begin - tail) : max(0, end - tail)]])


class Blocks:
    """Blocks of `size` tokens of a stream, each `overlap` tokens longer than its step, in an order of each epoch.

    The first block starts at an offset drawn for the epoch, so that the same text is cut elsewhere each time.
    """

    def __init__(self, stream: Stream, size: int, seed: int, *, overlap: int = 0) -> None:
        self.stream, self.size, self.seed, self.overlap = stream, size, seed, overlap
        self.num_blocks = max(1, (len(stream) - overlap) // size - 1)
        """One less than fit, which leaves room for the offset."""
        self._plan: tuple[int, int, Ints] | None = None

    def read(self, epoch: int, index: int) -> Ints:
        """Tokens of block `index` of the epoch: size + overlap of them, fewer only where the stream is that short."""
        if self._plan is None or self._plan[0] != epoch:
            room = len(self.stream) - self.overlap - self.num_blocks * self.size
            offset = int(generator(self.seed, epoch, 0, _OFFSET).integers(0, min(self.size, max(0, room) + 1)))
            self._plan = epoch, offset, permutation(self.num_blocks, self.seed, epoch)
        start = self._plan[1] + int(self._plan[2][index]) * self.size
        return self.stream.read(start, min(start + self.size + self.overlap, len(self.stream)))


def permutation(count: int, seed: int, epoch: int) -> Ints:
    """The order of the epoch, int64 [count]."""
    return generator(seed, epoch, 0, _ORDER).permutation(count)


def grouped_order(lengths: Ints, seed: int, epoch: int, group: int) -> Ints:
    """An order of the epoch in which `group` examples in a row are of like length, and the groups are shuffled.

    Examples are shuffled, sorted by length in pools of some thousands, and cut into groups: a batch of `group` examples
    (or of a divisor of it) has little to pad. What is left over from whole groups, drawn by chance, comes last.
    """
    order = permutation(len(lengths), seed, epoch)
    whole = len(order) // group
    order, rest = order[: whole * group], order[whole * group :]
    pool = max(group, POOL // group * group)
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        order[start : start + pool] = part[np.argsort(lengths[part], kind="stable")]
    shuffled = order.reshape(whole, group)[generator(seed, epoch, 0, _GROUPS).permutation(whole)]
    return np.concatenate([shuffled.ravel(), rest[np.argsort(lengths[rest], kind="stable")]])


class Pieces:
    """Documents cut into pieces of at most `size` tokens (a table of where each is), never across documents."""

    def __init__(self, documents: Documents, size: int) -> None:
        self.documents, self.size = documents, size
        lengths = document_lengths(documents)
        counts = -(-lengths // size)
        self.document = np.repeat(np.arange(len(lengths)), counts)
        number = np.arange(len(self.document)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.start = number * size
        self.lengths = np.minimum(lengths[self.document] - self.start, size)

    def __len__(self) -> int:
        return len(self.document)

    def read(self, piece: int) -> Ints:
        """The tokens of a piece, int64."""
        start = int(self.start[piece])
        return self.documents[int(self.document[piece])][start : start + self.size].astype(np.int64)


class SourceSettings(Record, frozen=True, kw_only=True):
    """What all settings of objectives over plain text share."""

    context: int = 512
    layout: Literal["stream", "documents"] = "stream"
    """`stream`: documents joined and cut into blocks of one length; `documents`: each cut by itself."""
    group: int = 64
    """Of `documents`: so many examples in a row are of like length; best a multiple of the batch size."""

    def __post_init__(self) -> None:
        if self.context < 4 or self.group < 1:
            raise ValueError("context must be 4 or more, group 1 or more")


class Source(Protocol):
    """Text of the examples of an epoch."""

    def __len__(self) -> int: ...

    def read(self, epoch: int, index: int) -> Ints: ...


class StreamSource:
    """Blocks of a stream."""

    def __init__(self, stream: Stream, size: int, seed: int) -> None:
        self._blocks = Blocks(stream, min(size, len(stream)), seed)

    def __len__(self) -> int:
        return self._blocks.num_blocks

    def read(self, epoch: int, index: int) -> Ints:
        return self._blocks.read(epoch, index)


class DocumentSource:
    """Pieces of single documents, in an order of each epoch in which neighbours are of like length."""

    def __init__(self, documents: Documents, size: int, seed: int, group: int) -> None:
        self.pieces, self._seed, self._group = Pieces(documents, size), seed, group
        self._order: tuple[int, Ints] | None = None

    def __len__(self) -> int:
        return len(self.pieces)

    def piece(self, epoch: int, index: int) -> int:
        """Which piece an example is."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, grouped_order(self.pieces.lengths, self._seed, epoch, self._group)
        return int(self._order[1][index])

    def is_start(self, epoch: int, index: int) -> bool:
        """Whether its document begins with it."""
        return bool(self.pieces.start[self.piece(epoch, index)] == 0)

    def is_end(self, epoch: int, index: int) -> bool:
        """Whether its document ends with it."""
        piece = self.piece(epoch, index)
        return piece + 1 == len(self.pieces) or bool(self.pieces.start[piece + 1] == 0)

    def read(self, epoch: int, index: int) -> Ints:
        return self.pieces.read(self.piece(epoch, index))


def make_source(
    documents: Documents,
    size: int,
    settings: SourceSettings,
    seed: int,
    between: Sequence[int] = (),
    before: Sequence[int] = (),
) -> StreamSource | DocumentSource:
    """Text of at most `size` tokens an example; `before` and `between` stand before and behind each document of a stream."""
    if settings.layout == "stream":
        return StreamSource(Stream(documents, before, between), size, seed)
    return DocumentSource(documents, size, seed, settings.group)
