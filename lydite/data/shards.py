"""Writes the shards of a corpus split, streamed: memory stays flat whatever the size of the corpus.

Contract: a shard ends where the next document would make it longer than `max_tokens`, or at `max_documents`, so that the
same documents make the same files. `close` returns what corpus.json says of the split; until the caller has written that
file, the folder holds no corpus.
"""

import hashlib
import os
from array import array
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lydite.data.corpus import COLUMNS, ShardInfo, SplitInfo, Tokens
from lydite.errors import DataError

MAX_TOKENS = 1 << 27
"""Of a shard: 256 MiB of uint16."""
MAX_DOCUMENTS = 1 << 20


def token_dtype(vocab_size: int) -> str:
    """The smaller of uint16 and uint32 that holds every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


class SplitWriter:
    """Appends documents to `folder/<split>-00000.tokens` and so on. A context manager: closes its file on an error."""

    def __init__(
        self, folder: Path, split: str, dtype: str, max_tokens: int = MAX_TOKENS, max_documents: int = MAX_DOCUMENTS
    ) -> None:
        self.folder, self.split, self.dtype = folder, split, np.dtype(dtype).newbyteorder("<")
        self.max_tokens, self.max_documents = max_tokens, max_documents
        self.num_characters = 0
        self._shards: list[ShardInfo] = []
        self._bytes: list[int] = []
        self._file: BinaryIO | None = None
        self._begin()

    def _begin(self) -> None:
        """Empties the index of the current shard; its file is opened with its first document."""
        self._hash = hashlib.sha256()
        self._index = array("Q", [0] * COLUMNS)
        self._sentences = array("I")
        self._tokens = 0
        self._num_bytes = 0

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, tokens: Tokens, sentences: NDArray[Any], num_bytes: int, num_characters: int) -> None:
        """One document: token ids, token offsets of its sentences (the first is 0), and the size of its text."""
        assert len(tokens), "a document has tokens"
        assert len(sentences) and sentences[0] == 0, "a document starts with a sentence"  # noqa: PT018
        documents = len(self._index) // COLUMNS - 1
        if documents and (self._tokens + len(tokens) > self.max_tokens or documents >= self.max_documents):
            self._end()
        data = np.ascontiguousarray(tokens, dtype=self.dtype).tobytes()
        if self._file is None:
            self._file = open(self._path("tokens"), "wb", buffering=1 << 20)  # noqa: SIM115 - closed by _end
        try:
            self._file.write(data)
        except OSError as error:
            raise _cannot_write(self._path("tokens"), error) from error
        self._hash.update(data)
        self._tokens += len(tokens)
        self._num_bytes += num_bytes
        self.num_characters += num_characters
        self._sentences.frombytes(np.ascontiguousarray(sentences, dtype=np.uint32).tobytes())
        self._index.extend((self._tokens, len(self._sentences), self._num_bytes))

    def close(self) -> SplitInfo:
        """Ends the last shard and says what was written."""
        if self._file is not None:
            self._end()
        shards = tuple(self._shards)
        return SplitInfo(
            num_documents=sum(shard.num_documents for shard in shards),
            num_tokens=sum(shard.num_tokens for shard in shards),
            num_sentences=sum(shard.num_sentences for shard in shards),
            num_bytes=sum(self._bytes),
            num_characters=self.num_characters,
            shards=shards,
        )

    def _path(self, ending: str) -> Path:
        return self.folder / f"{self.split}-{len(self._shards):05d}.{ending}"

    def _end(self) -> None:
        assert self._file is not None, "a shard that has documents is open"
        path = self._path("tokens")
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            documents = np.frombuffer(self._index, np.uint64).reshape(-1, COLUMNS)
            sentences = np.frombuffer(self._sentences, np.uint32)
            digests = {"tokens": self._hash.hexdigest()}
            for ending, values in (("documents.npy", documents), ("sentences.npy", sentences)):
                path = self._path(ending)
                digests[ending] = _save(path, values)
        except OSError as error:
            raise _cannot_write(path, error) from error
        self._shards.append(
            ShardInfo(
                name=f"{self.split}-{len(self._shards):05d}",
                num_documents=len(documents) - 1,
                num_tokens=self._tokens,
                num_sentences=len(sentences),
                sha256=digests,
            )
        )
        self._bytes.append(self._num_bytes)
        self._begin()


def _save(path: Path, values: NDArray[Any]) -> str:
    """Writes a .npy file to the disk; its SHA-256."""
    with open(path, "w+b") as file:
        np.lib.format.write_array(file, values, version=(1, 0), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write {path}: {error.strerror}; mend that and run the same command, or choose another --out"
    )
