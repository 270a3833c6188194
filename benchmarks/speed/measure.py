"""One measurement is one process: its wall-clock time, its largest resident size, and what it wrote.

The state of a benchmark is one JSON file, written after every measurement, so that an interrupted one continues.
"""

import os
import platform
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

POLL_SECONDS = 0.02


class Measurement(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One process on one row."""

    row: str
    dtype: str
    system: str
    """`lm-eval`, `default`, `auto` or `fastest` (Lydite with that kernel)."""
    batch: int = 0
    """The peer's batch size."""
    tuning: bool = False
    """On a part of the row, to find the peer's best batch size."""
    repeat: int = 0
    status: str = "done"
    """`done`, or why there are no numbers."""
    seconds: float | None = None
    """Answering alone: no start-up, no loading."""
    load_seconds: float | None = None
    whole_seconds: float = 0.0
    """The process from its start to its end."""
    peak_bytes: int = 0
    kernel: str = ""
    tokens_computed: int = 0
    tokens_generated: int = 0
    answers: str = ""
    """Name of the file with the answers."""


class Comparison(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Lydite's answers beside the peer's."""

    requests: int
    spanned: int = 0
    """Requests in which a token spans the border of context and continuation."""
    failed: int = 0
    """Requests that Lydite did not answer."""
    largest: float | None = None
    """Largest difference of the log-probabilities of one request (nats)."""
    flips: int = 0
    """Documents that are decided otherwise (choice, greedy or not, text)."""
    flip_margin: float | None = None
    """The peer's largest margin (nats) between first and second choice among the documents that flipped."""
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    """Metrics."""


class State(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Everything that was measured; docs/benchmarks.json is one of these."""

    limit: int | None = None
    """Documents a row at most, for a trial; None: whole rows."""
    machine: dict[str, str] = {}
    versions: dict[str, str] = {}
    command: str = ""
    peaks: dict[str, float] = {}
    """Dtype to the measured matrix peak (floating-point operations a second)."""
    work: dict[str, dict[str, int]] = {}
    """Row to what its requests are."""
    measurements: list[Measurement] = []
    comparisons: dict[str, Comparison] = {}
    """`row dtype system` to a comparison with the peer's answers."""


@dataclass(frozen=True)
class Finished:
    """How a process ended."""

    seconds: float
    peak_bytes: int
    status: str


def run(command: list[str], *, log: Path, cwd: Path, memory_bytes: int) -> Finished:
    """Runs a process to its end, and kills it where it holds more than `memory_bytes`."""
    # Nothing may ask the network; compiled Python files are written, or each start would compile the libraries again.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    killed = False
    with log.open("wb") as file:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=cwd, env=env)
        try:
            while True:
                pid, code, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                if _resident(process.pid) > memory_bytes and not killed:
                    process.send_signal(signal.SIGKILL)
                    killed = True
                time.sleep(POLL_SECONDS)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(code)
    peak = usage.ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
    if killed:
        return Finished(seconds, peak, f"killed at {peak / 2**30:.1f} GiB")
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        return Finished(seconds, peak, f"failed: {lines[-1][:300]}")
    return Finished(seconds, peak, "done")


def _resident(pid: int) -> int:
    """Resident bytes of a running process; 0 where it has just ended or the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_bytes() -> int:
    """Memory that a new process could take."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return 8 << 30
    rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(rows["MemAvailable"].split()[0]) * 1024


def machine() -> dict[str, str]:
    """The machine, as it says itself."""
    cores = str(len(os.sched_getaffinity(0)))
    threads = os.environ.get("OMP_NUM_THREADS", "of PyTorch's own choice")
    found = {"system": platform.platform(), "cores": cores, "threads": threads}
    info = Path("/proc/cpuinfo")
    if info.exists():
        rows = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        rows = {key.strip(): value.strip() for key, value in rows.items()}
        found["processor"] = rows.get("model name", platform.processor())
        known = {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "avx512_vnni"}
        found["instructions"] = " ".join(sorted(known & set(rows.get("flags", "").split())))
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        found["memory"] = f"{int(rows['MemTotal'].split()[0]) / 2**20:.0f} GiB"
    return found


def load_state(path: Path) -> State:
    return msgspec.json.decode(path.read_bytes(), type=State) if path.exists() else State()


def save_state(path: Path, state: State) -> None:
    """Written beside and moved, so that a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n")
    scratch.replace(path)
