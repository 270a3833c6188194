"""Run a plan: log-probabilities at scored positions only.

The network's backbone runs over packed batches (or, where an architecture cannot be packed, over plain padded ones),
hidden states are gathered at scored rows, and the output head is applied to them in chunks with a running log-sum-exp
in float32, so that memory grows with neither vocabulary x positions nor the number of requests.

Nothing is assumed of an architecture: when a Scorer is made, one small packed tree is scored and compared with the
model's own forward. A difference, a refusal, or an attention function that is never called selects the plain path;
a difference in the head alone selects the model's own logits. The results are the same, only slower.

Contract: `score` yields each window exactly once, as (index, Scored); a number that is not finite after its window was
computed by itself stays in Scored for the caller to report, and never touches other windows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lydite.engine import attention
from lydite.engine.budget import prefix_bytes
from lydite.engine.head import Head, OwnLogits
from lydite.engine.linear import Choice, Kernel, choose_kernel
from lydite.engine.plan import Batch, Keep, make_plan
from lydite.engine.prefixes import PrefixCache
from lydite.engine.probe import close, depends_on_neighbours, in_float32, probe_windows
from lydite.engine.products import Products
from lydite.engine.tokens import Window

_OWN_LOGITS = 64_000_000
"""Logits of a batch where the model's own head must be used (256 MB in float32)."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What one window got: for each scored token its log-probability (nats) and whether it is the most likely one."""

    logprobs: npt.NDArray[np.float64]
    greedy: npt.NDArray[np.bool_]

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.logprobs).all())


