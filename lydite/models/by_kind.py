"""What models of several families share: requests go to whoever answers their kind, and the generator's counts to the usage."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from transformers import PreTrainedModel

from lydite.engine.reader import Reader
from lydite.types import Failure, ModelInfo, Output, Request, Usage

Answerer = Callable[[list[Any]], Iterable[tuple[int, Output]]]
"""Requests of one kind to (index among them, output)."""


def by_kind(requests: Sequence[Request], answerers: Mapping[type, Answerer], who: str) -> Iterator[tuple[int, Output]]:
    """Exactly one (position, output) for each request, as they come; a kind that nobody answers fails by the name `who`."""
    places: dict[type, list[int]] = {kind: [] for kind in answerers}
    for index, request in enumerate(requests):
        if type(request) in places:
            places[type(request)].append(index)
        else:
            yield index, Failure(reason=f"{who} cannot answer a {type(request).__name__}")
    for kind, answer in answerers.items():
        if places[kind]:
            for number, output in answer([requests[index] for index in places[kind]]):
                yield places[kind][number], output


class Counts(Protocol):
    """What a generator counted so far."""

    num_requested: int
    num_computed: int
    num_generated: int


def counted(answers: Iterable[tuple[int, Output]], counts: Counts, usage: Usage) -> Iterator[tuple[int, Output]]:
    """The answers of a generator, what they cost added to `usage` as they come."""
    requested, computed, generated = counts.num_requested, counts.num_computed, counts.num_generated
    for index, output in answers:
        usage.tokens_requested += counts.num_requested - requested
        usage.tokens_computed += counts.num_computed - computed
        usage.tokens_generated += counts.num_generated - generated
        requested, computed, generated = counts.num_requested, counts.num_computed, counts.num_generated
        yield index, output


class ReadModel:
    """The part that is alike in models that run their network through a Reader."""

    def __init__(self, info: ModelInfo, reader: Reader) -> None:
        self.info = info
        self.usage = Usage(kernel=f"{reader.kernel.name} ({reader.kernel.reason})")
        self._reader = reader

    def network(self) -> PreTrainedModel:
        """The transformers model with its ordinary layers, fit for training; what inference had changed is undone."""
        self._reader.restore()
        return self._reader.model
