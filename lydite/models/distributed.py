"""One run over several processes: a model whose requests are answered by all of them.

The leader runs `evaluate` as always, on a DistributedModel: it cuts each block into shares (shares.py), answers its own,
and yields those of the others as they come. The others only `serve`: they load what the leader has loaded, answer what
they are sent, and end when told to. They print, write and fetch nothing.

Contract: the same answers as of one process, beyond float rounding; `info` is the model's own, so that a run neither
knows nor cares how many processes made it (its timing does). What goes wrong in any process is one ProcessError here.
"""

import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from lydite.errors import LyditeError, ModelError, ProcessError
from lydite.models.messages import Answers, Load, Loaded, Over, Trouble, Work
from lydite.models.shares import shares
from lydite.models.team import Team
from lydite.types import Model, ModelInfo, Output, Request, Usage

_EVERY = 0.5
"""Seconds between two looks at the other processes, and between two of their messages: what a kill may lose."""


class DistributedModel:
    """`model` and its copies in the other processes of `team`, as one model; made by `share`."""

    def __init__(self, model: Model, team: Team) -> None:
        self.model = model
        self.team = team
        self.info: ModelInfo = model.info
        self.usage: Usage = model.usage  # what the others do is added to it
        self.usage.kernel = ", ".join(part for part in (self.usage.kernel, f"{team.size} processes") if part)
        self._block = 0

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one (position, output) for each request, of all processes, as they come."""
        self._block += 1
        parts = shares(requests, self.team.size)
        left = {rank: len(part) for rank, part in enumerate(parts) if rank and part}
        for rank in left:
            self.team.post(rank, Work(block=self._block, requests=tuple(requests[i] for i in parts[rank])))
        looked = time.monotonic()
        for number, output in self.model.answer([requests[i] for i in parts[0]]):
            yield parts[0][number], output
            if time.monotonic() - looked > _EVERY:
                for rank in self._ready(left):
                    yield from self._take(rank, parts[rank], left)
                self.team.look()
                looked = time.monotonic()
        while any(left.values()):
            ready = self._ready(left)
            for rank in ready:
                yield from self._take(rank, parts[rank], left)
            if not ready:
                self.team.look()
                time.sleep(0.01)

    def _ready(self, left: dict[int, int]) -> list[int]:
        """The processes that owe answers and have sent some."""
        return [rank for rank, missing in left.items() if missing and self.team.has(rank)]

    def _take(self, rank: int, part: Sequence[int], left: dict[int, int]) -> Iterator[tuple[int, Output]]:
        """The answers in the next message of a process; `left` counts what it still owes."""
        message = self.team.take(rank)
        if isinstance(message, Trouble):
            raise ProcessError(message.line)
        assert isinstance(message, Answers), message
        self.usage.tokens_requested += message.tokens_requested
        self.usage.tokens_computed += message.tokens_computed
        self.usage.tokens_generated += message.tokens_generated
        if message.block == self._block:  # else of a block whose reader went away
            left[rank] -= len(message.answers)
            yield from ((part[number], output) for number, output in message.answers)


def own_device(device: str) -> str:
    """The device of this process where several on a machine are asked for `device`. Raises ModelError."""
    if device == "cpu":
        return device  # without torch
    from lydite.models.devices import of_this_process

    return of_this_process(device)


def share(model: Model, load: Load, team: Team) -> Model:
    """The leader's `model` joined by those of the other processes, which load it now. A served model stays alone:
    its server takes many requests at a time from one process."""
    if model.info.family == "server":
        return model
    if model.usage.kernel:  # its first word is the kernel's name: all take the same, and only the leader measures
        load = msgspec.structs.replace(load, settings=load.settings | {"kernel": model.usage.kernel.split()[0]})
    for rank in range(1, team.size):
        team.post(rank, load)
    for rank in range(1, team.size):
        answer = team.take(rank)
        while isinstance(answer, Answers):  # of the model before, whose reader went away
            answer = team.take(rank)
        if isinstance(answer, Trouble):
            raise ProcessError(answer.line)
        assert isinstance(answer, Loaded), answer
        _check_same(model.info, answer.info, rank, team)
    return DistributedModel(model, team)


def _check_same(ours: ModelInfo, theirs: ModelInfo, rank: int, team: Team) -> None:
    for name in ("fingerprint", "dtype", "rule"):
        here, there = getattr(ours, name), getattr(theirs, name)
        if here != there:
            raise ModelError(
                f"process {rank} on {team.peers[rank].host} loaded another {ours.name}: {name} {there}, not {here}; "
                "give all machines the same files"
            )
    # "engine" may name a measured difference, which is rounding.
    keys = (ours.settings.keys() | theirs.settings.keys()) - {"engine"}
    for key in sorted(key for key in keys if ours.settings.get(key) != theirs.settings.get(key)):
        raise ModelError(
            f"process {rank} on {team.peers[rank].host} loaded {ours.name} with {key} {theirs.settings.get(key)!r}, not "
            f"{ours.settings.get(key)!r}; give all machines the same software"
        )


# ------------------------------------------------------------------------------------ other processes


def serve(team: Team) -> None:
    """Loads and answers what the leader says until it says that it is over. Raises ProcessError when the leader has gone."""
    model: Model | None = None
    while True:
        message = team.take(0)
        if isinstance(message, Over):
            return
        try:
            if isinstance(message, Load):
                model = None  # before the next one takes its place in memory
                model = _load(message)
                team.post(0, Loaded(info=model.info))
            else:
                assert isinstance(message, Work), message
                assert model is not None
                _answer(model, message, team)
        except ProcessError:
            raise
        except LyditeError as error:
            team.post(0, Trouble(line=f"process {team.rank} of {team.size}: {error}"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the leader is the one who can tell the user
            team.post(0, Trouble(line=f"process {team.rank} of {team.size}: {_where(error)}"))


def _load(load: Load) -> Model:
    from lydite.models import load_model

    return load_model(
        load.spec,
        dtype=load.dtype,
        device=own_device(load.device),
        trust_remote_code=load.trust_remote_code,
        settings=load.settings,
        on_progress=lambda what, done, total: None,
    )


def _answer(model: Model, work: Work, team: Team) -> None:
    """Sends the answers as they come; gives up where the leader has turned to something else."""
    usage = model.usage
    ready: list[tuple[int, Output]] = []
    spent = _counts(usage)
    sent = time.monotonic()
    for number, (position, output) in enumerate(model.answer(work.requests), 1):
        ready.append((position, output))
        if number < len(work.requests) and time.monotonic() - sent < _EVERY:
            continue
        requested, computed, generated = (now - before for now, before in zip(_counts(usage), spent, strict=True))
        team.post(
            0,
            Answers(
                block=work.block,
                answers=tuple(ready),
                tokens_requested=requested,
                tokens_computed=computed,
                tokens_generated=generated,
            ),
        )
        team.look()
        if team.has(0):
            return
        ready, spent, sent = [], _counts(usage), time.monotonic()


def _counts(usage: Usage) -> tuple[int, int, int]:
    return usage.tokens_requested, usage.tokens_computed, usage.tokens_generated


def _where(error: Exception) -> str:
    """An unexpected exception in one line, with the place in our code or a library's that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
