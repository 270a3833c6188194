"""Where converted models are kept: one folder each, complete or absent, checked whenever it is opened.

The cache stands in LYDITE_CACHE, else in the user's cache folder (XDG_CACHE_HOME or ~/.cache, Library/Caches on a Mac,
LOCALAPPDATA on Windows). An entry is made in a temporary folder beside its place and renamed when it is complete, so
that a process killed at any moment, or two of them at once, never leave half a model; a lock lets the second process
wait for the first instead of doing the work again. The manifest inside holds the size and SHA-256 of every file: an
entry that does not fit it any more is made anew.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from lydite.errors import ModelError

MANIFEST = "lydite-manifest.json"
VERSION = 1
"""Counts changes of what a conversion writes (gguf_convert, gguf_tokenizer), so that older entries are made anew."""


class FileState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file of an entry must look like."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an entry of the cache holds."""

    schema: int
    spec: str
    """The spec that it was made from."""
    source_sha256: str
    """Of the file that was converted."""
    files: dict[str, FileState]


def cache_folder() -> Path:
    """The folder of the cache; it need not exist."""
    if named := os.environ.get("LYDITE_CACHE"):
        return Path(named).expanduser().absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    if named := os.environ.get("XDG_CACHE_HOME"):
        base = Path(named)
    return base.expanduser().absolute() / "lydite"


def entry_folder(spec: str) -> Path:
    """Where the model made from `spec` by this version of the conversion stands, if it is there."""
    key = hashlib.sha256(f"{VERSION}\n{spec}".encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", spec.rsplit("#", 1)[-1].rsplit("/", 1)[-1]).strip("-.")[:60]
    return cache_folder() / "models" / f"{name}-{key}"


def read_entry(folder: Path, *, check_sums: bool = True) -> Manifest | None:
    """The manifest of an entry whose files are all as they were written; None where it is absent or damaged.

    `check_sums` reads every file (0.3 s for SmolLM2-135M); without it only names and sizes are compared.
    """
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        for name, state in manifest.files.items():
            path = folder / name
            if path.stat().st_size != state.size or (check_sums and _sha256(path) != state.sha256):
                return None
    except (OSError, msgspec.DecodeError):
        return None
    return manifest


def make_entry(folder: Path, spec: str, make: Callable[[Path, Path], str]) -> Path:
    """The entry's folder, made by `make(scratch, target)` where it is absent or damaged.

    `make` fills `target`, may use `scratch` for its downloads, and returns the SHA-256 of what it converted. Raises
    ModelError where the disk is full or the cache cannot be written.
    """
    if read_entry(folder):
        return folder
    with _disk_errors(folder), _locked(folder):
        if read_entry(folder):  # made by another process in the meantime
            return folder
        # Only the holder of the lock makes this entry, so whatever lies beside its place was left by a dead process.
        for stale in folder.parent.glob(f"{folder.name}.tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        scratch = folder.with_name(f"{folder.name}.tmp-{secrets.token_hex(4)}")
        try:
            target = scratch / "model"
            target.mkdir(parents=True)
            source_sha256 = make(scratch, target)
            _write_manifest(target, spec, source_sha256)
            _remove(folder)
            target.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def remove_entry(folder: Path) -> int:
    """Removes an entry and returns the bytes that it held; 0 where there was none."""
    with _disk_errors(folder), _locked(folder):
        size = entry_bytes(folder)
        _remove(folder)
        for stale in folder.parent.glob(f"{folder.name}.tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
    return size


def entry_bytes(folder: Path) -> int:
    """Bytes on disk of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def _remove(folder: Path) -> None:
    """In two steps, so that no reader finds half an entry under its name."""
    if folder.exists():
        grave = folder.with_name(f"{folder.name}.tmp-{secrets.token_hex(4)}")
        folder.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)


def _write_manifest(target: Path, spec: str, source_sha256: str) -> None:
    paths = sorted(path for path in target.iterdir() if path.is_file())
    files = {path.name: FileState(path.stat().st_size, _sha256(path)) for path in paths}
    manifest = Manifest(1, spec, source_sha256, files)
    for path in paths:
        _sync(path)
    (target / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    _sync(target / MANIFEST)


def _sync(path: Path) -> None:
    """Bytes reach the disk before the rename does, or a power cut leaves a complete name on an empty file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another process that makes {folder.name}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turns what a full or read-only disk raises into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelError(
                f"the disk is full at {folder.parent}; free some space, or set LYDITE_CACHE to a folder elsewhere"
            ) from None
        raise ModelError(
            f"the cache at {folder.parent} cannot be written ({error.strerror or error}); "
            "set LYDITE_CACHE to a folder that can"
        ) from None
