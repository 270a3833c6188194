"""`lydite tokenizer train`: text files to a tokenizer that transformers loads."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lydite.data.files import check_file
from lydite.data.tokenizers.families import family_named
from lydite.data.tokenizers.settings import DEFAULT_FAMILY, KINDS, TokenizerSettings
from lydite.data.tokenizers.texts import read_texts
from lydite.data.tokenizers.train import TrainedTokenizer, check_folder, save_tokenizer, train_tokenizer
from lydite.errors import UserError
from lydite.runs import encode

_FLAGS = ("kind", "family", "vocab_size", "lowercase", "multiple_of")


def tokenizer_train(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILES...", help="Text, JSONL, CSV, TSV, Parquet; .gz and .zst of them too.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; AutoTokenizer loads it.")],
    kind: Annotated[
        str, typer.Option(help="bpe, wordpiece, unigram or characters. Default: what the family has.")
    ] = "",
    family: Annotated[
        str,
        typer.Option(help="Special tokens: gpt2, llama, bert, roberta, albert, electra, xlnet, t5, bart."),
    ] = "",
    vocab_size: Annotated[
        int, typer.Option("--vocab-size", min=1, help="Tokens in all, special ones counted.")
    ] = 16_384,
    column: Annotated[str, typer.Option(help="The column of the text, in files of rows.")] = "text",
    lowercase: Annotated[bool, typer.Option("--lowercase", help="Small letters only, as in BERT uncased.")] = False,
    multiple_of: Annotated[
        int, typer.Option("--multiple-of", min=1, help="Round the vocabulary up to a multiple, e.g. of 64.")
    ] = 1,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="normalization (none, nfc, nfkc), character_coverage, byte_fallback, min_frequency.",
        ),
    ] = [],  # noqa: B006
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a tokenizer that is there.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="What was made, as one JSON object.")] = False,
) -> int:
    """Train a tokenizer on files and save it as a folder that transformers' AutoTokenizer loads.

    `lydite tokenizer train books.txt reviews.jsonl --out tokenizer --kind bpe --vocab-size 16384`
    """
    if not family:
        family = DEFAULT_FAMILY.get(kind or "bpe", "gpt2")
    given = {
        "kind": kind or family_named(family).kind,
        "family": family,
        "vocab_size": vocab_size,
        "lowercase": lowercase,
        "multiple_of": multiple_of,
    }
    if kind and kind not in KINDS:
        raise UserError(f"--kind {kind!r} is not known; choose one of {', '.join(KINDS)}")
    settings = _settings(given, set_)
    settings.described()
    for path in files:
        check_file(path)
    check_folder(out, overwrite=overwrite)
    try:
        with _Bar(quiet=json_) as on_progress:
            trained = train_tokenizer(lambda: read_texts(files, column), settings, on_progress=on_progress)
    except KeyboardInterrupt:
        print("lydite: interrupted; nothing was written", file=sys.stderr)
        return 130
    save_tokenizer(trained, out, overwrite=overwrite)
    if json_:
        sys.stdout.write(encode(trained.facts).decode() + "\n")
    else:
        _print(trained, out)
    return 0


def _settings(given: dict[str, Any], pairs: list[str]) -> TokenizerSettings:
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair!r} is not KEY=VALUE")
        if key in _FLAGS or key not in TokenizerSettings.__struct_fields__:
            known = [name for name in TokenizerSettings.__struct_fields__ if name not in _FLAGS]
            raise UserError(f"--set {key} says nothing to a tokenizer; it takes {', '.join(known)}")
        try:
            given[key] = json.loads(text)
        except json.JSONDecodeError:
            given[key] = text
    try:
        return msgspec.convert(given, TokenizerSettings)
    except msgspec.ValidationError as error:
        key = str(error).rpartition("$.")[2].rstrip("`")
        flag = f"--{key.replace('_', '-')}" if key in _FLAGS else f"--set {key}"
        raise UserError(f"{flag}: {str(error).partition(' - at')[0]}") from error


class _Bar:
    """A line while text is read and the library works; plain lines where standard error is no terminal."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)

    def __enter__(self) -> Callable[[str, int, int], None]:
        self.progress.start()
        line = self.progress.add_task("counting characters", total=None)
        last = ""

        def on_progress(what: str, done: int, total: int) -> None:
            nonlocal last
            size = f": {done / 1e6:,.0f} million characters" if done else ""
            self.progress.update(line, description=what + size, completed=done, total=total or None)
            if what != last and not self.console.is_terminal:
                self.console.print(what, markup=False, highlight=False)
            last = what

        return on_progress

    def __exit__(self, *details: object) -> None:
        self.progress.stop()


def _print(trained: TrainedTokenizer, out: Path) -> None:
    facts, console = trained.facts, Console(highlight=False, markup=False, soft_wrap=True)
    settings = facts.settings
    console.print(
        f"{settings.kind}, {settings.family}: {facts.vocab_size:,} tokens from {facts.num_characters:,} characters"
    )
    dropped = facts.num_distinct_characters - facts.num_kept_characters
    if dropped:
        rest = "spelled as bytes" if settings.has_bytes else "unknown to it"
        console.print(
            f"{facts.num_kept_characters:,} characters have tokens ({100 * facts.coverage:.2f}% of the text); "
            f"{dropped:,} rarer ones are {rest}"
        )
    if facts.vocab_size - facts.num_reserved < settings.vocab_size:
        console.print(
            f"fewer than the {settings.vocab_size:,} asked for: the text has no more pieces seen often enough"
        )
    console.print(f"wrote {out}")
