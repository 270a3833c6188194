"""Answers kept across runs: `CachedModel` asks the model only what it has not been asked before.

A key is the SHA-256 of everything that decides an answer: the weights' fingerprint, the model's settings, dtype and
rule, and the request without its sample id and index (so that the same question in two tasks is asked once). Failures
are not kept: what failed may work the next time. The answers stand in one SQLite file that several processes may use.
"""

import hashlib
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from lydite.errors import ModelError
from lydite.models.store import cache_folder
from lydite.types import Failure, Model, ModelInfo, Output, Request, Usage

_COMMIT_EVERY = 64
"""Answers between two commits: what a kill -9 may lose."""
_SECONDS_TO_WAIT = 60.0
"""For another process that is writing."""
_KEYS_AT_ONCE = 500

_DECODER = msgspec.json.Decoder(Output)
# Sorted, because a dict's order must not change the key.
_ENCODER = msgspec.json.Encoder(order="deterministic")


def answers_folder() -> Path:
    """Where the command line keeps answers: `answers` in the cache folder."""
    return cache_folder() / "answers"


class CachedModel:
    """A model that remembers its answers in `folder`, across runs and processes.

    `info` and `usage` are the model's own, so that answers from the cache count as no work. A damaged file of answers
    is put aside as answers.sqlite.damaged and a new one begun.
    """

    def __init__(self, model: Model, folder: Path) -> None:
        self.model = model
        self.info: ModelInfo = model.info
        self.usage: Usage = model.usage
        self.hits = 0
        self._path = folder / "answers.sqlite"
        info = model.info
        self._model_key = _ENCODER.encode([info.fingerprint, info.family, info.rule, info.dtype, info.settings])
        self._connection = self._open()

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Known answers first, then the model's as they come; equal requests are asked once."""
        keys = [self._key(request) for request in requests]
        known = self._read(set(keys))
        places: dict[bytes, list[int]] = {}
        for position, key in enumerate(keys):
            if key in known:
                self.hits += 1
                yield position, known[key]
            else:
                places.setdefault(key, []).append(position)
        missing = list(places)
        unwritten = 0
        try:
            for number, output in self.model.answer([requests[places[key][0]] for key in missing]):
                if not isinstance(output, Failure):
                    self._write(missing[number], output)
                    unwritten += 1
                    if unwritten % _COMMIT_EVERY == 0:
                        self._connection.commit()
                for position in places[missing[number]]:
                    yield position, output
        finally:  # also where the reader stops early or Ctrl-C is pressed
            self._connection.commit()

    def _key(self, request: Request) -> bytes:
        plain = msgspec.structs.replace(request, sample_id="", index=0)
        return hashlib.sha256(self._model_key + b"\n" + _ENCODER.encode(plain)).digest()

    def _read(self, keys: set[bytes]) -> dict[bytes, Output]:
        wanted = sorted(keys)
        found: dict[bytes, Output] = {}
        for start in range(0, len(wanted), _KEYS_AT_ONCE):
            some = wanted[start : start + _KEYS_AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self._connection.execute(f"SELECT key, output FROM answers WHERE key IN ({marks})", some)
            for key, output in rows:
                try:
                    found[key] = _DECODER.decode(output)
                except (msgspec.DecodeError, ValueError):
                    continue  # written by another version, or damaged: asked again and overwritten
        return found

    def _write(self, key: bytes, output: Output) -> None:
        try:
            stored = _ENCODER.encode(output)
        except UnicodeEncodeError:
            return  # half of a surrogate pair: no text that could be kept as it is
        self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, stored))

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return _connect(self._path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                aside = self._path.with_name(self._path.name + ".damaged")
                print(f"the kept answers in {self._path} are damaged; put aside as {aside.name}", file=sys.stderr)
                for end in ("-wal", "-shm"):
                    self._path.with_name(self._path.name + end).unlink(missing_ok=True)
                self._path.replace(aside)
                return _connect(self._path)
        except (OSError, sqlite3.Error) as error:
            raise ModelError(
                f"answers cannot be kept in {self._path.parent} ({error}); set LYDITE_CACHE to a folder that can be "
                "written, or do not reuse answers"
            ) from None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_SECONDS_TO_WAIT)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, output BLOB NOT NULL) WITHOUT ROWID"
        )
        connection.commit()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
