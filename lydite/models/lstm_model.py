"""LSTM checkpoints (lstm.py) that answer score and generate requests.

A state is all that an LSTM remembers, so it does what a cache of keys and values does elsewhere, at a fixed size: what
stands before the scored tokens is read once for all requests that share it, and a text of any length is read in pieces
with the state carried from one to the next, so there is no longest text and no windows.

Contract: the rule is `causal`, as for any left-to-right network; numbers do not depend on how a text was cut into pieces
or what was read beside it, beyond rounding.

B: rows; D: width of a state; V: vocabulary.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from torch import Tensor

from lydite.engine.head import Head
from lydite.engine.texts import Texts
from lydite.engine.tokens import Encoded, Encoder
from lydite.errors import ModelError
from lydite.models.by_kind import Answerer, by_kind
from lydite.models.lstm import LyditeLSTMForCausalLM, State
from lydite.models.stepwise import (
    StepSettings,
    answer_of,
    make_encoder,
    quiet,
    read_settings,
    read_tokenizer,
    write_texts,
)
from lydite.types import Failure, GenerateRequest, ModelInfo, Output, Request, ScoreRequest, Usage

PIECE = 256
"""Steps that are read at one time."""
ROWS = 64
"""Texts that are read beside each other."""


class LSTMModel:
    """Answers ScoreRequests and GenerateRequests with one LSTM."""

    def __init__(self, info: ModelInfo, network: LyditeLSTMForCausalLM, encoder: Encoder) -> None:
        self.info = info
        self.usage = Usage()
        self.encoder = encoder
        self.reader = Reader(network)
        self.texts = Texts(network, encoder)

    def network(self) -> LyditeLSTMForCausalLM:
        """The network itself, fit for training."""
        return self.reader.network

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one (position, output) for each request, as batches finish."""
        answerers: dict[type, Answerer] = {
            ScoreRequest: self._score,
            GenerateRequest: lambda own: write_texts(own, self.texts, _Steps(self.reader), self.usage),
        }
        return by_kind(requests, answerers, "an LSTM language model")

    def _score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, Output]]:
        """Contexts first, each distinct one once; then the continuations from the states that they left."""
        groups: dict[bytes, list[_Asked]] = {}
        for index, encoded in enumerate(self.encoder.encode(requests)):
            if isinstance(encoded, Failure):
                yield index, encoded
                continue
            self.usage.tokens_requested += encoded.num_positions
            [window] = encoded.windows  # there is no longest text
            asked = _Asked(index, encoded, window.ids[: window.first], window.ids[window.first :])
            groups.setdefault(asked.context.tobytes(), []).append(asked)
        contexts = sorted(groups.values(), key=lambda group: len(group[0].context))
        for start in range(0, len(contexts), ROWS):
            some = contexts[start : start + ROWS]
            states, last = self.reader.read([group[0].context for group in some])
            self.usage.tokens_computed += sum(len(group[0].context) for group in some)
            rows = [(row, asked) for row, group in enumerate(some) for asked in group]
            rows.sort(key=lambda pair: len(pair[1].scored))
            for at in range(0, len(rows), ROWS):
                yield from self._continue(rows[at : at + ROWS], states, last)

    def _continue(
        self, rows: Sequence[tuple[int, "_Asked"]], states: State, last: Tensor
    ) -> Iterator[tuple[int, Output]]:
        """The answers of requests whose contexts were read: `rows` of their states."""
        which = torch.tensor([row for row, _ in rows], device=last.device)
        texts = [asked.scored for _, asked in rows]
        self.usage.tokens_computed += sum(len(text) - 1 for text in texts)
        found = self.reader.score(texts, pick(states, which), last[which])
        for (_, asked), (logprobs, greedy) in zip(rows, found, strict=True):
            tokens = self.encoder.texts_of(asked.scored.tolist())
            yield asked.index, answer_of(asked.encoded, tokens, logprobs.tolist(), greedy=greedy, rule=self.info.rule)


@dataclass(frozen=True)
class _Asked:
    """A request, cut where scoring starts."""

    index: int
    encoded: Encoded
    context: npt.NDArray[np.int32]
    scored: npt.NDArray[np.int32]


