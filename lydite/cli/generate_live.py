"""Generated text on the screen: as it comes, coloured where asked for, and conversations.

Contract: what a model writes is shown, never obeyed (no terminal codes, no markup); where standard output is no terminal,
it is passed on as it is. Ctrl-C ends the text that is being written and keeps what stands there.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from lydite.errors import UserError
from lydite.report.text import clean, one_line
from lydite.types import Completion, Decoding, Failure, GenerateRequest, Message, Model, Output

if TYPE_CHECKING:
    from lydite.engine.live import Live, Ticket
    from lydite.models.causal import CausalModel

_COLOURS = ((0.9, "green"), (0.5, "default"), (0.1, "yellow"), (0.01, "red"), (0.0, "bold red"))
"""Of tokens with at least this probability."""


@dataclass(frozen=True, slots=True)
class Bit:
    """A stretch of text, and what the model thought of the token that brought it (nats; None: not asked for)."""

    text: str
    token: str = ""
    logprob: float | None = None


class Speaker:
    """A model that writes with these options; text by text, token by token where it runs here."""

    def __init__(self, model: Model, decoding: Decoding, *, seed: int, num: int, probs: bool) -> None:
        self.model = model
        self.decoding = decoding
        self.seed = seed
        self.num = num
        self.probs = probs
        self._causal: CausalModel | None = None
        self._live: Live | None = None

    def __enter__(self) -> "Speaker":
        if self.model.info.family == "causal":
            from lydite.models.causal import CausalModel

            assert isinstance(self.model, CausalModel)
            self._causal = self.model
        if self.probs and (self._causal is None or not self._causal.scorer.can_decode or self.decoding.num_beams > 1):
            why = "beam search gives" if self.decoding.num_beams > 1 else f"{self.model.info.name} gives"
            raise UserError(f"{why} no probabilities of single tokens; leave --probs out")
        return self

    def __exit__(self, *details: Any) -> None:
        if self._live is not None:
            self._live.close()

    def request(self, sample_id: str, prompt: str | tuple[Message, ...], index: int = 0) -> GenerateRequest:
        """The index-th text for a prompt or a conversation."""
        said: dict[str, Any] = {"prompt": prompt} if isinstance(prompt, str) else {"messages": prompt}
        return GenerateRequest(sample_id=sample_id, index=index, decoding=self.decoding, seed=self.seed, **said)

    def stream(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, Bit | Output]]:
        """(position, bits of the text as they come, then the answer), one request after the other; all run together."""
        if self._causal is None:
            for position, output in sorted(self.model.answer(requests), key=lambda pair: pair[0]):
                if isinstance(output, Completion):
                    yield position, Bit(output.text)
                yield position, output
            return
        tickets = [self.submit(request) for request in requests]
        try:
            for position, ticket in enumerate(tickets):
                for bit in self.bits(ticket):
                    yield position, bit
        finally:
            for ticket in tickets:
                ticket.cancel()

    def answers(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, dict[str, Any]]]:
        """(position, answer as it is written to a file), as texts are done."""
        if not self.probs:
            for position, output in self.model.answer(requests):
                yield position, _plain(output, None)
            return
        tokens: list[Bit] = []
        for position, found in self.stream(requests):
            if isinstance(found, Bit):
                tokens += [found] if found.logprob is not None else []
            else:
                yield position, _plain(found, tokens)
                tokens = []

    def submit(self, request: GenerateRequest) -> "Ticket":
        """Asks the decoder of a model that runs here."""
        from lydite.engine.live import Live

        assert self._causal is not None
        if self._live is None:
            self._live = Live(self._causal.generator)
        encoder = self._causal.encoder
        [ids] = encoder.prompt_ids([encoder.render(request.messages) if request.messages else request.prompt])
        return self._live.submit(ids, request, num_top=0 if self.probs else None)

    def bits(self, ticket: "Ticket") -> Iterator[Bit | Output]:
        """A ticket's text as it comes, the answer last."""
        from lydite.engine.live import Token
        from lydite.engine.stream import TextStream

        assert self._causal is not None
        texts = self._causal.generator.texts
        stream = TextStream(texts, ticket.ids, self.decoding)
        for event in ticket:
            if isinstance(event, Token):
                text = stream.push(event.id)
                known = event.likelihood is not None and event.id not in texts.eos
                if text or known:
                    logprob = event.likelihood.logprob if event.likelihood and known else None
                    yield Bit(text, texts.encoder.text_of(event.id), logprob)
            else:
                if isinstance(event, Completion) and (rest := stream.rest(event.text)):
                    yield Bit(rest)
                yield event


