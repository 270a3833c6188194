"""The run folder: the only writer of JSON inside it, and its reader.

    OUT/<model>/<task>/run.json        one Run
    OUT/<model>/<task>/samples.jsonl   a SampleRecord a line, appended the moment a sample is complete
    OUT/groups.json                    GroupEstimates of every model

Contract: killed at any moment, nothing finished is lost. A line is one write to the operating system; a torn last
line is dropped when the folder is opened again, and so are samples that failed for a passing reason (a server that was
away); any other damage is an error. Files that are replaced are written beside and renamed. A lock file keeps a second process out. No torch here: reports, comparisons and re-scoring start
from the folder alone.
"""

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from lydite.errors import DataError, RunError
from lydite.types import Failure, GroupEstimates, Run, SampleRecord

SCHEMA = 1
LOGGED_BY = "logged_by"
"""Entry of a run's environment: the other system whose log the run was read from; absent in our own runs."""
LONGEST_NAME = 120
"""In bytes; file systems allow 255."""
_SURROGATE = re.compile("[\ud800-\udfff]")
R = TypeVar("R", bound=msgspec.Struct)
_LINE = msgspec.json.Decoder(SampleRecord)


def content_hash(value: Any, length: int = 12) -> str:
    """Hex digest of a JSON-able value; key order does not matter."""
    return hashlib.sha256(encode(value, "sorted")).hexdigest()[:length]


def encode(value: Any, order: Literal["sorted"] | None = None) -> bytes:
    """Strict JSON. Lone surrogates, which no encoding of text has, are stored as U+FFFD."""
    try:
        return msgspec.json.encode(value, order=order)
    except UnicodeEncodeError:
        return msgspec.json.encode(_replaced(msgspec.to_builtins(value))[0], order=order)


def well_formed(record: R) -> tuple[R, int]:
    """The record with U+FFFD in place of lone surrogates, and how many there were."""
    try:
        msgspec.json.encode(record)
    except UnicodeEncodeError:
        plain, count = _replaced(msgspec.to_builtins(record))
        return msgspec.convert(plain, type(record)), count
    return record, 0


def _replaced(value: Any) -> tuple[Any, int]:
    """The same JSON value without lone surrogates, and how many there were."""
    if isinstance(value, str):
        return _SURROGATE.subn("\ufffd", value)
    if isinstance(value, dict):
        found = [(_replaced(key), _replaced(item)) for key, item in value.items()]
        return {key: item for (key, _), (item, _) in found}, sum(a + b for (_, a), (_, b) in found)
    if isinstance(value, list | tuple):
        items = [_replaced(item) for item in value]
        return [item for item, _ in items], sum(count for _, count in items)
    return value, 0


def safe_name(name: str) -> str:
    """A model's or task's name as a folder name; one that is too long for a file system ends in its hash."""
    safe = re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "unnamed"
    if len(safe.encode()) <= LONGEST_NAME:
        return safe
    return safe.encode()[: LONGEST_NAME - 9].decode(errors="ignore") + "-" + content_hash(name, 8)


