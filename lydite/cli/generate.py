"""`lydite generate`: text from a model, on the screen as it comes, or from file to file."""

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from lydite.cli.generate_files import generate_files
from lydite.cli.generate_live import Speaker, talk
from lydite.cli.options import parse_set
from lydite.cli.progress import Bar
from lydite.errors import UserError
from lydite.types import Decoding, Message


def generate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for evaluate: short name, folder, http://...")],
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="[PROMPT|-]", help="-: all of standard input; nothing: each line that is typed."),
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Through the chat template; lines form a conversation.")] = False,
    system: Annotated[str, typer.Option(help="The system message of a chat.")] = "",
    in_: Annotated[
        Path | None,
        typer.Option("--in", help="JSONL file (or CSV ...) with a column prompt or messages, and maybe id."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="JSONL file for the rows of --in with their texts; continued if begun."),
    ] = None,
    num: Annotated[int, typer.Option("--num", "-n", min=1, max=128, help="Texts for each prompt.")] = 1,
    probs: Annotated[
        bool, typer.Option("--probs", help="Colour each token by its probability; to --out: write it.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of sampled text.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto (as stored).")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")] = "cpu",
    set_: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Decoding (max_new_tokens, do_sample, temperature ...) and model."
        ),
    ] = [],  # noqa: B006
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that a hub checkpoint brings along.")
    ] = False,
) -> int:
    """Let a model write: on the screen as it comes, or from file to file. Masked models fill the [MASK]s of a prompt.

    `lydite generate smollm2-135m-instruct "The capital of France is"`
    """
    decoding, settings = _options(set_)
    _check(prompt, in_, out, num, decoding)
    prompt = _read(prompt)
    with Bar() as bar, bar.loading(model) as on_progress:
        from lydite.models import load_model

        loaded = load_model(
            model,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            settings=settings,
            on_progress=on_progress,
        )
    if loaded.info.family == "masked":
        from lydite.cli.generate_fill import Filler, fill_masks
        from lydite.models.masked import MaskedModel

        assert isinstance(loaded, MaskedModel)
        filler = Filler(loaded, decoding, num=num, probs=probs, chat=chat or bool(system))
        return fill_masks(filler, prompt, in_, out)
    if "generate" not in loaded.info.can:
        raise UserError(f"{model} cannot generate text")
    with Speaker(loaded, decoding, seed=seed, num=num, probs=probs) as speaker:
        head = (Message(role="system", content=system),) if system else ()
        if in_ is not None:
            assert out is not None
            return generate_files(speaker, in_, out, chat=chat or bool(system), head=head)
        code = talk(speaker, prompt, chat=chat or bool(system), head=head)
    if code == 130:
        sys.exit(code)  # returned, it would get a second line, about what can be continued
    return code


def _options(pairs: list[str]) -> tuple[Decoding, dict[str, Any]]:
    found = parse_set(pairs)
    settings, options = found.pop("model"), found.pop("decoding")
    if found:
        raise UserError(f"--set {next(iter(found))} says nothing to generate; it takes decoding and model settings")
    return msgspec.convert(options, Decoding), settings


def _read(prompt: str | None) -> str | None:
    """The prompt, or all of standard input for -."""
    try:
        text = sys.stdin.read() if prompt == "-" else prompt
        if text is not None:
            text.encode()
    except UnicodeError as error:
        raise UserError("the prompt is not UTF-8; save it as UTF-8") from error
    return text


def _check(prompt: str | None, in_: Path | None, out: Path | None, num: int, decoding: Decoding) -> None:
    if (in_ is None) != (out is None):
        raise UserError("--in and --out go together: the file with the prompts, and the one for the texts")
    if in_ is not None and prompt is not None:
        raise UserError("the prompts come from --in; leave PROMPT out")
    if in_ is not None and out is not None and in_.resolve() == out.resolve():
        raise UserError("--in and --out are the same file; choose another --out")
    if num > 1 and not decoding.do_sample:
        raise UserError(f"{num} texts of one prompt would all be the same; add --set do_sample=true")