class Scorer:
    """Scores windows with one transformers decoder.

    `batch_tokens`: rows of a forward pass; `plain=True` never packs.
    """

    def __init__(self, model: PreTrainedModel, *, batch_tokens: int, plain: bool = False) -> None:
        self.model = model
        self.backbone = model.base_model
        self.config: dict[str, Any] = model.config.get_text_config().to_dict()
        self.head: Head = Head(model)
        self.batch_tokens = batch_tokens
        self.prefixes = PrefixCache(max_bytes=prefix_bytes(str(model.device)))
        self.num_computed = 0
        """Token positions that went through the network so far."""
        self.products = Products()
        self.path = "plain"
        self.reason = "asked for" if plain else ""
        """Why the plain path was chosen."""
        self.one_by_one = depends_on_neighbours(self.config)
        if self.one_by_one:
            self.reason = "rotary embeddings stretch with the longest sequence of a batch"
        self._probe()
        self.num_computed = 0
        self.prefixes.clear()
        self.kernel = Kernel("default", "nothing else was tried")

    def use_kernel(self, choice: Choice) -> None:
        """Choose the matrix kernel (see linear.py); `restore` undoes it."""
        self.kernel = choose_kernel(self.model, choice)
        self.products = Products(allowed=choice != "default")
        self._refresh_head()

    def restore(self) -> None:
        """Give the model its ordinary layers back, as training needs them; scoring goes on, slower."""
        self.kernel.restore()
        self._refresh_head()

    @property
    def can_decode(self) -> bool:
        """Whether decode.py can run the model step by step."""
        return self.path == "packed"

    def _refresh_head(self) -> None:
        self.prefixes.clear()
        if not isinstance(self.head, OwnLogits):
            self.head.module = self.model.get_output_embeddings()

    # ------------------------------------------------------------------------------- the probe

    def _probe(self) -> None:
        for stretches in (True, False):
            with in_float32(self.model, stretches=stretches) as dtype:
                if self._is_head_right(dtype):
                    if not self.reason:
                        self._check_packing(dtype)
                    return
        self.head = OwnLogits(self.head.vocab_size)
        self.batch_tokens = max(1, min(self.batch_tokens, _OWN_LOGITS // self.head.vocab_size))
        with in_float32(self.model) as dtype:
            if not self.reason:
                self._check_packing(dtype)

    def _is_head_right(self, dtype: torch.dtype) -> bool:
        """Compare our head on the backbone's states with the model's own logits, which are used where they differ."""
        ids = torch.from_numpy(probe_windows(self.config)[0].ids[:6])[None].long().to(self.model.device)
        try:
            with torch.inference_mode():
                states = self.forward(ids)
                ours = torch.cat([logits for _, _, logits in self.head.logits(states)], dim=1)
                theirs = self.model(input_ids=ids, use_cache=False).logits[0].float()
            return ours.shape == theirs.shape and close(ours.log_softmax(-1), theirs.log_softmax(-1), dtype)
        except (AttributeError, TypeError, ValueError, RuntimeError):
            return False

    def _check_packing(self, dtype: torch.dtype) -> None:
        """Score the probe packed (in batches of 16 rows, so that pieces are kept) and plain; choose."""
        windows = probe_windows(self.config)
        budget, self.batch_tokens = self.batch_tokens, 16
        try:
            packed = dict(self._score_packed(windows, share=True))
        except (
            attention.Unsupported,
            AttributeError,
            TypeError,
            ValueError,
            RuntimeError,
            KeyError,
            IndexError,
        ) as error:
            self.reason = f"{type(error).__name__}: {error}".splitlines()[0]
            return
        finally:
            self.batch_tokens = budget
        plain = dict(self._score_plain(windows))
        pairs = [(packed[i].logprobs, plain[i].logprobs) for i in range(len(windows))]
        ours, theirs = (torch.from_numpy(np.concatenate(side)) for side in zip(*pairs, strict=True))
        if close(ours, theirs, dtype):
            self.path = "packed"
        else:
            self.reason = "packed and plain log-probabilities differ"

    # ------------------------------------------------------------------------------- forward passes

    def forward(self, ids: Tensor, **more: Any) -> Tensor:
        """ids [B, T] -> states [B * T, D] (or the model's own logits)."""
        with torch.inference_mode():
            if isinstance(self.head, OwnLogits):
                out = self.model(input_ids=ids, use_cache=False, **more).logits
            else:
                out = self.backbone(input_ids=ids, use_cache=False, **more).last_hidden_state
        flat: Tensor = out.reshape(-1, out.shape[-1])
        return flat

    def forward_packed(self, batch: Batch, store: attention.Store) -> Tensor:
        """One batch of a plan -> states [rows, D]; the model must be attached."""
        device = self.model.device
        ids = torch.from_numpy(batch.ids)[None].to(device)
        positions = torch.from_numpy(batch.positions)[None].to(device)
        tree_pass = attention.TreePass(batch, store, self.products)
        with attention.active(tree_pass):
            states = self.forward(ids, position_ids=positions)
        if tree_pass.layer == 0:
            raise attention.Unsupported("the model never calls its attention function")
        for piece in batch.drops:
            store.drop(piece)
        return states

    # ------------------------------------------------------------------------------- scoring

    def score(self, windows: Sequence[Window]) -> Iterator[tuple[int, Scored]]:
        """Yields (index, Scored) as batches finish."""
        broken: list[int] = []
        run = self._score_packed(windows, share=True) if self.path == "packed" else self._score_plain(windows)
        for index, scored in run:
            if scored.is_finite or self.path == "plain":
                yield index, scored
            else:  # not-a-number spreads inside a block, so find out whose it is
                broken.append(index)
        if broken:
            for index, scored in self._score_packed([windows[i] for i in broken], share=False):
                yield broken[index], scored

    def _score_packed(self, windows: Sequence[Window], *, share: bool) -> Iterator[tuple[int, Scored]]:
        tally = _Tally(windows)
        cached = self.prefixes.find(windows) if share else []
        kept: dict[tuple[int, int], attention.Layers] = {}

        def take(keep: Keep, layer: int, keys: Tensor, values: Tensor) -> None:
            kept.setdefault((keep.path, keep.stop), []).append((keys.clone(), values.clone()))

        store = attention.Store([layers for _, layers in cached], take)
        plan = make_plan(
            windows,
            batch_tokens=self.batch_tokens,
            share=share,
            cached=[ids for ids, _ in cached],
            keep="shared" if share else "nothing",
        )
        for batch in plan:
            with attention.attached(self.model):
                states = self.forward_packed(batch, store)
            self.num_computed += len(batch.ids)
            reads = [(r.path, r.slot, r.row, r.count) for r in batch.reads]
            yield from self._read(states, reads, tally)
            for keep in batch.keeps:
                self.prefixes.put(
                    windows[keep.path].ids[: keep.stop].astype(np.int64), kept.pop((keep.path, keep.stop))
                )
        assert not len(store)

    def _score_plain(self, windows: Sequence[Window]) -> Iterator[tuple[int, Scored]]:
        """Right-padded batches of like lengths; equal inputs are computed once."""
        inputs: dict[tuple[int, ...], list[int]] = {}
        for index, window in enumerate(windows):
            inputs.setdefault(tuple(int(token) for token in window.ids[:-1]), []).append(index)
        queue = sorted(inputs, key=len)
        tally = _Tally(windows)
        while queue:
            width = len(queue[-1])
            count = 1 if self.one_by_one else max(1, self.batch_tokens // width)
            rows = [queue.pop() for _ in range(min(count, len(queue)))]
            ids = torch.zeros(len(rows), width, dtype=torch.int64)
            mask = torch.zeros_like(ids)
            reads = []
            for number, row in enumerate(rows):
                ids[number, : len(row)] = torch.tensor(row)
                mask[number, : len(row)] = 1
                for index in inputs[row]:
                    first = windows[index].first - 1
                    reads.append((index, 0, number * width + first, len(row) - first))
            states = self.forward(ids.to(self.model.device), attention_mask=mask.to(self.model.device))
            self.num_computed += int(mask.sum())
            yield from self._read(states, reads, tally)

    def _read(
        self, states: Tensor, reads: Sequence[tuple[int, int, int, int]], tally: "_Tally"
    ) -> Iterator[tuple[int, Scored]]:
        """Apply the head to the rows that are read; yields the windows that are complete."""
        if not reads:
            return
        rows = np.concatenate([np.arange(row, row + count) for _, _, row, count in reads])
        tokens = np.concatenate([tally.tokens(path, slot, count) for path, slot, _, count in reads])
        order = np.argsort(rows, kind="stable")
        with torch.inference_mode():
            device = states.device
            found = self.head.read(
                states, torch.from_numpy(rows[order]).to(device), torch.from_numpy(tokens[order]).to(device)
            )
        logprobs, greedy = np.empty(len(rows)), np.empty(len(rows), dtype=np.bool_)
        logprobs[order], greedy[order] = found[0].cpu().numpy(), found[1].cpu().numpy()
        done = 0
        for path, slot, _, count in reads:
            scored = tally.add(path, slot, logprobs[done : done + count], greedy[done : done + count])
            done += count
            if scored is not None:
                yield path, scored


class _Tally:
    """Collects the pieces of each window's answer until it is complete."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._targets = [np.asarray(window.ids[window.first :], dtype=np.int64) for window in windows]
        self._missing = [len(targets) for targets in self._targets]
        self._parts: list[Scored | None] = [None] * len(windows)

    def tokens(self, path: int, slot: int, count: int) -> npt.NDArray[np.int64]:
        return self._targets[path][slot : slot + count]

    def add(
        self, path: int, slot: int, logprobs: npt.NDArray[np.float64], greedy: npt.NDArray[np.bool_]
    ) -> Scored | None:
        """The finished answer, or None while tokens are missing."""
        part = self._parts[path]
        if part is None:
            size = len(self._targets[path])
            part = self._parts[path] = Scored(np.full(size, np.nan), np.zeros(size, dtype=np.bool_))
        part.logprobs[slot : slot + len(logprobs)] = logprobs
        part.greedy[slot : slot + len(greedy)] = greedy
        self._missing[path] -= len(logprobs)
        assert self._missing[path] >= 0
        if self._missing[path]:
            return None
        self._parts[path] = None
        return part
