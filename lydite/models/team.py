"""The processes of one run: messages between them, and how the end of one becomes known to the others.

torchrun (or Slurm) starts the same command N times and says through environment variables who is who. Process 0 leads,
the others follow. They talk through the key-value store of torch.distributed alone, each message the JSON of a record
cut into pieces that the store takes: there is nothing collective in an evaluation, so no process group is made, and a
process that waits can look around. Each process says once a second that it is alive.

Contract: messages of one process to another arrive once, in order; `take` ends with a ProcessError within a few seconds
where the other process has ended on the same machine, and within PATIENCE seconds where it fell silent on another.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from lydite.errors import ProcessError, UserError
from lydite.models.messages import Message, Over, decode, encode
from lydite.types import Record

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

PATIENCE = 60.0
"""Seconds of silence after which a process counts as dead."""
PATIENCE_TO_MEET = 300.0
"""Seconds that a process waits at the start for the others."""
_PIECE = 1_500_000
"""Characters; the store refuses values of 8 MiB."""
_CONTINUE = "what was finished is kept, and the same command continues"


@dataclass(frozen=True)
class Place:
    """Who this process is, as the environment says."""

    rank: int
    size: int
    address: str
    port: int
    has_host: bool
    """Whether the launcher has the store; else process 0 has it."""
    attempt: str
    """Which start of the launcher's this is; a new one must not read the messages of the last."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Place":
        """Raises UserError where the variables do not say it."""
        try:
            place = cls(
                rank=int(environment["RANK"]),
                size=int(environment["WORLD_SIZE"]),
                address=environment["MASTER_ADDR"],
                port=int(environment["MASTER_PORT"]),
                has_host=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
                attempt=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
            )
        except (KeyError, ValueError) as error:
            raise UserError(
                f"RANK and WORLD_SIZE ask for several processes, but {error} in the environment; start with torchrun, "
                "or unset RANK and WORLD_SIZE"
            ) from error
        if not 0 <= place.rank < place.size:
            raise UserError(f"RANK is {place.rank} and WORLD_SIZE {place.size}; start with torchrun, or unset both")
        return place


class _Peer(Record, frozen=True, kw_only=True):
    """Where a process runs."""

    host: str
    machine: str
    """Equal where one process can see the other's id."""
    pid: int


@dataclass
class _Pulse:
    """What was last heard of a process, and when by this process's clock."""

    beat: bytes
    heard: float


