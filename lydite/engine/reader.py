"""States before a model's output head, for networks that are run whole: encoders, encoder-decoders, XLNet.

A network of transformers ends in a linear layer over the vocabulary. While a batch runs, a `Catch` stands in its place: it
keeps the states that the layer would have been given (so whatever the model does to them before, a transform, a norm, a
scale, is done by the model itself) and hands on a single number. The head is then applied to the rows that are read, in
stretches of the vocabulary (head.py), so that logits exist only where a token is scored.

Contract: when a Reader is made, a probe is read so and compared with the model's own logits; a difference (a bias added
behind the head, as in Marian) selects the model's own logits, with the same results. Nothing is left changed in the model.

B: sequences, T: tokens of each, D: width of the states, V: size of the vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lydite.engine.head import Head, OwnLogits
from lydite.engine.linear import Choice, Kernel, choose_kernel
from lydite.engine.probe import close, in_float32
from lydite.engine.score import Scored

OWN_LOGITS = 64_000_000
"""Logits of a batch where the model's own head must be used (256 MB in float32)."""
WASTE = 16
"""A batch ends before padding is one part in so many of it."""


class Catch(nn.Module):
    """Stands in the place of an output head and keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.states: Tensor | None = None

    def forward(self, states: Tensor) -> Tensor:
        """states [B, T, D] -> one zero, which broadcasts over whatever the model does next."""
        self.states = states
        return states.new_zeros(1, 1, 1)


@dataclass(frozen=True, slots=True)
class Place:
    """A token to be read: `row` of the batch's states [B * T], the token, and where its number goes."""

    row: int
    token: int
    owner: int
    slot: int


class Reader:
    """Runs one network and reads log-probabilities from its states.

    `probe`: keyword arguments of a small batch [B, T] that the network accepts; `batch_tokens`: rows of a batch.
    """

    def __init__(self, model: PreTrainedModel, probe: Mapping[str, Any], *, batch_tokens: int) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        self.num_computed = 0
        """Token positions that went through the network so far."""
        self.kernel = Kernel("default", "nothing else was tried")
        self.head: Head = Head(model)
        with in_float32(model) as dtype:
            good = self._agrees(probe, dtype)
        if not good:
            self.head = OwnLogits(self.head.vocab_size)
            self.batch_tokens = max(1, min(batch_tokens, OWN_LOGITS // self.head.vocab_size))

    def _agrees(self, probe: Mapping[str, Any], dtype: torch.dtype) -> bool:
        if self.head.module is None:
            return False
        try:
            states = self.states(probe)
            ours = torch.cat([logits for _, _, logits in self.head.logits(states)], dim=1)
            with torch.inference_mode():
                theirs = self._run(probe).logits.float()
            theirs = theirs.reshape(-1, theirs.shape[-1])
            return ours.shape == theirs.shape and close(ours.log_softmax(-1), theirs.log_softmax(-1), dtype)
        except (AttributeError, TypeError, ValueError, RuntimeError):
            return False

    # ---------------------------------------------------------------------------------------- kernels

    def use_kernel(self, choice: Choice) -> None:
        """Choose the matrix kernel (see linear.py); `restore` undoes it."""
        self.kernel = choose_kernel(self.model, choice)
        self._refresh_head()

    def restore(self) -> None:
        """Give the model its ordinary layers back, as training needs them; scoring goes on, slower."""
        self.kernel.restore()
        self._refresh_head()

    def _refresh_head(self) -> None:
        if not isinstance(self.head, OwnLogits):
            self.head.module = self.model.get_output_embeddings()

    # ---------------------------------------------------------------------------------------- running

    def _run(self, inputs: Mapping[str, Any]) -> Any:
        device = self.model.device
        moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in inputs.items()}
        return self.model(**moved)

    def states(self, inputs: Mapping[str, Any]) -> Tensor:
        """Keyword arguments of the network -> states before its head [B * T, D] (or its own logits [B * T, V])."""
        with torch.inference_mode():
            if isinstance(self.head, OwnLogits):
                out: Tensor = self._run(inputs).logits
                return out.reshape(-1, out.shape[-1])
            head = self.head.module
            assert head is not None
            names = [name for name, module in self.model.named_modules(remove_duplicate=False) if module is head]
            catch = Catch()
            for name in names:
                self.model.set_submodule(name, catch)
            try:
                self._run(inputs)
            finally:
                for name in names:
                    self.model.set_submodule(name, head)
            if catch.states is None:
                raise ValueError("the network never calls its output head")
            return catch.states.reshape(-1, catch.states.shape[-1])

    def read(self, states: Tensor, places: Sequence[Place]) -> list[tuple[float, bool]]:
        """(log-probability in nats, whether it is the most likely token) of each place."""
        rows = np.asarray([place.row for place in places], dtype=np.int64)
        order = np.argsort(rows, kind="stable")
        tokens = np.asarray([place.token for place in places], dtype=np.int64)
        device = states.device
        with torch.inference_mode():
            logprobs, greedy = self.head.read(
                states, torch.from_numpy(rows[order]).to(device), torch.from_numpy(tokens[order]).to(device)
            )
        found: list[tuple[float, bool]] = [(0.0, False)] * len(places)
        for place, value, top in zip(order.tolist(), logprobs.tolist(), greedy.tolist(), strict=True):
            found[place] = (value, top)
        return found


class Tally:
    """Collects the numbers of each window until all of its scored tokens have theirs."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._parts = [Scored(np.full(size, np.nan), np.zeros(size, dtype=np.bool_)) for size in sizes]
        self._missing = list(sizes)

    def add(self, owner: int, slot: int, logprob: float, greedy: bool) -> Scored | None:
        """The finished answer of `owner`, or None while tokens are missing."""
        part = self._parts[owner]
        part.logprobs[slot], part.greedy[slot] = logprob, greedy
        self._missing[owner] -= 1
        assert self._missing[owner] >= 0
        return None if self._missing[owner] else part


def like_lengths(lengths: Sequence[int], budget: int, most: int | None = None) -> list[list[int]]:
    """Indices in batches of like lengths, longest first: rows x longest within `budget`, little of it padding.

    `most`: rows of a batch at most. A single sequence longer than the budget is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    width, filled = 0, 0
    for index in order:
        size = lengths[index]
        batch = batches[-1] if batches else []
        area = (len(batch) + 1) * width
        full = not batch or area > budget or (most is not None and len(batch) >= most)
        if full or WASTE * (area - filled - size) > area:
            batches.append([index])
            width, filled = max(size, 1), size
        else:
            batch.append(index)
            filled += size
    return batches


def padded(rows: Sequence[npt.NDArray[np.int32]], pad: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Ids [B, T], padded on the right (or left), and the mask of what is no padding [B, T]."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        here = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, here] = torch.from_numpy(row.astype(np.int64))
        mask[number, here] = 1
    return ids, mask
