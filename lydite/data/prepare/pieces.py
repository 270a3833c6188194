"""One bucket to tokens, in a worker process, and all buckets to shards.

A finished piece is three files a split, and last a file that holds their CRC-32: a run that was killed keeps the pieces that it
had. Nothing waits for the disk here. What a power cut tore or lost does not agree with the sums, and is encoded anew.
"""

import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lydite.data.corpus import SplitInfo
from lydite.data.prepare.buckets import ID, Rows, cannot_write, name
from lydite.data.prepare.encode import Encoded, Encoder
from lydite.data.prepare.resolve import read_plan
from lydite.data.shards import SplitWriter

SPLITS = ("train", "validation")
DOCUMENT = np.dtype([("tokens", "<u4"), ("sentences", "<u4"), ("bytes", "<u4"), ("characters", "<u4")])
_NONE = np.zeros(0, "<u4")
_BATCH = 1 << 18
"""Bytes of text encoded at one time."""


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a bucket."""

    size: int
    """Bytes of its texts."""
    written: dict[str, list[list[int]]]
    """Split to [documents, bytes, tokens] of each source."""
    num_without_tokens: int
    """Documents that the tokenizer turns into nothing; they are left out."""
    sums: dict[str, int] = {}
    """CRC-32 of each of its files, by the ending of its name."""


class Texts:
    """The texts of buckets, mapped: only what is read comes into memory, and the system takes it back."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self._open: dict[int, mmap.mmap] = {}

    def get(self, row: Any) -> str:
        return self._bytes(row, int(row["offset"]), int(row["size"])).decode("utf-8")

    def tokens(self, row: Any) -> NDArray[np.uint32]:
        """The ids that stand behind the text."""
        return np.frombuffer(self._bytes(row, int(row["offset"]) + int(row["size"]), ID * int(row["tokens"])), "<u4")

    def _bytes(self, row: Any, start: int, size: int) -> bytes:
        bucket = int(row["bucket"])
        if bucket not in self._open:
            with open(self.work / name("texts", bucket), "rb") as file:
                self._open[bucket] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._open[bucket][start : start + size]

    def close(self) -> None:
        for file in self._open.values():
            file.close()


def characters_of(work: Path, number: int) -> str:
    """Every character of the training texts of a bucket."""
    found: set[str] = set()
    texts = Texts(work)
    for row in read_plan(work, number):
        if not row["validation"]:
            found.update(texts.get(row))
    texts.close()
    return "".join(sorted(found))


def encode_bucket(work: Path, number: int, encoder: Encoder, dtype: str, num_sources: int) -> Piece:
    """Encodes the documents of a bucket in their final order and writes its piece, unless an earlier run has."""
    done = work / name("piece", number)
    if (piece := _finished(done)) is not None:
        return piece
    rows = read_plan(work, number)
    piece = Piece(
        size=int(rows["size"].sum()),
        written={split: [[0, 0, 0] for _ in range(num_sources)] for split in SPLITS},
        num_without_tokens=0,
        sums={},
    )
    try:
        empty = sum(_encode_split(work, number, encoder, dtype, rows, piece, split) for split in SPLITS)
        piece = msgspec.structs.replace(piece, num_without_tokens=empty)
        done.write_bytes(msgspec.json.encode(piece))
    except OSError as error:
        raise cannot_write(work, error) from error
    return piece


def _finished(done: Path) -> Piece | None:
    """The piece that an earlier run wrote, if it is whole."""
    try:
        piece = msgspec.json.decode(done.read_bytes(), type=Piece)
        for ending, wanted in piece.sums.items():
            with open(f"{done}.{ending}", "rb") as file:
                found = 0
                while block := file.read(1 << 20):
                    found = zlib.crc32(block, found)
            if found != wanted:
                return None
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return piece


def _encode_split(work: Path, number: int, encoder: Encoder, dtype: str, rows: Rows, piece: Piece, split: str) -> int:
    """Writes tokens, sentences and sizes of one split; the number of documents without tokens."""
    rows = rows[rows["validation"] == SPLITS.index(split)]
    documents, sentences, empty, total, texts = [], [], 0, 0, Texts(work)
    stem = work / f"{name('piece', number)}.{split}"
    with open(f"{stem}.tokens", "wb", buffering=1 << 20) as file:
        for batch in _batches(rows):
            for row, (ids, starts) in zip(batch, _encoded(batch, texts, encoder), strict=True):
                if not len(ids):
                    empty += 1
                    continue
                data = ids.astype(dtype).tobytes()
                file.write(data)
                total = zlib.crc32(data, total)
                documents.append((len(ids), len(starts), int(row["size"]), int(row["characters"])))
                sentences.append(starts)
                entry = piece.written[split][int(row["source"])]
                entry[0] += 1
                entry[1] += int(row["size"])
                entry[2] += len(ids)
    texts.close()
    piece.sums[f"{split}.tokens"] = total
    tables = {"documents": np.array(documents, DOCUMENT), "sentences": np.concatenate([_NONE, *sentences])}
    for ending, table in tables.items():
        data = table.tobytes()
        Path(f"{stem}.{ending}").write_bytes(data)
        piece.sums[f"{split}.{ending}"] = zlib.crc32(data)
    return empty


def _encoded(rows: Rows, texts: Texts, encoder: Encoder) -> Iterator[Encoded]:
    """Texts are encoded together; what came as tokens keeps them."""
    encoded = iter(encoder.encode([texts.get(row) for row in rows if not row["tokens"]]))
    for row in rows:
        yield encoder.align(texts.get(row), texts.tokens(row)) if row["tokens"] else next(encoded)


def _batches(rows: Rows) -> Iterator[Rows]:
    start = size = 0
    for end, row_size in enumerate(rows["size"].tolist()):
        if size and size + row_size > _BATCH:
            yield rows[start:end]
            start, size = end, 0
        size += row_size
    if start < len(rows):
        yield rows[start:]


def merge(work: Path, num_buckets: int, dtype: str, folder: Path) -> Iterator[int | dict[str, SplitInfo]]:
    """Writes the shards of both splits to `folder`; yields bytes written as it goes on, and the splits at the end."""
    splits: dict[str, SplitInfo] = {}
    for split in SPLITS:
        with SplitWriter(folder, split, dtype) as writer:
            for number in range(num_buckets):
                stem = work / f"{name('piece', number)}.{split}"
                documents = np.fromfile(f"{stem}.documents", DOCUMENT)
                sentences = np.fromfile(f"{stem}.sentences", "<u4")
                place = 0
                with open(f"{stem}.tokens", "rb", buffering=1 << 20) as file:
                    for tokens, count, num_bytes, characters in documents.tolist():
                        ids = np.frombuffer(
                            file.read(tokens * np.dtype(dtype).itemsize), np.dtype(dtype).newbyteorder("<")
                        )
                        writer.add(ids, sentences[place : place + count], num_bytes, characters)
                        place += count
                yield int(documents["bytes"].astype(np.int64).sum())
            splits[split] = writer.close()
    yield splits
