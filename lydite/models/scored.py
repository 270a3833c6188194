"""From scored windows to answers, the same way for every family of models.

A request is encoded as one or more windows; each is scored when its batch runs, and the answer is made when the last one
is there. Contract: exactly one output for each request; a number that is not finite is a Failure that says why.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np

from lydite.engine.score import Scored
from lydite.types import Failure, LogProbs, Output, Usage

W = TypeVar("W")
W_co = TypeVar("W_co", covariant=True)


class Encoded(Protocol[W_co]):
    """What an encoder makes of a request."""

    @property
    def windows(self) -> Sequence[W_co]: ...

    @property
    def join(self) -> Literal["clean", "spanned"]: ...

    @property
    def num_truncated(self) -> int: ...

    @property
    def num_positions(self) -> int:
        """Token positions that a naive loop would compute."""
        ...


class Scores(Generic[W]):
    """How one model scores: its rule, its scorer, the text of a token, and the tokens that a window scores.

    `computed`: token positions that went through the network so far.
    """

    def __init__(
        self,
        rule: str,
        score: Callable[[Sequence[W]], Iterator[tuple[int, Scored]]],
        scored_ids: Callable[[W], Sequence[int]],
        text_of: Callable[[int], str],
        computed: Callable[[], int],
    ) -> None:
        self.rule = rule
        self.score = score
        self.scored_ids = scored_ids
        self.text_of = text_of
        self.computed = computed

    def answer(self, encoded: Sequence[Encoded[W] | Failure], usage: Usage) -> Iterator[tuple[int, Output]]:
        """Yields (index of the request, its answer) as windows are scored; counts tokens in `usage`."""
        windows: list[W] = []
        owners: list[int] = []
        pending: dict[int, _Pending[W]] = {}
        for index, one in enumerate(encoded):
            if isinstance(one, Failure):
                yield index, one
                continue
            usage.tokens_requested += one.num_positions
            pending[index] = _Pending(one, len(windows))
            windows.extend(one.windows)
            owners.extend([index] * len(one.windows))
        before = self.computed()
        for number, scored in self.score(windows):
            usage.tokens_computed += self.computed() - before
            before = self.computed()
            owner = owners[number]
            if pending[owner].add(number, scored):
                yield owner, self._output(pending.pop(owner))
        assert not pending

    def _output(self, pending: "_Pending[W]") -> Output:
        encoded = pending.encoded
        parts = [part for part in pending.parts if part is not None]
        logprobs = np.concatenate([part.logprobs for part in parts])
        if np.isneginf(logprobs).any() and not np.isnan(logprobs).any():
            return Failure(reason="zero probability")
        if not np.isfinite(logprobs).all():
            return Failure(reason="not a number among the model's log-probabilities")
        return LogProbs(
            tokens=tuple(self.text_of(int(token)) for window in encoded.windows for token in self.scored_ids(window)),
            logprobs=tuple(logprobs.tolist()),
            greedy=all(bool(part.greedy.all()) for part in parts),
            rule=self.rule,
            join=encoded.join,
            num_truncated=encoded.num_truncated,
        )


class _Pending(Generic[W]):
    """A request whose windows are not all scored yet."""

    def __init__(self, encoded: Encoded[W], first: int) -> None:
        self.encoded = encoded
        self.first = first
        self.parts: list[Scored | None] = [None] * len(encoded.windows)
        self.missing = len(encoded.windows)

    def add(self, number: int, scored: Scored) -> bool:
        """Take the answer of window `number`; whether it was the last one."""
        assert self.parts[number - self.first] is None
        self.parts[number - self.first] = scored
        self.missing -= 1
        return self.missing == 0