class Team:
    """This process's end of the conversation; made by `join`."""

    def __init__(self, place: Place, store: "Store", beats: "Store") -> None:
        self.rank, self.size = place.rank, place.size
        self.peers: dict[int, _Peer] = {}
        self.store = store
        self._sent = [0] * place.size
        self._taken = [0] * place.size
        self._pulses: dict[int, _Pulse] = {}
        self._looked = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(beats,), daemon=True)
        self._thread.start()

    # --------------------------------------------------------------------------------------- messages

    def post(self, rank: int, message: Message) -> None:
        """Hands a message over; does not wait until it is read."""
        key = f"{self.rank}>{rank}/{self._sent[rank]}"
        text = encode(message)
        pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
        with self._wire():
            for number, piece in enumerate(pieces):
                self.store.set(f"{key}/{number}", piece)
            self.store.set(key, str(len(pieces)))
        self._sent[rank] += 1

    def has(self, rank: int) -> bool:
        """Whether a message of that process is waiting."""
        with self._wire():
            return self.store.check([self._next(rank)])

    def take(self, rank: int) -> Message:
        """The next message of that process; waits for it as long as those that matter are alive."""
        pause = 0.001
        while not self.has(rank):
            self.look()
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        key = self._next(rank)
        with self._wire():
            count = int(self.store.get(key))
            pieces = [self.store.get(f"{key}/{number}") for number in range(count)]
            for name in (key, *(f"{key}/{number}" for number in range(count))):
                self.store.delete_key(name)
        self._taken[rank] += 1
        return decode(b"".join(pieces))

    def _next(self, rank: int) -> str:
        return f"{rank}>{self.rank}/{self._taken[rank]}"

    def claim(self, what: str) -> bool:
        """Whether this process is the first to ask; False too where the store has gone and somebody else may."""
        try:
            return bool(self.store.add(what, 1) == 1)
        except RuntimeError:
            return self.rank == 1

    # ------------------------------------------------------------------------------------ who is alive

    def meet(self) -> None:
        """Says who this process is and waits for those that it depends on: the leader for all, the others for it."""
        here = _Peer(host=socket.gethostname(), machine=_machine(), pid=os.getpid())
        with self._wire():
            self.store.set(f"hello/{self.rank}", msgspec.json.encode(here).decode())
        start = time.monotonic()
        for rank in range(1, self.size) if self.rank == 0 else [0]:
            while True:
                with self._wire():
                    if self.store.check([f"hello/{rank}"]):
                        self.peers[rank] = msgspec.json.decode(self.store.get(f"hello/{rank}"), type=_Peer)
                        break
                if time.monotonic() - start > PATIENCE_TO_MEET:
                    raise ProcessError(
                        f"process {rank} of {self.size} did not come within {PATIENCE_TO_MEET:.0f} s; all of them must "
                        "be started with the same command"
                    )
                time.sleep(0.02)

    def look(self) -> None:
        """Raises ProcessError where a process that this one depends on has gone; looks at most once a second."""
        if time.monotonic() - self._looked < 1:
            return
        self._looked = time.monotonic()
        for rank in self.peers:
            self.look_at(rank)

    def is_alive(self, rank: int) -> bool:
        """Whether that process still is, as far as can be seen from here at once."""
        try:
            self.look_at(rank)
        except ProcessError:
            return False
        return True

    def look_at(self, rank: int) -> None:
        """Raises ProcessError where that process has ended on this machine or has been silent for long."""
        peer, now = self.peers[rank], time.monotonic()
        self._check_pid(rank)
        with self._wire():
            beat = self.store.get(f"alive/{rank}") if self.store.check([f"alive/{rank}"]) else b""
        pulse = self._pulses.setdefault(rank, _Pulse(beat, now))
        if pulse.beat != beat:
            pulse.beat, pulse.heard = beat, now
        elif now - pulse.heard > PATIENCE:
            raise ProcessError(
                f"process {rank} of {self.size} (pid {peer.pid} on {peer.host}) has been silent for {PATIENCE:.0f} s; "
                f"{_CONTINUE}"
            )

    def _check_pid(self, rank: int) -> None:
        peer = self.peers[rank]
        if peer.machine == _machine() and not _runs(peer.pid):
            raise ProcessError(f"process {rank} of {self.size} (pid {peer.pid}) has ended; {_CONTINUE}")

    def _beat(self, store: "Store") -> None:
        count = 0
        while not self._done.wait(1.0):
            count += 1
            try:
                store.set(f"alive/{self.rank}", str(count))
            except RuntimeError:  # the store has gone; whoever waits for a message says so
                return

    # --------------------------------------------------------------------------------------------- end

    def close(self) -> None:
        """The leader tells the others to end and gives them a moment, because the store may end with it."""
        with contextlib.suppress(ProcessError):
            if self.rank == 0:
                self.claim("said")  # whatever there was to say, the leader has said
                left = [rank for rank in self.peers if self.is_alive(rank)]
                for rank in left:
                    self.post(rank, Over())
                until = time.monotonic() + 10
                while time.monotonic() < until and any(
                    self.is_alive(rank) and not self._said_bye(rank) for rank in left
                ):
                    time.sleep(0.02)
            else:
                with self._wire():
                    self.store.set(f"bye/{self.rank}", "")
        self._done.set()
        self._thread.join(2)

    def _said_bye(self, rank: int) -> bool:
        with self._wire():
            return self.store.check([f"bye/{rank}"])

    @contextlib.contextmanager
    def _wire(self) -> Iterator[None]:
        """The store's own errors as one line."""
        try:
            yield
        except RuntimeError as error:  # torch.distributed's errors are such
            for rank in self.peers:
                self._check_pid(rank)  # which says it better
            raise ProcessError(
                f"process {self.rank} of {self.size} has lost the others: {_first_line(error)}; {_CONTINUE}"
            ) from error


def join(place: Place) -> Team:
    """Meets the other processes. Raises ProcessError where they do not come."""
    # A store whose other end has gone writes a stack trace to standard error, of which there is one line here.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    def connect(is_master: bool) -> PrefixStore:
        store = TCPStore(
            place.address,
            place.port,
            is_master=is_master,
            timeout=timedelta(seconds=PATIENCE_TO_MEET),
            wait_for_workers=False,
        )
        return PrefixStore(f"lydite/{place.attempt}", store)

    try:
        store = connect(place.rank == 0 and not place.has_host)
        beats = connect(False)  # its own connection, because a thread of its own uses it
    except RuntimeError as error:
        raise ProcessError(
            f"process {place.rank} of {place.size} cannot reach {place.address}:{place.port}: {_first_line(error)}"
        ) from error
    team = Team(place, store, beats)
    try:
        team.meet()
    except BaseException:
        team.close()
        raise
    return team


def _machine() -> str:
    """Names the space in which process ids have a meaning: containers of one machine may have their own."""
    space = os.readlink("/proc/self/ns/pid") if sys.platform == "linux" else ""
    return f"{socket.gethostname()} {space}"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
