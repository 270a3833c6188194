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
from typing import TypeVar

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


def _begin(held: dict[str, object]) -> None:
    _HELD.clear()
    _HELD.update(held)
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the leader's
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism


def ordered(function: Callable[[A], B], work: Iterable[A], workers: int, held: dict[str, object]) -> Iterator[B]:
    """`function` of each piece of work, in order. `held` is what every process keeps. Raises what the function raises."""
    if workers == 1:
        _begin(held)
        yield from map(function, work)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin, (held,))
    waiting: deque[Future[B]] = deque()
    try:
        for piece in work:
            waiting.append(pool.submit(function, piece))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ProcessError(
            "a worker process has ended (killed, or out of memory?); run the same command again, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def clean_chunk(chunk: Chunk) -> Cleaned:
    """Needs `cleaner` held."""
    cleaner = _HELD["cleaner"]
    assert isinstance(cleaner, Cleaner), "the process was given a cleaner"
    return cleaner.clean(chunk)


def characters_of_bucket(number: int) -> str:
    """Needs `work` held."""
    work = _HELD["work"]
    assert isinstance(work, Path), "the process was given a folder"
    return characters_of(work, number)


def encode_one(number: int) -> Piece:
    """Needs `work`, `tokenizer` (its folder), `dtype` and `num_sources` held."""
    work, folder, dtype, num_sources = (_HELD[key] for key in ("work", "tokenizer", "dtype", "num_sources"))
    assert isinstance(work, Path), "the process was given a folder"
    assert isinstance(folder, Path), "the process was given a tokenizer"
    assert isinstance(num_sources, int), "the process was told the number of sources"
    encoder = _HELD.get("encoder")
    if not isinstance(encoder, Encoder) or encoder.folder != folder:
        encoder = _HELD["encoder"] = Encoder(folder)
    return encode_bucket(work, number, encoder, str(dtype), num_sources)
