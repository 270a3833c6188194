"""Checkpoints: everything that a run needs to go on as if it had not been interrupted, in safetensors and strict JSON.

    RUN/checkpoints/step-00001000/
        state.json                     one State: step, place in the data, what the guard and the patience remember
        model.safetensors              the weights that are moved (float32), and buffers
        optimizer.safetensors          its tensors, named key:weight
        average.safetensors            the moving average, where there is one
        process-0.safetensors          what the objective carries from step to step, a file a process
        shards/*.safetensors           with fsdp, model, optimizer and average in one, through torch.distributed.checkpoint

Schedules are functions of the step and every random number is keyed by (seed, step, process), so neither has a state.

Contract: a folder that has its final name is complete: it is written under another name, every file flushed, renamed.
state.json holds the SHA-256 of all files and is checked on reading; a torn or altered checkpoint is named and the one
before it is used. Old ones are removed only after the new one is in place, so a full disk leaves the last one intact.
No pickle: torch.distributed.checkpoint writes through its safetensors storage. Shards are read by any number of
processes.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lydite.errors import RunError
from lydite.runs import write_json
from lydite.training.feed import Place

SCHEMA = 1
STATE = "state.json"
SHARDS = "shards"
_NAME = re.compile(r"step-(\d{8,})")


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """state.json."""

    schema: int = SCHEMA
    step: int
    """Updates done."""
    place: Place
    """Of the data."""
    tokens: int
    seconds: float
    losses: list[float]
    """Of the last good steps, see guard.py."""
    num_skipped: int = 0
    best_loss: float | None = None
    """Of the validations so far."""
    best_step: int = 0
    num_worse: int = 0
    """Validations since then."""
    num_processes: int
    sha256: dict[str, str] = {}
    """By path inside the folder."""


Parts = Mapping[str, Mapping[str, Tensor]]
"""Tensors by name, by file: model, optimizer, average."""


class Checkpoints:
    """The checkpoints of one run, as one of `size` processes sees them."""

    def __init__(self, run: Path, *, rank: int = 0, size: int = 1, barrier: Callable[[], None] = lambda: None) -> None:
        self.folder = run / "checkpoints"
        self.rank, self.size, self._barrier = rank, size, barrier

    # ---------------------------------------------------------------------------------------- writing

    def save(self, state: State, parts: Parts, carried: Mapping[str, Tensor], *, sharded: bool = False) -> Path:
        """Writes one checkpoint; all processes call it. RunError where it cannot be written: the others stay."""
        final = self.folder / f"step-{state.step:08d}"
        beside = self.folder / f".{final.name}.tmp"
        try:
            if self.rank == 0:
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir(parents=True)
            self._barrier()
            save_file(_plain(carried), str(beside / f"process-{self.rank}.safetensors"))
            if sharded:
                _save_shards(beside / SHARDS, parts)
            elif self.rank == 0:
                for name, tensors in parts.items():
                    save_file(_plain(tensors), str(beside / f"{name}.safetensors"))
            self._barrier()
            if self.rank == 0:
                _finish(beside, final, state)
        except (OSError, SafetensorError, RunError) as error:
            shutil.rmtree(beside, ignore_errors=True)
            cause = error.__cause__ if isinstance(error, RunError) else error
            why = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)
            raise RunError(
                f"cannot write the checkpoint {final}: {why}; free space and run the same command, which continues "
                f"from {self._last_name()}"
            ) from error
        self._barrier()
        return final

    def _last_name(self) -> str:
        steps = self.steps()
        return f"step {steps[-1]}" if steps else "the beginning"

    def prune(self, keep: int, best: int = 0) -> None:
        """Removes all but the last `keep` and the one of step `best`."""
        if self.rank == 0:
            for step in self.steps()[:-keep]:
                if step != best:
                    remove(self.path(step))

    # ---------------------------------------------------------------------------------------- reading

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Steps of the checkpoints that have their final name, in order."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def whole(self) -> list[Path]:
        """Those that are not damaged, in order."""
        return [path for path in map(self.path, self.steps()) if check(path)[1] is not None]

    def last(self, say: Callable[[str], None]) -> tuple[Path, State] | None:
        """The last checkpoint that is whole; `say` is told of those that are not."""
        for step in reversed(self.steps()):
            path = self.path(step)
            problem, state = check(path)
            if state is not None:
                return path, state
            before = " and the one before it is used" if step != self.steps()[0] else ""
            say(f"checkpoint {path} is damaged ({problem}); it is passed over{before}")
        return None

    def carried(self, path: Path, state: State) -> dict[str, Tensor]:
        """What this process's objective had kept; RunError where it was kept by another number of processes."""
        if state.num_processes == self.size:
            return load_file(str(path / f"process-{self.rank}.safetensors"))
        if any(load_file(str(file)) for file in sorted(path.glob("process-*.safetensors"))):
            raise RunError(
                f"{path} carries the state of streams that {state.num_processes} processes shared; continue with as many"
            )
        return {}


