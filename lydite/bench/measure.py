"""Measures a model on the machine at hand: prompts of given lengths, so many at a time, and new tokens after them.

Only the Model contract is used, so any model can be measured: a checkpoint, a server, a null model. Requests never share
more than chance has it, because what the engine saves by sharing is a matter of the task, not of the machine.

Contract: each number is the median of its runs; a cell that has no number says why in `note`, and holds None, never 0.
Memory is bounded by the model's own budgets: no more than one cell's requests are open at a time.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import msgspec

from lydite.errors import UserError
from lydite.evaluate import environment
from lydite.process import resident_peak
from lydite.types import Decoding, Failure, GenerateRequest, Model, ModelInfo, Record, Request, ScoreRequest

_WORD_TEXT = (
    "the of and to in is was for it with as his on be at by had not are but from or have an they which one you were her "
    "all she there would their we him been has when who will more no if out so said what up its about into than them "
    "can only other new some could time these two may then do first any my now such like our over man me even most made"
)
_WORDS = _WORD_TEXT.split()
_SAMPLE_WORDS = 64
_TIRED = 4.0
"""Seconds after which a cell is not repeated any more."""

OnProgress = Callable[[int, int, str], None]
"""Hears how many cells of how many are done, and what is measured now."""


class Grid(Record, frozen=True, kw_only=True):
    """What is measured: every length with every batch."""

    batches: tuple[int, ...] = (1, 8, 32)
    """Requests that are handed over at one time."""
    lengths: tuple[int, ...] = (128, 512)
    """Tokens of a prompt (about: words are counted off)."""
    new_tokens: int = 32
    repeats: int = 3


class Cell(Record, frozen=True, kw_only=True):
    """One batch of one length."""

    length: int
    batch: int
    prompt_tokens: float | None = None
    """Mean number of tokens of a prompt as it came out."""
    prefill: float | None = None
    """Prompt tokens a second, when each prompt is scored on one token after it."""
    prefill_fraction: float | None = None
    """Share of the measured matrix peak that this is."""
    first_token: float | None = None
    """Seconds until every prompt of the batch has its first new token."""
    decode: float | None = None
    """New tokens a second after the first, over all rows."""
    decode_fraction: float | None = None
    note: str = ""
    """Why a number is missing."""


class Speeds(Record, frozen=True, kw_only=True):
    """bench.json."""

    schema: int = 1
    model: ModelInfo
    kernel: str = ""
    """Which matrix kernel was chosen, and why."""
    grid: Grid
    load_seconds: float
    matrix_peak: float | None = None
    """Floating-point operations a second of the fastest matrix product here, in the model's dtype."""
    operations: tuple[int, int] | None = None
    """Operations of one token position in the body and in the output head, attention itself left out."""
    cells: tuple[Cell, ...]
    loaded_memory_bytes: int
    """Largest resident size of the process when the model was loaded."""
    peak_memory_bytes: int
    device_memory_bytes: int = 0
    """The most that PyTorch held on a CUDA device."""
    environment: dict[str, str]


@dataclass(frozen=True)
class _Network:
    """What only a model that runs here can say."""

    kernel: str = ""
    peak: float | None = None
    operations: tuple[int, int] | None = None
    device: str = "cpu"


def bench(model: Model, grid: Grid, *, on_progress: OnProgress = lambda done, total, what: None) -> Speeds:
    """Measures every cell of the grid, small ones first. Raises UserError where no cell fits the model."""
    _check(model, grid)
    loaded = resident_peak()
    on_progress(0, len(grid.lengths) * len(grid.batches), "matrix peak")
    network = _network(model)
    probe = _Probe(model, grid, network)
    cells: list[Cell] = []
    order = [(length, batch) for length in sorted(grid.lengths) for batch in sorted(grid.batches)]
    for length, batch in order:
        on_progress(len(cells), len(order), f"{batch} x {length} tokens")
        cells.append(probe.cell(length, batch))
    on_progress(len(cells), len(order), "done")
    return Speeds(
        model=model.info,
        kernel=network.kernel,
        grid=grid,
        load_seconds=model.usage.load_seconds,
        matrix_peak=network.peak,
        operations=network.operations,
        cells=tuple(cells),
        loaded_memory_bytes=loaded,
        peak_memory_bytes=resident_peak(),
        device_memory_bytes=_device_peak(network.device),
        environment=environment(),
    )


