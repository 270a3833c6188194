"""`lydite tokenizer`: its two verbs, `train` and `compare`."""

import typer

from lydite.cli.tokenizer_compare import tokenizer_compare
from lydite.cli.tokenizer_train import tokenizer_train

tokenizer = typer.Typer(no_args_is_help=True, help="Train a tokenizer, or compare tokenizers on texts.")
tokenizer.command("train", short_help="Train a tokenizer on files and save it for transformers.")(tokenizer_train)
tokenizer.command("compare", short_help="Compare tokenizers on texts: compression, fertility, round trip.")(
    tokenizer_compare
)
