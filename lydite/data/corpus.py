"""A corpus as token shards on disk: what `lydite prepare` writes and what everything that trains reads.

    FOLDER/corpus.json                  one CorpusInfo, written last: a folder that has it is complete
    FOLDER/tokenizer/                   the tokenizer, as transformers' AutoTokenizer loads it
    FOLDER/train-00000.tokens           token ids one after another, little-endian uint16 or uint32, nothing between
    FOLDER/train-00000.documents.npy    uint64 [documents + 1, 3]: where each document starts in tokens, in sentences
                                        and in bytes of its text; the last row holds the totals
    FOLDER/train-00000.sentences.npy    uint32 [sentences]: where each sentence starts, in tokens from its document's start

Contract: documents are whole and hold no special tokens; whoever trains puts those between them. Documents stand in
their final, shuffled order. Files are mapped, never read whole, so that a corpus may be larger than memory. A folder
that was begun and not finished has no corpus.json, and `open_corpus` says so. No torch here.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from lydite.errors import DataError
from lydite.types import Record

SCHEMA = 1
INFO = "corpus.json"
WORK = ".prepare"
"""Folder inside a corpus that is being made; gone when it is complete."""
TOKENIZER = "tokenizer"
COLUMNS = 3
"""Of an index: tokens, sentences, bytes."""

Tokens = NDArray[np.unsignedinteger[Any]]


class ShardInfo(Record, frozen=True, kw_only=True):
    """One shard: three files that share a name."""

    name: str
    """`train-00000`, without an ending."""
    num_documents: int
    num_tokens: int
    num_sentences: int
    sha256: dict[str, str]
    """Of each of the three files, by its ending."""


class SplitInfo(Record, frozen=True, kw_only=True):
    """One split and its shards, in order."""

    num_documents: int
    num_tokens: int
    num_sentences: int
    num_bytes: int
    """UTF-8 bytes of the text that the tokens stand for: what bits per byte divide by."""
    num_characters: int
    shards: tuple[ShardInfo, ...]


class CorpusInfo(Record, frozen=True, kw_only=True):
    """corpus.json."""

    schema: int = SCHEMA
    hash: str
    """Hash of the shards and the tokenizer: equal hashes are the same tokens in the same order."""
    dtype: Literal["uint16", "uint32"]
    vocab_size: int
    """Largest token id of the tokenizer + 1."""
    splits: dict[str, SplitInfo]
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    """What was asked for: sources, rules, mixture, tokenizer."""
    report: dict[str, Any] = msgspec.field(default_factory=dict)
    """What each step did, counted."""
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    """Versions, times; nothing that decides the tokens."""


class Split(Sequence[Tokens]):
    """The documents of a split: `split[i]` are its token ids, mapped and read-only. May be handed to other processes."""

    def __init__(self, folder: Path, name: str, info: SplitInfo, dtype: str) -> None:
        self.folder, self.name, self.info, self.dtype = folder, name, info, np.dtype(dtype).newbyteorder("<")
        self._ends = list(accumulate(shard.num_documents for shard in info.shards))
        self._open: dict[int, tuple[Tokens, NDArray[np.uint64], NDArray[np.uint32]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:  # another process maps the files itself
        return Split, (self.folder, self.name, self.info, self.dtype.name)

    @property
    def num_tokens(self) -> int:
        return self.info.num_tokens

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the whole split's text."""
        return self.info.num_bytes

    def __len__(self) -> int:
        return self.info.num_documents

    @overload
    def __getitem__(self, index: int) -> Tokens: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tokens]: ...
    def __getitem__(self, index: int | slice) -> Tokens | list[Tokens]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        tokens, documents, _, row = self._find(index)
        return tokens[int(documents[row, 0]) : int(documents[row + 1, 0])]

    def sentences(self, index: int) -> NDArray[np.uint32]:
        """Token offsets at which the document's sentences start; the first is 0."""
        _, documents, sentences, row = self._find(index)
        return sentences[int(documents[row, 1]) : int(documents[row + 1, 1])]

    def document_bytes(self, index: int) -> int:
        """UTF-8 bytes of the document's text."""
        _, documents, _, row = self._find(index)
        return int(documents[row + 1, 2] - documents[row, 2])

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every document, in order: int64 [documents]."""
        parts = [np.diff(self._shard(number)[1][:, 0].astype(np.int64)) for number in range(len(self._ends))]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _find(self, index: int) -> tuple[Tokens, NDArray[np.uint64], NDArray[np.uint32], int]:
        """The arrays of the document's shard, and its row there."""
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"document {index} of the {len(self)} in {self.folder} ({self.name})")
        number = bisect_right(self._ends, place)
        return *self._shard(number), place - (self._ends[number - 1] if number else 0)

    def _shard(self, number: int) -> tuple[Tokens, NDArray[np.uint64], NDArray[np.uint32]]:
        if number not in self._open:
            self._open[number] = _map(self.folder, self.info.shards[number], self.dtype)
        return self._open[number]


