"""Cleaned documents on disk, spread over buckets by the hash of their content, and what MinHash says of them.

    WORK/texts-0007         the texts of a bucket one after another, UTF-8; behind a text its ids, if it came as tokens
    WORK/rows-0007          a ROW a text: key, number of the document, place, source
    WORK/bands-0007         (hash of a band, document), spread by that hash
    WORK/signatures         HASHES bytes a document, by its number

Equal documents share a bucket, and all documents of bucket 7 come before those of bucket 8 in the shuffled order: so
duplicates and order are settled a bucket at a time, whatever the size of the whole.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lydite.data.prepare.clean import Cleaned
from lydite.data.prepare.duplicates import BANDS
from lydite.errors import DataError

FIELDS = [
    ("high", "<u8"),
    ("low", "<u8"),
    ("document", "<u8"),
    ("offset", "<u8"),
    ("size", "<u4"),
    ("tokens", "<u4"),
    ("characters", "<u4"),
    ("source", "<u2"),
    ("part", "<u2"),
]
ROW = np.dtype(FIELDS)
ID = 4
"""Bytes of an id behind a text."""
BAND = np.dtype([("hash", "<u8"), ("document", "<u8")])
Rows = NDArray[Any]

_BUCKET = 64 << 20
"""Bytes of text that a bucket aims at."""
_LEAST, _FEW = 2 << 20, 16
"""But so many buckets at the least, if each has that many bytes: processes share the encoding by buckets."""
_MOST_BITS = 9
_BUFFER = 1 << 17


def bits_for(size: int) -> int:
    """Bits of the key that name the bucket: 2^bits buckets for so many bytes of input; 0 for a small one."""
    count = max(-(-size // _BUCKET), min(_FEW, -(-size // _LEAST)))
    return min(_MOST_BITS, max(0, count - 1).bit_length())


def bucket_of(high: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """The bucket of each key."""
    return (high >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(high), np.int64)


class Buckets:
    """Open for appending; a context manager."""

    def __init__(self, work: Path, bits: int) -> None:
        self.work, self.bits = work, bits
        self.num_documents = 0
        self._stack = contextlib.ExitStack()
        self._files: dict[str, list[Any]] = {}
        try:
            for kind in ("texts", "rows", "bands"):
                self._files[kind] = [self._open(name(kind, number)) for number in range(1 << bits)]
            self._signatures = self._open("signatures")
        except OSError as error:
            self._stack.close()
            raise cannot_write(work, error) from error
        self._sizes = np.zeros(1 << bits, np.uint64)

    def _open(self, file: str) -> Any:
        return self._stack.enter_context(open(self.work / file, "wb", buffering=_BUFFER))

    def __enter__(self) -> "Buckets":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            with contextlib.suppress(OSError):  # a full disk says so once
                self._stack.close()
            return
        try:
            for file in [*(file for files in self._files.values() for file in files), self._signatures]:
                sync(file)
            self._stack.close()
        except OSError as failure:
            raise cannot_write(self.work, failure) from failure

    def add(self, cleaned: Cleaned, parts: Sequence[int]) -> None:
        """The documents of a chunk, in order. `parts`: which part of the mixture each belongs to."""
        count = len(cleaned.texts)
        if not count:
            return
        rows = np.zeros(count, ROW)
        rows["high"], rows["low"] = cleaned.keys[:, 0], cleaned.keys[:, 1]
        rows["document"] = np.arange(self.num_documents, self.num_documents + count)
        rows["size"] = [len(text) for text in cleaned.texts]
        stored = cleaned.texts
        if cleaned.tokens:
            rows["tokens"] = [len(ids) // ID for ids in cleaned.tokens]
            stored = [text + ids for text, ids in zip(cleaned.texts, cleaned.tokens, strict=True)]
        rows["characters"], rows["source"], rows["part"] = cleaned.characters, cleaned.source, parts
        buckets = bucket_of(rows["high"], self.bits)
        try:
            for bucket in np.unique(buckets):
                chosen = np.flatnonzero(buckets == bucket)
                sizes = rows["size"][chosen].astype(np.uint64) + rows["tokens"][chosen].astype(np.uint64) * np.uint64(
                    ID
                )
                ends = np.cumsum(sizes)
                rows["offset"][chosen] = self._sizes[bucket] + ends - sizes
                self._sizes[bucket] += ends[-1]
                self._files["texts"][bucket].write(b"".join([stored[i] for i in chosen]))
                self._files["rows"][bucket].write(rows[chosen].tobytes())
            if len(cleaned.bands):
                self._add_bands(cleaned, rows["document"])
        except OSError as error:
            raise cannot_write(self.work, error) from error
        self.num_documents += count

    def _add_bands(self, cleaned: Cleaned, documents: NDArray[np.uint64]) -> None:
        self._signatures.write(cleaned.signatures.tobytes())
        flat = np.zeros(len(documents) * BANDS, BAND)
        flat["hash"] = cleaned.bands.reshape(-1)
        flat["document"] = np.repeat(documents, BANDS)
        places = bucket_of(flat["hash"], self.bits)
        for place in np.unique(places):
            self._files["bands"][place].write(flat[places == place].tobytes())


def sync(file: Any) -> None:
    """Onto the disk: a step counts as done only when its files would outlive a power cut."""
    file.flush()
    os.fsync(file.fileno())


def name(kind: str, number: int) -> str:
    """The file of a bucket."""
    return f"{kind}-{number:04d}"


def read_array(path: Path, dtype: np.dtype[Any]) -> Rows:
    """All records of a file; it has a whole number of them, since steps begin only when the one before is complete."""
    assert path.stat().st_size % dtype.itemsize == 0, f"{path} is torn"
    return np.fromfile(path, dtype)


def cannot_write(path: Path, error: OSError) -> DataError:
    """The one line for a full disk and the like."""
    return DataError(
        f"cannot write {error.filename or path}: {error.strerror}; mend that and run the same command, or choose another --out"
    )
