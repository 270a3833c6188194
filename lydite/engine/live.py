"""Texts that are asked for while others are being generated: continuous batching in a thread of its own.

`Live` owns the decoder of one model. Whoever has prompt tokens submits them and reads the text's tokens from a Ticket;
requests that arrive while others run join the running batch at its next step, and a ticket that is cancelled leaves it.

Contract: the same text as alone (run.py); texts come in in the order in which they were asked for; only the thread touches
the network; a fault of the decoder fails the texts that were under way and nothing after them.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import numpy as np

from lydite.engine.decode import Generator
from lydite.engine.echo import echo
from lydite.engine.plan import SHARED_TOKENS
from lydite.engine.run import MAX_ROWS, DecodeRun, Likelihood, Text
from lydite.engine.sampling import make_generator
from lydite.engine.slots import Slots
from lydite.errors import LyditeError
from lydite.types import Completion, Failure, GenerateRequest

_CLOSED = Failure(reason="the decoder was closed", transient=True)
_STEP = 64
"""Widths of slots are multiples of this, so that they seldom change."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was just chosen."""

    id: int
    likelihood: Likelihood | None


class Ticket:
    """A text on its way, as its asker sees it."""

    def __init__(
        self, index: int, ids: list[int], request: GenerateRequest, num_top: int | None, events: "Events | None"
    ) -> None:
        self.index = index
        self.ids = ids
        """The prompt."""
        self.request = request
        self.num_top = num_top
        self.events: Events = SimpleQueue() if events is None else events
        """Gets the tokens as they are chosen, then the answer."""
        self.is_cancelled = False

    def cancel(self) -> None:
        """Nobody waits for the text any more: its slot is free from the next step on."""
        self.is_cancelled = True

    def __iter__(self) -> Iterator["Event"]:
        """The events of a ticket that has a queue of its own, the answer last."""
        while True:
            _, event = self.events.get()
            yield event
            if not isinstance(event, Token):
                return


Event = Token | Completion | Failure
Events = SimpleQueue[tuple[Ticket, Event]]


class _Echo:
    """Asks what the model thinks of a text."""

    def __init__(self, ids: list[int], num_top: int) -> None:
        self.ids = ids
        self.num_top = num_top
        self.answer: Future[list[Likelihood] | None] = Future()


