"""Prompts from a file, texts to a file: each row as it was, with its texts added.

Contract: a line is written when its texts are complete, so that a run that was interrupted or killed loses only what was
under way; the same command continues, and a file that holds the answers of other prompts or settings is refused.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import msgspec
from rich.console import Console
from rich.progress import Progress

from lydite.data.files import read_rows
from lydite.errors import DataError, Interrupted, UserError
from lydite.report.text import one_line
from lydite.runs import content_hash, encode
from lydite.types import GenerateRequest, Message, Model

_BLOCK = 256
"""Rows that are asked for at one time."""
_ADDED = ("completions", "request")


class Writer(Protocol):
    """Whoever answers prompts: with texts (Speaker), or with what may stand in their gaps (Filler)."""

    model: Model
    num: int
    probs: bool

    def request(self, sample_id: str, prompt: str | tuple[Message, ...], index: int = 0) -> GenerateRequest:
        """The index-th text for a prompt or a conversation."""
        ...

    def answers(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, dict[str, Any]]]:
        """(position, answer as it is written to a file): a failure under `failure`."""
        ...


class _Job(msgspec.Struct, frozen=True):
    """A row that is to be answered."""

    row: dict[str, Any]
    requests: tuple[GenerateRequest, ...]
    key: str
    """Hash of all that decides its texts."""


def generate_files(speaker: Writer, source: Path, out: Path, *, chat: bool, head: tuple[Message, ...]) -> int:
    """Answers the rows of `source` that `out` does not hold yet; the exit code."""
    jobs = list(_jobs(speaker, source, chat, head))
    done = _known(out, {job.key for job in jobs})
    todo = [job for job in jobs if job.key not in done]
    if done:
        print(f"{out}: {len(done)} of {len(jobs)} rows are done", file=sys.stderr)
    start, failed, written = time.perf_counter(), 0, 0
    console = Console(stderr=True)
    try:
        with (
            open(out, "ab") as file,
            Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
        ):
            bar = progress.add_task(one_line(speaker.model.info.name), total=len(todo))
            for line, is_failed in _lines(speaker, todo):
                file.write(line)
                file.flush()
                failed, written = failed + is_failed, written + 1
                progress.update(bar, advance=1)
    except KeyboardInterrupt as stop:
        raise Interrupted(f"interrupted; {len(done) + written} of {len(jobs)} rows are in {out}") from stop
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    note = f", {failed} failed" if failed else ""
    print(f"{out}: {len(jobs)} rows{note}, {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return 2 if failed else 0


def _jobs(speaker: Writer, source: Path, chat: bool, head: tuple[Message, ...]) -> Iterator[_Job]:
    seen: set[str] = set()
    for number, row in read_rows(source):
        if clash := [name for name in _ADDED if name in row]:
            raise DataError(f"{source}, line {number}: the column {clash[0]} is kept for the answers; rename it")
        sample_id = str(row.get("id", number))
        if sample_id in seen:
            raise DataError(f"{source}, line {number}: the id {sample_id!r} stands there twice; make ids unique")
        seen.add(sample_id)
        asked = _asked(source, number, row, chat, head)
        requests = tuple(speaker.request(sample_id, asked, index) for index in range(speaker.num))
        known = [speaker.model.info.fingerprint, speaker.model.info.settings, speaker.probs, row, requests]
        yield _Job(row, requests, content_hash(msgspec.to_builtins(known), 16))


def _asked(
    source: Path, number: int, row: Mapping[str, Any], chat: bool, head: tuple[Message, ...]
) -> str | tuple[Message, ...]:
    """The row's prompt or conversation."""
    place = f"{source}, line {number}"
    if ("prompt" in row) == ("messages" in row):
        raise DataError(f"{place}: one of the columns prompt and messages is needed")
    if "messages" in row:
        try:
            return (*head, *msgspec.convert(row["messages"], list[Message]))
        except msgspec.ValidationError as error:
            raise DataError(f"{place}: messages: {error}") from error
    if not isinstance(row["prompt"], str):
        raise DataError(f"{place}: prompt must be a text, not {row['prompt']!r:.40}")
    return (*head, Message(role="user", content=row["prompt"])) if chat else row["prompt"]


def _known(out: Path, wanted: set[str]) -> set[str]:
    """Keys of the rows that are done; a torn last line is cut off."""
    try:
        data = out.read_bytes() if out.exists() else b""
    except OSError as error:
        raise UserError(f"cannot read {out}: {error.strerror}; choose another --out") from error
    whole = data[: data.rfind(b"\n") + 1]
    found: set[str] = set()
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise DataError(f"{out}, line {number}: not JSON ({error}); choose another --out") from error
        key = row.get("request") if isinstance(row, dict) else None
        if key not in wanted:
            raise DataError(f"{out}, line {number}: answers other prompts or settings; choose another --out")
        found.add(key)
    if len(whole) < len(data):
        os.truncate(out, len(whole))
    return found


def _lines(speaker: Writer, jobs: list[_Job]) -> Iterator[tuple[bytes, bool]]:
    """Finished rows as lines, and whether one of their texts failed."""
    waiting = iter(jobs)
    while block := list(islice(waiting, _BLOCK)):
        owners = [(job, index) for job in block for index in range(len(job.requests))]
        texts: dict[str, dict[int, dict[str, Any]]] = {job.key: {} for job in block}
        for position, answer in speaker.answers([job.requests[index] for job, index in owners]):
            job, index = owners[position]
            texts[job.key][index] = answer
            if len(texts[job.key]) == len(job.requests):
                mine = [texts[job.key][i] for i in range(len(job.requests))]
                if any(one.get("transient") for one in mine):
                    continue  # the same command asks again
                failed = any("failure" in one for one in mine)
                yield encode(job.row | {"completions": mine, "request": job.key}) + b"\n", failed