def _check(model: Model, grid: Grid) -> None:
    for name, values in (("batches", grid.batches), ("lengths", grid.lengths)):
        if not values or min(values) < 1:
            raise UserError(f"{name} must be whole numbers of 1 or more, with commas between")
    if min(grid.new_tokens, grid.repeats) < 1:
        raise UserError("new_tokens and repeats must be 1 or more")
    if not {"score", "generate"} & set(model.info.can):
        raise UserError(f"{model.info.name} neither scores nor generates text, so there is nothing to measure")
    most = model.info.max_tokens
    # A prompt may come out a little longer than asked, because words are counted off and not tokens.
    if most is not None and max(grid.lengths) * 9 // 8 + grid.new_tokens + 8 > most:
        room = max(0, (most - grid.new_tokens - 8) * 8 // 9)
        raise UserError(f"{model.info.name} holds {most} tokens; choose --lengths of {room} at most")


class _Probe:
    """Makes requests and times a model on them."""

    def __init__(self, model: Model, grid: Grid, network: _Network) -> None:
        self.model = model
        self.grid = grid
        self.network = network
        self.numbers = itertools.count()
        self.words_a_token = 1.0
        if "score" in model.info.can:
            self._calibrate()

    def _calibrate(self) -> None:
        """How many of our words are a token; the same request warms the model up."""
        before = self.model.usage.tokens_requested
        self._run([self._score(_SAMPLE_WORDS)])
        tokens = self.model.usage.tokens_requested - before
        if tokens:
            self.words_a_token = _SAMPLE_WORDS / tokens

    def cell(self, length: int, batch: int) -> Cell:
        words = max(1, round(length * self.words_a_token))
        found = Cell(length=length, batch=batch)
        try:
            if "score" in self.model.info.can:
                found = self._prefill(found, words)
            if "generate" in self.model.info.can:
                found = self._decode(found, words)
        except _Failed as failed:
            found = _with(found, note=str(failed))
        return found

    def _prefill(self, cell: Cell, words: int) -> Cell:
        runs = list(self._repeat(lambda: [self._score(words) for _ in range(cell.batch)]))
        speed = median(run.tokens / run.seconds for run in runs)
        tokens = median(run.tokens for run in runs) / cell.batch
        share = None
        if self.network.operations and self.network.peak:
            body, head = self.network.operations
            share = speed * (body + head / tokens) / self.network.peak
        return _with(cell, prompt_tokens=tokens, prefill=speed, prefill_fraction=share)

    def _decode(self, cell: Cell, words: int) -> Cell:
        first = list(self._repeat(lambda: [self._generate(words, 1) for _ in range(cell.batch)]))
        longer = 1 + self.grid.new_tokens
        whole = list(self._repeat(lambda: [self._generate(words, longer) for _ in range(cell.batch)]))
        start = median(run.seconds for run in first)
        seconds = median(run.seconds for run in whole) - start
        tokens = median(run.new for run in whole) - median(run.new for run in first)
        if tokens <= 0:
            return _with(cell, first_token=start, note="the model ends its text at once")
        if seconds <= 0:
            return _with(cell, first_token=start, note="too fast to tell; ask for more --new-tokens")
        speed, share = tokens / seconds, None
        if self.network.operations and self.network.peak:
            share = speed * sum(self.network.operations) / self.network.peak
        return _with(cell, first_token=start, decode=speed, decode_fraction=share)

    def _repeat(self, make: Callable[[], list[Request]]) -> Iterator["_Timed"]:
        """Runs on requests that are new each time, until it was often or long enough."""
        spent = 0.0
        for _ in range(self.grid.repeats):
            done = self._run(make())
            spent += done.seconds
            yield done
            if spent > _TIRED:
                return

    def _run(self, requests: Sequence[Request]) -> "_Timed":
        usage = self.model.usage
        requested, computed, new = usage.tokens_requested, usage.tokens_computed, usage.tokens_generated
        start = time.perf_counter()
        for _, output in self.model.answer(requests):
            if isinstance(output, Failure):
                raise _Failed(output.reason)
        seconds = max(time.perf_counter() - start, 1e-9)
        # A model that does not say what it computed is taken at what it was asked.
        tokens = (usage.tokens_computed - computed) or (usage.tokens_requested - requested)
        return _Timed(seconds, max(tokens, 1), usage.tokens_generated - new)

    def _text(self, words: int) -> tuple[str, str]:
        """An id and a text that was not there before."""
        name = f"bench-{next(self.numbers)}"
        return name, " ".join(random.Random(name).choices(_WORDS, k=words))

    def _score(self, words: int) -> ScoreRequest:
        name, text = self._text(words)
        return ScoreRequest(sample_id=name, index=0, context=text, continuation=" the")

    def _generate(self, words: int, new_tokens: int) -> GenerateRequest:
        name, text = self._text(words)
        return GenerateRequest(sample_id=name, index=0, prompt=text, decoding=Decoding(max_new_tokens=new_tokens))


class _Failed(Exception):
    """A request that the model could not answer, with its reason."""


@dataclass(frozen=True)
class _Timed:
    seconds: float
    tokens: int
    new: int


def _with(cell: Cell, **changes: object) -> Cell:
    return msgspec.structs.replace(cell, **changes)


def _network(model: Model) -> _Network:
    """Kernel, operations and the machine's peak, for a transformers model that runs in this process."""
    if model.info.family != "causal":
        return _Network()
    from lydite.engine.peak import matrix_peak, product_weights
    from lydite.models.causal import CausalModel

    if not isinstance(model, CausalModel):
        return _Network()
    network = model.scorer.model
    weights, device = product_weights(network), str(network.device)
    operations = None if weights is None else (2 * weights[0], 2 * weights[1])
    return _Network(model.kernel, matrix_peak(network.dtype, device), operations, device)


def _device_peak(device: str) -> int:
    if not device.startswith("cuda"):
        return 0
    from lydite.engine.peak import device_peak_bytes

    return device_peak_bytes(device)