class Live:
    """The decoder of one model, for askers in any thread."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self._numbers = itertools.count()
        self._inbox: SimpleQueue[Ticket | _Echo | None] = SimpleQueue()
        self._open: dict[int, tuple[Ticket, Text | None]] = {}
        self._plain: list[Ticket] = []
        """Wait until nothing runs: they go through transformers' `generate`."""
        self._is_closed = self._is_over = False
        self._thread = threading.Thread(target=self._work, name="lydite-live", daemon=True)
        self._thread.start()

    def submit(
        self,
        ids: Sequence[int],
        request: GenerateRequest,
        *,
        num_top: int | None = None,
        events: Events | None = None,
    ) -> Ticket:
        """Asks for a text that continues `ids`; of the request its decoding and what keys its random numbers count.

        `num_top`: name so many of the most likely tokens beside each chosen one's likelihood; None: neither. `events`: a
        queue that several tickets share.
        """
        ticket = Ticket(next(self._numbers), list(ids), request, num_top, events)
        self._put(ticket)
        return ticket

    def echo(self, ids: Sequence[int], num_top: int) -> "Future[list[Likelihood] | None]":
        """What the model thinks of a text; see echo.py."""
        asked = _Echo(list(ids), num_top)
        self._put(asked)
        return asked.answer

    @property
    def num_open(self) -> int:
        """Texts that are running or waiting."""
        return len(self._open)

    def close(self) -> None:
        """Ends the thread; texts under way become failures."""
        self._inbox.put(None)
        self._thread.join()

    # ------------------------------------------------------------------------------------- the thread

    def _work(self) -> None:
        while not self._is_closed:
            first = self._inbox.get()
            try:
                texts = self._begin([first])
                if texts:
                    run = LiveRun(self.generator, texts, self._arrived, self._is_gone)
                    run.watch = self._tell
                    for text, answer in run.answers():
                        self._finish(text.prompt.index, answer)
                self._run_plain()
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
                reason = f"the decoder failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
                for index in list(self._open):
                    self._finish(index, Failure(reason=reason))
                self._plain.clear()
        for index in list(self._open):
            self._finish(index, _CLOSED)
        self._is_over = True
        self._refuse()

    def _refuse(self) -> None:
        """Nobody would answer these any more."""
        while not self._inbox.empty():
            job = self._inbox.get()
            if isinstance(job, Ticket):
                job.events.put((job, _CLOSED))
            elif job is not None:
                job.answer.cancel()

    def _put(self, job: Ticket | _Echo) -> None:
        self._inbox.put(job)
        if self._is_over:
            self._refuse()

    def _arrived(self) -> list[Text]:
        """What was asked for since the last step, ready to run; questions of echo are answered on the spot."""
        jobs: list[Ticket | _Echo | None] = []
        while not self._plain:  # what cannot join comes first, when the running ones are done
            try:
                jobs.append(self._inbox.get_nowait())
            except Empty:
                break
        return self._begin(jobs)

    def _begin(self, jobs: Sequence[Ticket | _Echo | None]) -> list[Text]:
        self._is_closed |= None in jobs
        tickets = [job for job in jobs if isinstance(job, Ticket)]
        for ticket in tickets:
            self._open[ticket.index] = (ticket, None)
        self._echo([job for job in jobs if isinstance(job, _Echo)])
        texts = []
        for ticket in tickets:
            text = self._text(ticket)
            if isinstance(text, Failure):
                self._finish(ticket.index, text)
            elif not self.generator.scorer.can_decode or ticket.request.decoding.num_beams > 1:
                self._plain.append(ticket)
            else:
                self._open[ticket.index] = (ticket, text)
                texts.append(text)
        return texts

    def _echo(self, jobs: Sequence[_Echo]) -> None:
        if not jobs:
            return
        try:
            answers = echo(self.generator.scorer, [job.ids for job in jobs], max(job.num_top for job in jobs))
        except Exception as error:  # noqa: BLE001 - raised again where the answers are waited for
            for job in jobs:
                job.answer.set_exception(error)
            return
        for job, answer in zip(jobs, answers, strict=True):
            job.answer.set_result(answer)

    def _text(self, ticket: Ticket) -> Text | Failure:
        """A ticket as a text that can run."""
        texts, request = self.generator.texts, ticket.request
        prompt = texts.fit(ticket.index, ticket.ids, request.decoding)
        if isinstance(prompt, Failure):
            return prompt
        try:
            constraint = texts.constraints.make(request.decoding)
        except LyditeError as error:
            return Failure(reason=str(error))
        if isinstance(constraint, Failure):
            return constraint
        return Text(prompt, request.decoding, make_generator(request), constraint, ticket.num_top)

    def _run_plain(self) -> None:
        for ticket in self._plain:
            if not ticket.is_cancelled and not self._is_closed:
                prompt = self.generator.texts.fit(0, ticket.ids, ticket.request.decoding)
                assert not isinstance(prompt, Failure)
                [(_, answer)] = self.generator.plain.generate([prompt], [ticket.request])
                self._finish(ticket.index, answer)
            else:
                self._finish(ticket.index, _CLOSED)
        self._plain.clear()

    def _tell(self, index: int, token: int) -> None:
        ticket, text = self._open[index]
        assert text is not None
        ticket.events.put((ticket, Token(token, text.likelihoods[-1] if text.likelihoods else None)))

    def _is_gone(self, text: Text) -> bool:
        ticket, _ = self._open[text.prompt.index]
        if ticket.is_cancelled or self._is_closed:
            self._finish(ticket.index, _CLOSED)
            return True
        return False

    def _finish(self, index: int, answer: Completion | Failure) -> None:
        ticket, _ = self._open.pop(index)
        ticket.events.put((ticket, answer))


class LiveRun(DecodeRun):
    """A run that new texts join; its slots take the shape that the texts in it need, within the decoder's budget."""

    def __init__(
        self,
        owner: Generator,
        texts: Sequence[Text],
        arrived: Callable[[], list[Text]],
        is_gone: Callable[[Text], bool],
    ) -> None:
        super().__init__(owner, [], Slots(0, 0))
        self.waiting = list(texts)[::-1]
        self.arrived = arrived
        self.is_gone = is_gone

    def _is_open(self) -> bool:
        """Lets in what has arrived, and lets go what was cancelled."""
        self.waiting[:0] = self.arrived()[::-1]
        self.waiting = [text for text in self.waiting if not self.is_gone(text)]
        gone = [row for row, text in enumerate(self.running) if self.is_gone(text)]
        self._leave([(row, _CLOSED) for row in gone])
        return super()._is_open()

    def _room(self) -> int:
        """As many of the next texts as the budget has room for; at least one if nothing else runs."""
        budget = self.owner.batch_tokens
        width, count = max((self._width(text) for text in self.running), default=0), len(self.running)
        for text in reversed(self.waiting):
            wider = max(width, self._width(text))
            if count and (count >= MAX_ROWS or (count + 1) * wider > budget):
                break
            width, count = wider, count + 1
        if count > len(self.running) and (count > self.slots.rows or width > self.slots.width):
            rows = max(count, min(MAX_ROWS, budget // width, 2 * count))
            self.slots.resize(rows, width, len(self.running))
        return count - len(self.running)

    def _leave(self, done: Sequence[tuple[int, Completion | Failure]]) -> None:
        """Keys and values of finished texts are kept: the next turn of a conversation begins with them."""
        for row, answer in done:
            size = int(self.slots.lengths[row])
            if isinstance(answer, Completion) and size >= SHARED_TOKENS:
                text = self.running[row]
                ids = np.asarray((text.prompt.ids + text.new)[:size])
                self.scorer.prefixes.put(ids, self.slots.read(row))
        super()._leave(done)

    def _width(self, text: Text) -> int:
        return -(-(text.num_positions + self.owner.prompt_lookup) // _STEP) * _STEP