def _plain(output: Output, tokens: list[Bit] | None) -> dict[str, Any]:
    if isinstance(output, Failure):
        return {"failure": output.reason} | ({"transient": True} if output.transient else {})
    assert isinstance(output, Completion)
    said = {"text": output.text, "num_tokens": output.num_tokens, "finish": output.finish}
    said |= {"num_truncated": output.num_truncated} if output.num_truncated else {}
    if tokens is not None:
        said["tokens"] = [[bit.token, bit.logprob] for bit in tokens[: output.num_tokens]]
    return said


# --------------------------------------------------------------------------------------------- the screen


def talk(speaker: Speaker, prompt: str | None, *, chat: bool, head: tuple[Message, ...]) -> int:
    """One prompt, or each line of standard input; with `chat` the lines are the turns of one conversation."""
    screen = _Screen(speaker.probs)
    if prompt is not None:
        asked: str | tuple[Message, ...] = (*head, Message(role="user", content=prompt)) if chat else prompt
        text, code = _write(speaker, screen, "0", asked)
        return code
    history, code = head, 0
    for number, line in enumerate(_lines(speaker, chat)):
        if chat:
            history = (*history, Message(role="user", content=line))
        text, one = _write(speaker, screen, str(number), history if chat else line)
        if one == 130 and not sys.stdin.isatty():
            return one
        code = max(code, one if one != 130 else 0)
        history = (*history, Message(role="assistant", content=text))
    return code


def _lines(speaker: Speaker, chat: bool) -> Iterator[str]:
    """What is typed, until the end of input or Ctrl-C at an empty line."""
    shows = sys.stdin.isatty()
    if shows:
        what = "each line is a turn of one conversation" if chat else "each line is a prompt of its own"
        print(f"{one_line(speaker.model.info.name)}: {what}; Ctrl-D ends", file=sys.stderr)
        with suppress(ImportError):
            import readline  # noqa: F401 - input() then edits and remembers lines
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            try:
                line = input("> " if shows else "")
            except UnicodeDecodeError as error:
                raise UserError("standard input is not UTF-8; save it as UTF-8") from error
            if line.strip():
                yield line


def _write(speaker: Speaker, screen: "_Screen", sample_id: str, asked: str | tuple[Message, ...]) -> tuple[str, int]:
    """Shows the texts for one prompt; the (last) text so far as it came, and the exit code."""
    requests = [speaker.request(sample_id, asked, index) for index in range(speaker.num)]
    text, code, seen = "", 0, -1
    try:
        for position, found in speaker.stream(requests):
            if position != seen:
                seen, text = position, ""
                if len(requests) > 1:
                    screen.note(f"--- {position + 1} of {len(requests)}")
            if isinstance(found, Bit):
                text += found.text
                screen.show(found)
                continue
            screen.end()
            if isinstance(found, Failure):
                code = 2
                print(f"lydite: no text: {one_line(found.reason)}", file=sys.stderr)
            elif isinstance(found, Completion) and found.num_truncated:
                print(f"lydite: the first {found.num_truncated} tokens of the prompt were cut off", file=sys.stderr)
    except KeyboardInterrupt:
        screen.end()
        print("lydite: interrupted; the text so far stands above", file=sys.stderr)
        code = 130
    return text, code


class _Screen:
    """Standard output."""

    def __init__(self, probs: bool) -> None:
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.probs = probs
        self._rows: list[Bit] = []
        if probs and self.console.is_terminal:
            legend = Text("probability at least:")
            for least, colour in _COLOURS:
                legend.append(f" {least:g}", style=colour)
            Console(stderr=True, highlight=False).print(legend)

    def show(self, bit: Bit) -> None:
        """A stretch of text, now."""
        if self.console.is_terminal:
            style = "" if bit.logprob is None else colour_of(math.exp(bit.logprob))
            self.console.print(Text(clean(bit.text), style=style), end="")
        else:
            sys.stdout.write(bit.text)
            sys.stdout.flush()
            self._rows += [bit] if bit.logprob is not None else []

    def end(self) -> None:
        """The text is over; where there are no colours, its tokens follow with their probabilities."""
        sys.stdout.write("\n")
        for bit in self._rows:
            sys.stdout.write(f"{math.exp(bit.logprob or 0.0):.4f}\t{clean(bit.token)!r}\n")
        self._rows.clear()
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A line between texts."""
        self.console.print(Text(text, style="dim"))


def colour_of(probability: float) -> str:
    return next(colour for least, colour in _COLOURS if probability >= least)