def read_part(path: Path, name: str) -> dict[str, Tensor] | None:
    """A file of tensors; None where the checkpoint has it not."""
    file = path / f"{name}.safetensors"
    return load_file(str(file)) if file.is_file() else None


def is_sharded(path: Path) -> bool:
    return (path / SHARDS).is_dir()


def read_shards(path: Path, parts: Parts) -> None:
    """Fills the tensors of `parts`, whole or shards of this process's own, from a checkpoint of any number of processes."""
    import torch
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    if not is_sharded(path):
        _fill(path, parts)
        return
    reader = HuggingFaceStorageReader(str(path / SHARDS))
    known = reader.read_metadata().state_dict_metadata
    flat = _flat(parts)
    # Weights that no objective used so far have no state of an optimizer.
    assert all(name in known or name.startswith("optimizer/") for name in flat), sorted(flat.keys() - known.keys())
    wanted = {name: tensor for name, tensor in flat.items() if name in known}
    load(wanted, storage_reader=reader, no_dist=not torch.distributed.is_initialized())


def _fill(path: Path, parts: Parts) -> None:
    """As `read_shards`, from whole tensors: each process takes its shard of them."""
    import torch
    from torch.distributed.tensor import DTensor, distribute_tensor

    with torch.no_grad():
        for part, tensors in parts.items():
            whole = read_part(path, part) or {}
            for name, own in tensors.items():
                if name in whole:
                    fresh = whole[name].to(own.device)
                    if isinstance(own, DTensor):
                        fresh = distribute_tensor(fresh, own.device_mesh, own.placements)
                    own.copy_(fresh)


def _save_shards(folder: Path, parts: Parts) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    save(_flat(parts), storage_writer=writer)


def _flat(parts: Parts) -> dict[str, Tensor]:
    return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What safetensors takes: contiguous tensors that share no memory."""
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _finish(beside: Path, final: Path, state: State) -> None:
    """Hashes and flushes every file, writes state.json last, renames."""
    files = sorted(path for path in beside.rglob("*") if path.is_file())
    sums = {}
    for path in files:
        with open(path, "rb") as file:
            sums[str(path.relative_to(beside))] = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
    write_json(beside / STATE, msgspec.structs.replace(state, sha256=sums))
    for folder in {path.parent for path in files} | {beside}:
        _sync(folder)
    remove(final)  # of an earlier attempt at the same step
    os.replace(beside, final)
    _sync(final.parent)


def _sync(folder: Path) -> None:
    """The names in a folder reach the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """In two steps, so that no reader finds half a folder under its name."""
    if path.exists():
        grave = path.with_name(f".{path.name}.old")
        shutil.rmtree(grave, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.replace(path, grave)
            shutil.rmtree(grave, ignore_errors=True)


def check(path: Path) -> tuple[str, State | None]:
    """("", state) of a whole checkpoint, or (what is wrong, None)."""
    try:
        state = msgspec.json.decode((path / STATE).read_bytes(), type=State)
        if state.schema != SCHEMA:
            return f"schema {state.schema}, and this version reads {SCHEMA}", None
        for name, digest in state.sha256.items():
            with open(path / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return f"{name} is not what was written", None
    except (OSError, msgspec.DecodeError, ValueError) as error:
        return str(error), None
    return "", state