def _map(folder: Path, shard: ShardInfo, dtype: np.dtype[Any]) -> tuple[Tokens, NDArray[np.uint64], NDArray[np.uint32]]:
    try:
        tokens = np.memmap(folder / f"{shard.name}.tokens", dtype, "r") if shard.num_tokens else np.zeros(0, dtype)
        documents = np.load(folder / f"{shard.name}.documents.npy", mmap_mode="r", allow_pickle=False)
        sentences = np.load(folder / f"{shard.name}.sentences.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: shard {shard.name} cannot be read ({error}); {_AGAIN}") from error
    sizes = (len(tokens), documents.shape, documents.dtype, len(sentences), sentences.dtype)
    if sizes != (shard.num_tokens, (shard.num_documents + 1, COLUMNS), np.uint64, shard.num_sentences, np.uint32):
        raise DataError(f"{folder}: shard {shard.name} is not as long as corpus.json says; {_AGAIN}")
    return np.asarray(tokens), np.asarray(documents), np.asarray(sentences)


_AGAIN = "copy the folder again, or delete it and prepare the corpus again"


class Corpus:
    """An open corpus folder: `info` is its corpus.json, `split("train")` its documents."""

    def __init__(self, folder: Path, info: CorpusInfo) -> None:
        self.folder, self.info = folder, info

    @property
    def hash(self) -> str:
        return self.info.hash

    @property
    def vocab_size(self) -> int:
        return self.info.vocab_size

    @property
    def tokenizer(self) -> Path:
        """The folder that AutoTokenizer loads."""
        return self.folder / TOKENIZER

    def split(self, name: str) -> Split:
        """The documents of a split. Raises DataError for a name that the corpus does not have."""
        if name not in self.info.splits:
            have = ", ".join(self.info.splits) or "none"
            raise DataError(f"{self.folder} has no split {name!r}; it has {have}")
        return Split(self.folder, name, self.info.splits[name], self.info.dtype)


def open_corpus(folder: Path | str, *, verify: bool = False) -> Corpus:
    """Opens a corpus folder. `verify` reads every shard and compares its SHA-256; without it only sizes are compared.

    Raises DataError where there is no corpus, one that is not complete, or one that is damaged.
    """
    folder = Path(folder)
    info = read_info(folder)
    for split in info.splits.values():
        for shard in split.shards:
            _check_sizes(folder, shard, np.dtype(info.dtype).itemsize)
            if verify:
                _verify(folder, shard)
    return Corpus(folder, info)


def read_info(folder: Path) -> CorpusInfo:
    """corpus.json of a complete corpus."""
    path = folder / INFO
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        if (folder / WORK).is_dir():
            raise DataError(f"{folder} is not complete; run the same `lydite prepare` command again") from error
        raise DataError(f"no corpus in {folder}: {path} does not exist; `lydite prepare` makes one") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    try:
        info = msgspec.json.decode(data, type=CorpusInfo)
    except (msgspec.DecodeError, ValueError) as error:
        raise DataError(f"{path} is not a corpus of this version of Lydite: {error}; prepare it again") from error
    if info.schema != SCHEMA:
        raise DataError(f"{path} has schema {info.schema}, and this version of Lydite reads {SCHEMA}; prepare it again")
    return info


def _check_sizes(folder: Path, shard: ShardInfo, itemsize: int) -> None:
    """A copy that was cut short is found when the corpus is opened, not hours later. Headers of .npy have 128 bytes."""
    wanted = {
        "tokens": shard.num_tokens * itemsize,
        "documents.npy": 128 + (shard.num_documents + 1) * COLUMNS * 8,
        "sentences.npy": 128 + shard.num_sentences * 4,
    }
    for ending, size in wanted.items():
        path = folder / f"{shard.name}.{ending}"
        try:
            found = path.stat().st_size
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}; {_AGAIN}") from error
        if found != size:
            raise DataError(f"{path} has {found:,} bytes, and corpus.json says {size:,}; {_AGAIN}")


def _verify(folder: Path, shard: ShardInfo) -> None:
    for ending, digest in shard.sha256.items():
        path = folder / f"{shard.name}.{ending}"
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise DataError(f"{path} is damaged: its SHA-256 is not that in corpus.json; {_AGAIN}")
