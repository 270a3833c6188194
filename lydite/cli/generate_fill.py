"""Filled masks: what a masked model would put in the gaps of a prompt, on the screen or from file to file.

Contract: for each mask the likeliest tokens (`--set top_k`, 5 unless told otherwise) with their probabilities, best first,
each mask by itself; options that only written text knows are refused.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lydite.cli.generate_files import generate_files
from lydite.cli.generate_live import colour_of
from lydite.errors import UserError
from lydite.models.masked import Candidate, MaskedModel
from lydite.report.text import clean, one_line
from lydite.types import Decoding, Failure, GenerateRequest, Message, Model

TOP_K = 5
"""As in transformers' fill-mask pipeline."""


class Filler:
    """A masked model that fills gaps with these options."""

    def __init__(self, model: MaskedModel, decoding: Decoding, *, num: int, probs: bool, chat: bool) -> None:
        """Raises UserError where an option says nothing to a masked model."""
        self.model: Model = model
        self.num, self.probs = 1, False
        self.decoding = decoding
        self.top_k = decoding.top_k or TOP_K
        self._masked = model
        changed = [f for f in Decoding.__struct_fields__ if getattr(decoding, f) != getattr(Decoding(), f)]
        refused = [f"--set {field}" for field in changed if field != "top_k"]
        refused += ["--num"] * (num > 1) + ["--probs"] * probs + ["--chat or --system"] * chat
        if refused:
            raise UserError(
                f"{model.info.name} fills masks and writes no text; leave {refused[0]} out (--set top_k=N lists N tokens)"
            )

    def request(self, sample_id: str, prompt: str | tuple[Message, ...], index: int = 0) -> GenerateRequest:
        """The request for a prompt; only its text and top_k are looked at."""
        if not isinstance(prompt, str):
            raise UserError(f"{self.model.info.name} fills masks in prompts; it takes no messages")
        return GenerateRequest(sample_id=sample_id, index=index, prompt=prompt, decoding=self.decoding)

    def fill(self, prompts: Sequence[str]) -> Iterator[tuple[int, list[list[Candidate]] | Failure]]:
        """(position, for each mask its candidates)."""
        return self._masked.fill(prompts, self.top_k)

    def answers(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, dict[str, Any]]]:
        """(position, answer as it is written to a file)."""
        for position, found in self.fill([request.prompt for request in requests]):
            if isinstance(found, Failure):
                yield position, {"failure": found.reason}
            else:
                yield position, {"masks": [[[one.token, one.prob] for one in mask] for mask in found]}


def fill_masks(filler: Filler, prompt: str | None, in_: Path | None, out: Path | None) -> int:
    """One prompt, each line of standard input, or the rows of a file; the exit code."""
    if in_ is not None:
        assert out is not None
        return generate_files(filler, in_, out, chat=False, head=())
    code = 0
    for line in [prompt] if prompt is not None else _lines(filler):
        code = max(code, _show(filler, line))
    return code


def _lines(filler: Filler) -> Iterator[str]:
    shows = sys.stdin.isatty()
    if shows:
        print(
            f"{one_line(filler.model.info.name)}: each line is a prompt with [MASK] in it; Ctrl-D ends", file=sys.stderr
        )
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            try:
                line = input("> " if shows else "")
            except UnicodeDecodeError as error:
                raise UserError("standard input is not UTF-8; save it as UTF-8") from error
            if line.strip():
                yield line


def _show(filler: Filler, prompt: str) -> int:
    [(_, found)] = filler.fill([prompt])
    if isinstance(found, Failure):
        print(f"lydite: nothing filled: {one_line(found.reason)}", file=sys.stderr)
        return 2
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for number, candidates in enumerate(found, 1):
        if len(found) > 1:
            console.print(Text(f"--- mask {number} of {len(found)}", style="dim"))
        for one in candidates:
            if not console.is_terminal:
                sys.stdout.write(f"{one.prob:.4f}\t{clean(one.token)!r}\n")
                continue
            console.print(Text(f"{one.prob:.4f}  {clean(one.token)!r}", style=colour_of(one.prob)))
    return 0