def write_json(path: Path, value: Any) -> None:
    """Replaces `path` by the strict JSON of `value`, or leaves it as it was."""
    write_bytes(path, msgspec.json.format(encode(value), indent=1) + b"\n")


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces a file in one step: written beside it, flushed to the disk, renamed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise RunError(f"cannot write {path}: {error.strerror}; mend that or choose another --out") from error


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process; RunError if another process holds it. The lock dies with its process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "a+")  # noqa: SIM115 - lives as long as the lock
    except OSError as error:
        raise RunError(f"cannot use {folder} as a run folder: {error.strerror}; choose another --out") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise RunError(
                f"{folder} is in use by another process (pid {owner}); wait for it or choose another --out"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class RunFolder:
    """One model on one task, open for writing: `done` are the records that an earlier process left complete."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder = folder
        self.done: list[SampleRecord] = []
        self.earlier: Run | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "run.json").exists():
            self.earlier = read_run(folder)
            if self.earlier.id != run.id:
                raise RunError(
                    f"{folder} holds a run with other settings ({differences(self.earlier.config, run.config)}); "
                    "choose another --out, or delete it"
                )
        elif (folder / "samples.jsonl").exists():
            raise RunError(f"{folder} has samples but no run.json; move it away or choose another --out")
        found = _recover(folder / "samples.jsonl")
        self.done = [record for record in found if not _is_transient(record)]
        if len(self.done) < len(found):
            write_samples(folder, self.done)
        if self.earlier is None:
            write_json(folder / "run.json", run)
        self._file = os.open(folder / "samples.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def append(self, record: SampleRecord) -> None:
        """Writes one finished sample. A full disk raises RunError and leaves at most a torn last line."""
        data = encode(record) + b"\n"
        try:
            written = os.write(self._file, data)
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            raise RunError(
                f"cannot write {self.folder / 'samples.jsonl'}: {error.strerror}; free space and run the same command"
            ) from error

    def save(self, run: Run) -> None:
        """Replaces run.json."""
        write_json(self.folder / "run.json", run)

    def close(self) -> None:
        os.close(self._file)


def _recover(path: Path) -> list[SampleRecord]:
    """The complete records of samples.jsonl; cuts a torn last line off the file."""
    if not path.exists():
        return []
    data = _read(path)
    end = data.rfind(b"\n") + 1
    records = list(_parse(path, data[:end]))
    if end < len(data):
        with open(path, "r+b") as file:
            file.truncate(end)
    return records


def _is_transient(record: SampleRecord) -> bool:
    """Whether the sample failed for a reason that may have passed, so that it is asked again."""
    return any(isinstance(output, Failure) and output.transient for output in record.outputs)


def _parse(path: Path, data: bytes) -> Iterator[SampleRecord]:
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            yield _LINE.decode(line)
        except (msgspec.DecodeError, ValueError) as error:
            raise RunError(
                f"{path} line {number} is damaged ({error}); delete that line and run the same command again"
            ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; mend that, or choose another folder") from error


def read_run(folder: Path) -> Run:
    """run.json of a leaf run folder."""
    path = folder / "run.json"
    if not path.exists():
        raise RunError(f"no run in {folder}: {path} does not exist")
    mend = f"read it with the version that wrote it, or move {folder} away"
    try:
        run = msgspec.json.decode(_read(path), type=Run)
    except (msgspec.DecodeError, ValueError) as error:
        raise RunError(f"{path} is not a run of this version of Lydite: {error}; {mend}") from error
    if run.schema != SCHEMA:
        raise RunError(f"{path} has schema {run.schema}, and this version of Lydite reads {SCHEMA}; {mend}")
    return run


def read_samples(folder: Path) -> Iterator[SampleRecord]:
    """The complete records of a leaf run folder, in the order in which they were finished; a torn last line is passed over."""
    path = folder / "samples.jsonl"
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed by the with below
    except FileNotFoundError as error:
        raise RunError(f"no samples in {folder}: {path} does not exist") from error
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; mend that, or choose another folder") from error
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield _LINE.decode(line)
            except (msgspec.DecodeError, ValueError) as error:
                raise RunError(
                    f"{path} line {number} is damaged ({error}); delete that line and evaluate again with the same command"
                ) from error


def find_runs(folder: Path) -> list[Path]:
    """Leaf run folders under OUT, OUT/<model> or a leaf itself, sorted; RunError if there are none."""
    if (folder / "run.json").exists():
        return [folder]
    found = sorted(path.parent for pattern in ("*/run.json", "*/*/run.json") for path in folder.glob(pattern))
    if not found:
        raise RunError(f"no runs in {folder}; give the --out folder of `lydite evaluate`, or a folder inside it")
    return found


def write_samples(folder: Path, records: Iterable[SampleRecord]) -> None:
    """Replaces samples.jsonl in one step (re-scoring)."""
    write_bytes(folder / "samples.jsonl", b"".join(encode(record) + b"\n" for record in records))


def read_groups(out: Path) -> list[GroupEstimates]:
    """groups.json of OUT; empty where no groups were asked for."""
    path = out / "groups.json"
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(_read(path), type=list[GroupEstimates])
    except (msgspec.DecodeError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}; delete it and run the evaluation again") from error


def write_groups(out: Path, groups: list[GroupEstimates]) -> None:
    """Replaces the entries of the same model and group in groups.json and keeps the others."""
    fresh = {(group.model, group.group) for group in groups}
    kept = [group for group in read_groups(out) if (group.model, group.group) not in fresh]
    write_json(out / "groups.json", kept + groups)


def differences(old: Any, new: Any, prefix: str = "") -> str:
    """Names the settings in which two configs differ, in words for an error message."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = []
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                parts.append(differences(old.get(key), new.get(key), f"{prefix}{key}."))
        return ", ".join(parts)
    return f"{prefix.rstrip('.')} was {old!r}, now {new!r}"
