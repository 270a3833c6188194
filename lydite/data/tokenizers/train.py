"""Trains a tokenizer on a stream of texts, and saves it as a folder that transformers loads.

The text is read twice: once to count characters, once by the library's trainer. Memory is that of the distinct pieces of
text, not of the text.

Contract: the same text and settings give the same tokenizer, byte for byte. A folder is whole or not there: its files are
written beside it, and the folder is renamed.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from tokenizers import Tokenizer
from tokenizers import __version__ as library

from lydite.data.tokenizers import pieces
from lydite.data.tokenizers.alphabet import EVERY, OnProgress, count_characters
from lydite.data.tokenizers.families import add_specials, config_of
from lydite.data.tokenizers.kinds import MAKE, reserved_tokens
from lydite.data.tokenizers.settings import TokenizerSettings
from lydite.errors import DataError, UserError
from lydite.types import Record

FACTS = "lydite_tokenizer.json"
T = TypeVar("T")


class TokenizerFacts(Record, frozen=True, kw_only=True):
    """lydite_tokenizer.json: what a tokenizer was made from."""

    schema: int = 1
    settings: TokenizerSettings
    vocab_size: int
    """Tokens as they came out; fewer than asked where the text has no more to learn from."""
    num_characters: int
    num_distinct_characters: int
    num_kept_characters: int
    """Distinct characters that have a token of their own."""
    coverage: float
    """Share of the text that these are."""
    num_reserved: int
    library: str
    """Version of `tokenizers`."""


@dataclass(frozen=True)
class TrainedTokenizer:
    """A tokenizer, its entries for transformers, and how it came to be."""

    tokenizer: Tokenizer
    config: dict[str, Any]
    facts: TokenizerFacts


def train_tokenizer(
    texts: Callable[[], Iterable[str]],
    settings: TokenizerSettings,
    *,
    on_progress: OnProgress = lambda what, done, total: None,
) -> TrainedTokenizer:
    """The tokenizer of `settings` for the texts, which are asked for twice. Raises UserError and DataError."""
    family = settings.described()
    normalizer = pieces.normalizer(settings.form, settings.lowercase)
    if settings.kind == "wordpiece":
        normalizer = pieces.bert_normalizer(settings.lowercase)
    alphabet = count_characters(texts(), settings, family, normalizer, on_progress)

    def stream() -> Iterator[str]:
        done = 0
        for text in alphabet.clean(texts()):
            yield text
            if done // EVERY != (done := done + len(text)) // EVERY:
                on_progress("reading", min(done, alphabet.total), alphabet.total)
        on_progress("training", 0, 0)

    tokenizer = _beside(lambda: MAKE[settings.kind](stream(), settings, family, alphabet))
    also = settings.also(family)
    vocab = tokenizer.get_vocab()
    reserved = [name for name in reserved_tokens(settings.multiple_of - 1) if name in vocab]
    add_specials(tokenizer, family, (*also, *reserved))
    facts = TokenizerFacts(
        settings=settings,
        vocab_size=len(vocab),
        num_characters=alphabet.total,
        num_distinct_characters=alphabet.distinct,
        num_kept_characters=len(alphabet.kept),
        coverage=alphabet.coverage,
        num_reserved=len(reserved),
        library=library,
    )
    return TrainedTokenizer(tokenizer, config_of(family, also), facts)


def save_tokenizer(trained: TrainedTokenizer, folder: Path, *, overwrite: bool = False) -> None:
    """Writes tokenizer.json, tokenizer_config.json and lydite_tokenizer.json. Raises UserError where something else is."""
    check_folder(folder, overwrite=overwrite)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from error
    try:
        _write(beside / "tokenizer.json", trained.tokenizer.to_str(pretty=True).encode())
        _write(beside / "tokenizer_config.json", _json(trained.config))
        _write(beside / FACTS, _json(trained.facts))
        beside.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; nothing was changed there") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def check_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Raises UserError unless a tokenizer may be written there; only what `lydite tokenizer train` made is replaced."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; choose another --out")
    names = {path.name for path in folder.iterdir()}
    if names and not names <= {"tokenizer.json", "tokenizer_config.json", FACTS}:
        raise UserError(f"{folder} holds other files ({sorted(names)[0]} ...); choose a folder of its own for --out")
    if names and not overwrite:
        raise UserError(f"{folder} holds a tokenizer already; choose another --out, or say --overwrite")


def read_facts(folder: Path) -> TokenizerFacts | None:
    """What a tokenizer of ours was made from; None for any other. Raises DataError where the file is damaged."""
    path = folder / FACTS
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=TokenizerFacts)
    except (msgspec.DecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _beside(work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread of its own: the library's trainer hears no Ctrl-C, but this waiting does."""
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    if failed:
        raise failed[0]
    return found[0]
