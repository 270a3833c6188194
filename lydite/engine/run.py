"""Texts on their way through the network: prompts take slots, all running texts step together, those that are done leave.

A DecodeRun is one call's work (decode.py makes it from requests); live.py lets texts arrive while it runs.

Contract: a text depends on its own prompt, decoding and generator alone; a row of numbers that are none fails alone.

V: size of the vocabulary; D: width of a state.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lydite.engine import attention
from lydite.engine.attention import Layers, Store
from lydite.engine.constrain import Constraint
from lydite.engine.plan import Keep, make_plan
from lydite.engine.sampling import choose, has_penalty
from lydite.engine.slots import Slots, StepPass
from lydite.engine.texts import Prompt
from lydite.engine.tokens import Window
from lydite.types import Completion, Decoding, Failure

if TYPE_CHECKING:
    from lydite.engine.decode import Generator

MAX_ROWS = 128
_NAN = Failure(reason="not a number among the model's probabilities")
Watcher = Callable[[int, int], None]
"""Is told (index of the request, token) as soon as a token is chosen."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a chosen token was, in nats, to the model itself: before penalties, temperature and the like."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The most likely tokens and their log-probabilities, as many as were asked for."""


@dataclass(slots=True)
class Text:
    """A text that is being generated."""

    prompt: Prompt
    decoding: Decoding
    generator: np.random.Generator
    constraint: Constraint | None = None
    num_top: int | None = None
    """How many of the most likely tokens to keep beside the chosen one's likelihood; None: keep nothing."""
    new: list[int] = field(default_factory=list)
    likelihoods: list[Likelihood] = field(default_factory=list)
    """Of the new tokens, where they were asked for."""

    @property
    def num_positions(self) -> int:
        """Tokens that the text may come to."""
        return len(self.prompt.ids) + self.decoding.max_new_tokens

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is all that matters."""
        return not self.decoding.do_sample and not has_penalty(self.decoding) and self.constraint is None

    def choose(self, logits: Tensor) -> int:
        """The next token from logits [V], where the most likely one is not all that matters."""
        if self.constraint is not None:
            logits = self.constraint.apply(logits)
        return choose(logits, self.decoding, self.prompt.ids, self.new, self.generator)


class DecodeRun:
    """One call's texts on their way: waiting, running in slots [0, len(running)), done."""

    def __init__(self, owner: "Generator", texts: Sequence[Text], slots: Slots) -> None:
        self.owner = owner
        self.scorer = owner.scorer
        self.watch = owner.watch
        self.waiting = sorted(texts, key=lambda text: len(text.prompt.ids))  # taken from the end: longest first
        self.running: list[Text] = []
        self.slots = slots

    def answers(self) -> Iterator[tuple[Text, Completion | Failure]]:
        """Yields each text when it is done. Between two of them the model is the caller's: nothing of the run's modes stays."""
        while done := self._advance():
            yield from done

    def _advance(self) -> list[tuple[Text, Completion | Failure]]:
        """Go on until texts are done; none when all are."""
        with torch.inference_mode(), attention.attached(self.scorer.model):
            while self._is_open():
                done = []
                if room := self._room():
                    done += self._admit(room)
                if self.running:
                    done += self._step()
                if done:
                    return done
        return []

    def _is_open(self) -> bool:
        """Whether there is something to do; called before each step."""
        return bool(self.waiting or self.running)

    def _room(self) -> int:
        """How many waiting texts may take slots now: a few at a time, so that their prompts share a pass."""
        free = self.slots.rows - len(self.running)
        enough = free >= max(1, self.slots.rows // 4) or not self.running
        return min(free, len(self.waiting)) if enough else 0

    # ---------------------------------------------------------------------------------------- prompts

    def _admit(self, count: int) -> list[tuple[Text, Completion | Failure]]:
        """The next prompts go through the network and take free slots."""
        texts = [self.waiting.pop() for _ in range(count)]
        first = len(self.running)
        states = self._prefill(texts, first, share=True)
        if bool(states.isnan().any()):
            states = self._prefill_singly(texts, first)
        self.running.extend(texts)
        rows = range(first, len(self.running))
        return self._take(rows, [states[row - first : row - first + 1] for row in rows], None)

    def _prefill_singly(self, texts: Sequence[Text], first: int) -> Tensor:
        """As `_prefill`, each prompt by itself, because not-a-number spreads inside a block."""
        if not first:  # what was just kept may be spoilt
            self.slots.shared = None
            self.scorer.prefixes.clear()
        states = []
        for row, text in enumerate(texts):
            known = self.slots.shared
            states.append(self._prefill([text], first + row, share=False)[0])
            if bool(states[-1].isnan().any()):
                self.slots.shared = known
        return torch.stack(states)

    def _prefill(self, texts: Sequence[Text], first: int, *, share: bool) -> Tensor:
        """Run the prompts and fill slots from `first` on; the states [texts, D] of their last tokens."""
        windows = [_window(text.prompt.ids) for text in texts]
        cached = self.scorer.prefixes.find(windows) if share else []
        kept: Layers = []

        def take(keep: Keep, layer: int, keys: Tensor, values: Tensor) -> None:
            self.slots.write(first + keep.path, layer, keys, values)
            if self.slots.shared is None and self.slots.num_shared and keep.path == 0:
                size = self.slots.num_shared
                kept.append((keys[:, :size].clone(), values[:, :size].clone()))

        store = Store([layers for _, layers in cached], take)
        plan = make_plan(
            windows,
            batch_tokens=self.scorer.batch_tokens,
            share=share,
            cached=[ids for ids, _ in cached],
            keep="ends",
        )
        states: list[Tensor] = [torch.empty(0)] * len(texts)
        for batch in plan:
            out = self.scorer.forward_packed(batch, store)
            self.owner.num_computed += len(batch.ids)
            for read in batch.reads:
                states[read.path] = out[read.row]
        if kept:
            self.slots.shared = kept
        if kept and share:
            self.scorer.prefixes.put(np.asarray(texts[0].prompt.ids[: self.slots.num_shared]), kept)
        return torch.stack(states)

    # ------------------------------------------------------------------------------------------ steps

    def _step(self) -> list[tuple[Text, Completion | Failure]]:
        """All running texts take one step (or several tokens at once where a guess is right)."""
        guesses = self._guesses()
        width = 1 + max(len(guess) for guess in guesses)
        ids = [
            [text.new[-1], *guess, *[0] * (width - 1 - len(guess))]
            for text, guess in zip(self.running, guesses, strict=True)
        ]
        device = self.scorer.model.device
        step = StepPass(self.slots, len(self.running), width, device)
        with attention.active(step):
            states = self.scorer.forward(
                torch.tensor(ids, device=device).view(1, -1), position_ids=step.positions[None]
            )
        self.owner.num_computed += len(states)
        rows = range(len(self.running))
        return self._take(rows, [states[row * width : (row + 1) * width] for row in rows], (step, guesses))

    def _guesses(self) -> list[list[int]]:
        """What may come next, read off the text before; nothing unless all running texts are greedy."""
        most = self.owner.prompt_lookup
        if not most or not all(text.is_greedy for text in self.running):
            return [[] for _ in self.running]
        return [look_up(text.prompt.ids + text.new, most) for text in self.running]

    def _take(
        self, rows: range, states: Sequence[Tensor], step: tuple[StepPass, list[list[int]]] | None
    ) -> list[tuple[Text, Completion | Failure]]:
        """Choose the next tokens of these texts from their states [1 + guesses, D]; those that are done leave."""
        flat = torch.cat(list(states))
        need_all = [not text.is_greedy or text.num_top is not None for text in self.running[rows.start : rows.stop]]
        best, bad, logits = self._read(flat, any(need_all))
        done: list[tuple[int, Completion | Failure]] = []
        at, taken = 0, []
        for row, some in zip(rows, states, strict=True):
            text = self.running[row]
            here, at = at, at + len(some)
            guess = step[1][row] if step else []
            broken = bad[here]
            count = 0
            for place in range(1 + len(guess)):  # a guess counts while the model would have said the same
                if bad[here + place]:
                    break
                token = best[here + place]
                if logits is not None and not text.is_greedy:
                    token = text.choose(logits[here + place])
                text.new.append(token)
                if logits is not None and text.num_top is not None:
                    text.likelihoods.append(likelihood(logits[here + place], token, text.num_top))
                count += 1
                self.owner.num_generated += 1
                if self.watch is not None:
                    self.watch(text.prompt.index, token)
                answer = self._answer(text)
                if answer is not None:
                    done.append((row, answer))
                    break
                if place < len(guess) and token != guess[place]:
                    break
            taken.append(count)
            if broken:
                done.append((row, _NAN))
        if step:
            step[0].accept(taken)
        gone = [(self.running[row], answer) for row, answer in done]
        self._leave(done)
        return gone

    def _answer(self, text: Text) -> Completion | Failure | None:
        """What the text is if it ends with its last token; called after every token."""
        complete = False
        if text.constraint is not None:
            text.constraint.accept(text.new[-1])
            if text.constraint.failure is not None:
                return text.constraint.failure
            complete = text.constraint.is_done
        if complete or self.owner.texts.is_done(text.new, text.decoding):
            return self.owner.texts.finish(text.prompt, text.new, text.decoding, complete=complete)
        return None

    def _read(self, states: Tensor, whole: bool) -> tuple[list[int], list[bool], Tensor | None]:
        """states [N, D] -> the most likely tokens, which rows are no numbers, and all logits [N, V] where asked for."""
        tops, places, parts = [], [], []
        for start, _, logits in self.scorer.head.logits(states):
            top, where = logits.max(dim=1)  # not-a-number is the greatest
            tops.append(top)
            places.append(where + start)
            if whole:
                parts.append(logits)
        best, stretch = torch.stack(tops).max(dim=0)  # of equal ones the first, as in each stretch
        token = torch.stack(places).gather(0, stretch[None])[0]
        bad = best.isnan()
        return token.tolist(), bad.tolist(), torch.cat(parts, dim=1) if whole else None

    def _leave(self, done: Sequence[tuple[int, Completion | Failure]]) -> None:
        """Free the slots of finished texts; the last running ones move into the holes."""
        for row, answer in sorted(done, key=lambda pair: -pair[0]):
            if isinstance(answer, Failure):
                self.slots.clear(row)
            last = len(self.running) - 1
            if row != last:
                self.slots.move(last, row)
                self.running[row] = self.running[last]
            self.running.pop()


def _window(ids: Sequence[int]) -> Window:
    """A prompt as a window of which the token to come would be scored."""
    return Window(np.asarray([*ids, 0], dtype=np.int32), len(ids))


def likelihood(logits: Tensor, token: int, num_top: int) -> Likelihood:
    """Of `token`, from the logits [V] of its row, with the `num_top` most likely tokens beside it."""
    total = logits.logsumexp(0)
    values, which = logits.topk(num_top) if num_top else (logits[:0], logits[:0])
    top = zip(which.tolist(), (values - total).tolist(), strict=True)
    return Likelihood(float(logits[token] - total), tuple((int(one), logprob) for one, logprob in top))


def look_up(ids: Sequence[int], most: int, longest: int = 3) -> list[int]:
    """Prompt lookup (Saxena 2023): the tokens that followed the last occurrence of the text's final n-gram."""
    known = np.asarray(ids)
    for size in range(min(longest, len(known) - 1), 0, -1):
        tail = known[-size:]
        spots = np.flatnonzero(known[: len(known) - size] == tail[0])
        for spot in spots[::-1][:64]:
            if np.array_equal(known[spot : spot + size], tail):
                return [int(token) for token in known[spot + size : spot + size + most]]
    return []
