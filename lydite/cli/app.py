"""`lydite`: the verbs, and what a process says when it ends.

Exit codes: 0 done, 1 a user's mistake, 2 some samples failed, 130 interrupted.
"""

import io
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, cast

import typer

import lydite
from lydite.cli import many
from lydite.errors import Interrupted, LyditeError

VERBS = {
    "evaluate": "Judge models on tasks: numbers with intervals, a run folder, a page.",
    "compare": "Pair runs sample by sample: differences, intervals, tests.",
    "pretrain": "Train a model from a recipe; the same command continues.",
    "report": "Make the page of a run folder again.",
    "export": "Runs as lm-eval's logs, or other systems' logs as runs.",
    "rescore": "Score stored outputs again, without the model.",
    "judge": "Score written answers with a neural metric, as a second pass.",
    "audit": "List right answers that were not read, and outputs that were never whole.",
    "tasks": "List tasks, or show one with a rendered prompt.",
    "models": "List the catalogue of models, fetch or remove one.",
    "prepare": "Turn text into a corpus of token shards: cleaned, without duplicates, split.",
    "bench": "Measure how fast a model answers on this machine.",
    "tokenizer": "Train a tokenizer, or compare tokenizers on texts.",
    "plan": "Say what a training run needs: parameters, operations, memory, time.",
    "generate": "Let a model write: on the screen, in a conversation, from file to file.",
    "serve": "Serve a model to other programs through the OpenAI protocol.",
}
"""Verb to its line of help. `lydite.cli.<verb>` holds the function, or the group of verbs, of the same name."""

# typer carries its own copy of click since 0.2x; the base of its usage errors is reached through a public one.
UsageError = cast(type[typer.BadParameter], typer.BadParameter.__mro__[1])


def _stub() -> None:
    """Stands in for a verb that was not asked for, so that `lydite --help` imports none of them."""


def _version(asked: bool) -> None:
    if asked:
        print(f"lydite {lydite.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Lydite judges language models: the same numbers, honestly bounded, with less work."""


def make_app(arguments: Sequence[str]) -> typer.Typer:
    """The command line, in which only the verb among `arguments` is really there."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_root)
    asked = next((word for word in arguments if not word.startswith("-")), "")
    for verb, help_line in VERBS.items():
        function = getattr(import_module(f"lydite.cli.{verb}"), verb) if verb == asked else _stub
        if isinstance(function, typer.Typer):
            app.add_typer(function, name=verb, short_help=help_line)
            continue
        app.command(verb, short_help=help_line, help=None if verb == asked else help_line)(function)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdout", "stderr"):
        if vars(sys)[name] is None:  # closed by the shell: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process
    for stream in (sys.stdout, sys.stderr):
        # A screen that cannot show a character, or a path that is no text, gets its number.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _once_is_enough()
    sys.exit(many.run(given, lambda: _run(given), _say) if many.several() else _run(given))


def _run(arguments: Sequence[str]) -> int:
    """The command line's exit code, once its one line is said where it went wrong."""
    code: object = 0
    try:
        code = make_app(arguments)(arguments, prog_name="lydite", standalone_mode=False)
        if code == 130:  # typer turns KeyboardInterrupt into this and says nothing
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        code = _say(f"{many.why()}interrupted; whatever was finished is kept, and the same command continues", 130)
    except Interrupted as stop:
        code = _say(f"{many.why()}{stop}; the same command continues", 130)
    except LyditeError as error:
        code = _say(f"error: {error}", 1)
    except UsageError as error:
        # With no arguments at all the "error" is the help page itself.
        text = error.format_message() or "nothing to do"
        code = _say(f"error: {text}" + ("" if "\n" in text else "; `lydite --help` shows how"), 1) if arguments else 0
    except BrokenPipeError:
        # `lydite ... | head`: the reader has gone, and Python must not complain about it at exit.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        code = 141
    except RuntimeError as error:
        if not str(error).startswith("Symlink loop"):  # Path.resolve, before Python 3.13
            raise
        code = _say(f"error: {error}; name a path outside of it", 1)
    except OSError as error:  # a full disk or a closed terminal under our own output; files name themselves
        why = error.strerror or str(error) or type(error).__name__  # an error that was raised by hand has no strerror
        code = _say(f"error: cannot write or read {error.filename or 'the output'}: {why}", 1)
    return code if isinstance(code, int) else 0


def _once_is_enough() -> None:
    """A second Ctrl-C within two seconds is passed over: what was finished is being written, and then the process ends.

    Where the shell told the process to ignore Ctrl-C (a background job of a script), that stands.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    last = -2.0

    def interrupt(number: int, frame: object) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 2:
            last = now
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def _say(line: str, code: int) -> int:
    print(f"lydite: {' '.join(line.split())}", file=sys.stderr)
    return code
