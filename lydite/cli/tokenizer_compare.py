"""`lydite tokenizer compare`: tokenizers beside one another on the same texts."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from lydite.data.files import check_file
from lydite.data.tokenizers.compare import Comparison, TextCounts, compare_tokenizer
from lydite.data.tokenizers.texts import read_units
from lydite.errors import ModelError, UserError
from lydite.report.grid import print_grid
from lydite.report.text import one_line
from lydite.runs import encode, write_json


def tokenizer_compare(
    tokenizers: Annotated[
        list[str], typer.Argument(metavar="TOKENIZER...", help="Folders, short names of models, or names on the hub.")
    ],
    text: Annotated[
        list[str],
        typer.Option(
            "--text", "-t", metavar="[NAME=]FILE", help="A text to compare on, one a language; may be repeated."
        ),
    ],
    column: Annotated[str, typer.Option(help="The column of the text, in files of rows.")] = "text",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write comparison.json and tokenizers.html there.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that a hub tokenizer brings along.")
    ] = False,
) -> int:
    """Compare tokenizers on texts: compression, tokens a word (or Chinese character), unknown tokens, round trip, speed.

    `lydite tokenizer compare tokenizer smollm2-135m-instruct --text en=books.txt --text zh=reviews.jsonl`
    """
    texts = _texts(text, column)
    names = _names(tokenizers)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {out}: {error.strerror}; choose another --out") from error
    console = Console(stderr=True, quiet=json_ or not sys.stderr.isatty())
    rows = []
    with console.status("loading", spinner="dots") as status:
        for name, spec in zip(names, tokenizers, strict=True):
            status.update(f"loading {one_line(name)}")
            loaded = load_tokenizer(spec, trust_remote_code=trust_remote_code)

            def on_progress(what: str, done: int) -> None:
                status.update(f"{one_line(what)}: {done:,} texts")

            rows.append(compare_tokenizer(name, loaded, texts, on_progress))
    found = Comparison(rows=tuple(rows))
    if out is not None:
        from lydite.report.tokenizers import write_page

        write_json(out / "comparison.json", found)
        write_page(found, out / "tokenizers.html")
    if json_:
        sys.stdout.write(encode(found).decode() + "\n")
    else:
        _print(found, out)
    return 0


def load_tokenizer(spec: str, *, trust_remote_code: bool = False) -> Any:
    """A transformers tokenizer: a folder as it stands, the tokenizer of a model that Lydite knows, or of the hub."""
    from lydite.models.catalogue import catalogue
    from lydite.models.sources import find_checkpoint
    from lydite.models.tokenizers import read_tokenizer
    from lydite.models.wheels import PREFIX

    folder = Path(spec).expanduser()
    if not folder.is_dir() and (spec in catalogue() or spec.startswith(PREFIX) or spec.lower().endswith(".gguf")):
        folder = find_checkpoint(spec).folder
    elif not folder.is_dir() and (folder.exists() or spec.count("/") != 1 or spec.startswith((".", "/", "~"))):
        raise ModelError(f"{spec} is no folder with a tokenizer, no short name of a model and no name on the hub")
    return read_tokenizer(str(folder if folder.is_dir() else spec), trust_remote_code=trust_remote_code)


def _texts(given: list[str], column: str) -> dict[str, Callable[[], Iterable[str]]]:
    found: dict[str, Callable[[], Iterable[str]]] = {}
    for item in given:
        name, equals, file = item.partition("=")
        path = Path(item) if not equals or Path(item).exists() else Path(file)
        label = path.name if path == Path(item) else name.strip()
        if not label or label in found:
            raise UserError(f"--text {item!r}: two texts are called {label!r}; name them, as in --text en=FILE")
        found[label] = partial(read_units, check_file(path), column)
    return found


def _names(specs: list[str]) -> list[str]:
    """The last part of a path where that tells tokenizers apart, else the whole."""
    short = [Path(spec).name if Path(spec).is_dir() else spec for spec in specs]
    if len(set(specs)) < len(specs):
        raise UserError("a tokenizer is named twice; name each once")
    return short if len(set(short)) == len(short) else list(specs)


def _print(found: Comparison, out: Path | None) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    titles = ["bytes/token", "chars/token", "fertility", "unknown", "round trip"]
    for place, count in enumerate(found.rows[0].counts):
        size = f"{count.num_texts:,} texts, {count.num_characters:,} characters; fertility: tokens a {count.unit}"
        console.print(Text(f"{one_line(count.text)} ", style="bold") + Text(size, style="not bold"))
        rows = [[one_line(row.name), *_cells(row.counts[place])] for row in found.rows]
        print_grid([["tokenizer", *titles], *rows], names=1, right=titles)
        console.print()
    grid = [["tokenizer", "model", "vocabulary", "used", "speed"]]
    for row in found.rows:
        used = f"{100 * row.num_used / row.vocab_size:.1f}%"
        grid.append(
            [one_line(row.name), row.kind, f"{row.vocab_size:,}", used, f"{row.bytes_per_second / 1e6:.2f} MB/s"]
        )
    print_grid(grid, names=1, right=grid[0][2:])
    for row in found.rows:
        for count in row.counts:
            if count.broken:
                before, after = count.broken
                console.print(f"{one_line(row.name)} on {one_line(count.text)}: {before!r} came back as {after!r}")
    if out is not None:
        console.print(f"wrote {out / 'tokenizers.html'} and comparison.json")


def _cells(count: TextCounts) -> list[str]:
    return [
        f"{count.bytes_per_token:.3f}",
        f"{count.characters_per_token:.3f}",
        f"{count.fertility:.3f}",
        percent(count.unknown_rate),
        percent(count.round_trip),
    ]


def percent(share: float) -> str:
    """As many decimals as tell it from all and from nothing."""
    for places in (1, 2, 3):
        shown = f"{100 * share:.{places}f}%"
        if share in (0.0, 1.0) or float(shown[:-1]) not in (0.0, 100.0):
            return shown
    return "<0.001%" if share < 0.5 else ">99.999%"
