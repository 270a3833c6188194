"""The processes that clean and encode: what they hold, and how work goes through them in order.

Contract: results come back in the order of the work, and only a few pieces of it are under way at a time, so that memory
stays flat. With one process nothing is started, and the work is done where it is asked for.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

from lydite.data.prepare.clean import Cleaned, Cleaner
from lydite.data.prepare.encode import Encoder
from lydite.data.prepare.pieces import Piece, characters_of, encode_bucket
from lydite.data.prepare.sources import Chunk
from lydite.errors import ProcessError

A = TypeVar("A")
B = TypeVar("B")

_AHEAD = 2
"""Pieces of work under way for each process."""
_HELD: dict[str, object] = {}
"""What a process was given when it began."""


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if "sched_getaffinity" in dir(os) else os.cpu_count() or 1


def _begin(cleaner: Cleaner) -> None:
    _HELD.clear()
    _HELD["cleaner"] = cleaner
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the leader's
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism


class Workers:
    """The processes of one `prepare`, begun with the first work and kept for all steps; a context manager."""

    def __init__(self, number: int, cleaner: Cleaner) -> None:
        self.number, self._cleaner = number, cleaner
        self._pool: ProcessPoolExecutor | None = None
        if number == 1:
            _begin(cleaner)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def ordered(self, function: Callable[[A], B], work: Iterable[A]) -> Iterator[B]:
        """`function` of each piece of work, in order. Raises what the function raises."""
        if self.number == 1:
            yield from map(function, work)
            return
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.number, context, _begin, (self._cleaner,))
        waiting: deque[Future[B]] = deque()
        try:
            for piece in work:
                waiting.append(self._pool.submit(function, piece))
                if len(waiting) > _AHEAD * self.number:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ProcessError(
                "a worker process has ended (killed, or out of memory?); run the same command again, with fewer --workers"
            ) from error


class Bucket(NamedTuple):
    """A bucket to encode."""

    work: Path
    number: int
    tokenizer: Path
    dtype: str
    num_sources: int


def clean_chunk(chunk: Chunk) -> Cleaned:
    """What `Cleaner.clean` says of a chunk."""
    cleaner = _HELD["cleaner"]
    assert isinstance(cleaner, Cleaner), "the process was given a cleaner"
    return cleaner.clean(chunk)


def characters_of_bucket(place: tuple[Path, int]) -> str:
    """The characters of (work folder, number of the bucket)."""
    return characters_of(*place)


def encode_one(bucket: Bucket) -> Piece:
    """Encodes a bucket with the one Encoder of this process."""
    encoder = _HELD.get("encoder")
    if not isinstance(encoder, Encoder):
        encoder = _HELD["encoder"] = Encoder(bucket.tokenizer)
    return encode_bucket(bucket.work, bucket.number, encoder, bucket.dtype, bucket.num_sources)