class Reader:
    """Reads batches of texts with one network, in pieces."""

    def __init__(self, network: LyditeLSTMForCausalLM) -> None:
        self.network = network
        self.head = Head(network)

    def read(self, texts: Sequence[npt.NDArray[np.int32]]) -> tuple[State, Tensor]:
        """The states after the texts, and what the last layer says of their last tokens [B, D]."""
        state: State | None = None
        last: Tensor | None = None
        for values, after, lengths in self._pieces(texts, None):
            state = after
            here = values[torch.arange(len(values)), (lengths - 1).clamp(min=0)]
            last = here if last is None else torch.where((lengths > 0)[:, None], here, last)
        assert state is not None
        assert last is not None
        return state, last

    def score(
        self, texts: Sequence[npt.NDArray[np.int32]], state: State, last: Tensor
    ) -> list[tuple[npt.NDArray[np.float64], bool]]:
        """For each text its log-probabilities and whether all its tokens are the most likely ones, given what was read
        before: `state`, and `last` [B, D] of the token before its first."""
        found: list[list[float]] = [[] for _ in texts]
        greedy = [True] * len(texts)

        def take(states: Tensor, rows: Sequence[int], tokens: Sequence[int]) -> None:
            numbers, best = self.head.read(
                states,
                torch.arange(len(states), device=states.device),
                torch.tensor(tokens, dtype=torch.int64, device=states.device),
            )
            for row, number, is_best in zip(rows, numbers.tolist(), best.tolist(), strict=True):
                found[row].append(number)
                greedy[row] &= is_best

        with torch.inference_mode():
            take(last, range(len(texts)), [int(text[0]) for text in texts])
        done = 0
        for values, _, lengths in self._pieces([text[:-1] for text in texts], state):
            sizes = lengths.tolist()
            rows = [row for row, size in enumerate(sizes) for _ in range(size)]
            tokens = [int(t) for text, size in zip(texts, sizes, strict=True) for t in text[done + 1 : done + 1 + size]]
            with torch.inference_mode():
                take(torch.cat([values[row, :size] for row, size in enumerate(sizes)]), rows, tokens)
            done += PIECE
        return [(np.array(numbers, dtype=np.float64), best) for numbers, best in zip(found, greedy, strict=True)]

    def _pieces(
        self, texts: Sequence[npt.NDArray[np.int32]], state: State | None
    ) -> Iterator[tuple[Tensor, State, Tensor]]:
        """(last layer [B, t, D], states after it, real tokens of each row [B]) for one piece after the other.

        A row whose text has ended keeps its state and has no tokens.
        """
        network = self.network.lstm.eval()
        device = network.embedding.weight.device
        for start in range(0, max(map(len, texts)), PIECE):
            sizes = torch.tensor([min(PIECE, max(0, len(text) - start)) for text in texts])
            live = torch.nonzero(sizes).flatten()
            ids = torch.zeros(len(live), int(sizes.max()), dtype=torch.int64)
            for row, number in enumerate(live.tolist()):
                piece = texts[number][start : start + PIECE]
                ids[row, : len(piece)] = torch.from_numpy(np.asarray(piece, dtype=np.int64))
            mask = torch.arange(ids.shape[1])[None] < sizes[live][:, None]
            with torch.inference_mode():
                out = network(ids.to(device), None if state is None else pick(state, live.to(device)), mask.to(device))
                state = put(state, out.state, live.to(device), len(texts))
                values = out.last_hidden_state.new_zeros(len(texts), *out.last_hidden_state.shape[1:])
                values[live] = out.last_hidden_state
            yield values, state, sizes.to(device)


def pick(state: State, rows: Tensor) -> State:
    """The states of some rows."""
    return tuple((h[rows], c[rows]) for h, c in state)


def put(state: State | None, new: State, rows: Tensor, size: int) -> State:
    """`state` of `size` rows with the states of `rows` made new."""
    if state is None:
        assert len(rows) == size, "every text begins with a token"
        return new
    return tuple(
        (h.index_copy(0, rows, one), c.index_copy(0, rows, two)) for (h, c), (one, two) in zip(state, new, strict=True)
    )


class _Steps:
    """Texts as an LSTM sees them: their states."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.state: State = ()

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        self.state, last = self.reader.read([np.asarray(prompt, dtype=np.int32) for prompt in prompts])
        return self._logits(last)

    def step(self, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
        network = self.reader.network.lstm
        device = network.embedding.weight.device
        out = network(torch.tensor(tokens, device=device)[:, None], pick(self.state, torch.tensor(rows, device=device)))
        self.state = out.state
        return self._logits(out.last_hidden_state[:, 0])

    def _logits(self, states: Tensor) -> Tensor:
        return torch.cat([part for _, _, part in self.reader.head.logits(states)], dim=1)


# ------------------------------------------------------------------------------------------- loading

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


def load_lstm(
    folder: Path,
    *,
    name: str,
    source: str,
    dtype: str = "float32",
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> LSTMModel:
    """The LSTM in a checkpoint folder. Raises ModelError where it cannot be used."""
    chosen = read_settings(settings, StepSettings, "an LSTM")
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    tokenizer = read_tokenizer(folder)
    try:
        with quiet():
            network, report = LyditeLSTMForCausalLM.from_pretrained(
                str(folder), dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        network = network.eval().requires_grad_(False).to(device)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the LSTM in {folder} cannot be read: {line}") from error
    missing = sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
    if missing:
        raise ModelError(f"{folder} lacks the weight {missing[0]}; fetch or train the model again")
    if len(tokenizer) > network.config.vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens and the network {network.config.vocab_size}"
        )
    encoder = make_encoder(tokenizer, chosen)
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    info = ModelInfo(
        name=name,
        family="lstm",
        rule="causal",
        can=("score", "generate"),
        parameters=network.num_parameters(),
        dtype=str(network.dtype).removeprefix("torch."),
        fingerprint=digest.hexdigest()[:16],
        source=source,
        settings=encoder.settings,
    )
    return LSTMModel(info, network, encoder)
