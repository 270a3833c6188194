"""The key/value store of texts that are being generated, and the attention of a decoding step.

Every running text has a slot: the keys and values of its own tokens, layer by layer. What all texts of a group begin
with (the `shared` prefix: instructions, shots) is stored once and attended to by all of them in one product. Memory is
asked for once and becomes real only where something is written.

Contract: slots [0, B) are the running ones; a row attends to the shared prefix, to its slot, and to nothing else.

Shapes: B running texts, m new tokens of each, H query heads, G query heads for each key head, D head width,
P tokens of the shared prefix, L tokens of the longest slot.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lydite.engine.attention import Layers, Rule

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""What scaled_dot_product_attention runs on CPUs; called by its own name because it gives the log-sum-exp too."""


class Slots:
    """`rows` slots of `width` tokens each."""

    def __init__(self, rows: int, width: int, shared: Layers | None = None, num_shared: int = 0) -> None:
        self.rows = rows
        self.width = width
        self.shared = shared
        self.num_shared = num_shared
        self.lengths = np.zeros(rows, dtype=np.int64)
        """[rows]: tokens in each slot, the shared prefix not counted."""
        self._layers: list[tuple[Tensor, Tensor]] = []  # [rows, H/G, width, D]

    def write(self, row: int, layer: int, keys: Tensor, values: Tensor) -> None:
        """Fill a slot with a prompt's keys and values [H/G, tokens, D], shared prefix included."""
        if layer == len(self._layers):  # zeros, not empty: what is masked must be finite
            self._layers.append(
                tuple(t.new_zeros(self.rows, t.shape[0], self.width, t.shape[2]) for t in (keys, values))  # type: ignore[arg-type]
            )
        own = keys.shape[1] - self.num_shared
        self._layers[layer][0][row, :, :own] = keys[:, self.num_shared :]
        self._layers[layer][1][row, :, :own] = values[:, self.num_shared :]
        self.lengths[row] = own

    def read(self, row: int) -> Layers:
        """A copy of a slot's keys and values [H/G, tokens, D], layer by layer, the shared prefix left out."""
        size = int(self.lengths[row])
        return [(keys[row, :, :size].clone(), values[row, :, :size].clone()) for keys, values in self._layers]

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        """Keys and values of all slots, [rows, H/G, width, D]."""
        return self._layers[number]

    def move(self, source: int, target: int) -> None:
        """A text moves to another slot."""
        size = int(self.lengths[source])
        for keys, values in self._layers:
            keys[target, :, :size] = keys[source, :, :size]
            values[target, :, :size] = values[source, :, :size]
        self.lengths[target] = size

    def resize(self, rows: int, width: int, count: int) -> None:
        """Other slots for texts to come; what the first `count` of them hold stays."""
        lengths = np.zeros(rows, dtype=np.int64)
        lengths[:count] = self.lengths[:count]
        longest = int(lengths.max(initial=0))
        for number, pair in enumerate(self._layers):  # one layer after the other, so that little is there twice
            fresh = tuple(old.new_zeros(rows, old.shape[1], width, old.shape[3]) for old in pair)
            for old, new in zip(pair, fresh, strict=True):
                new[:count, :, :longest] = old[:count, :, :longest]
            self._layers[number] = fresh  # type: ignore[assignment]
        self.rows, self.width, self.lengths = rows, width, lengths

    def clear(self, row: int) -> None:
        """Forget numbers that are not finite, which no mask could hide."""
        for keys, values in self._layers:
            keys[row].zero_()
            values[row].zero_()


class StepPass:
    """One decoding step of the first `count` slots, `width` new tokens each; rows stand text by text."""

    def __init__(self, slots: Slots, count: int, width: int = 1, device: torch.device | str = "cpu") -> None:
        self.slots = slots
        self.count = count
        self.width = width
        self.layer = 0
        self.starts = torch.from_numpy(slots.lengths[:count].copy()).to(device)
        """[B]: where in its slot a text's new tokens go."""
        self.longest = int(slots.lengths[:count].max()) + width
        steps = torch.arange(width, device=device)
        self._rows = torch.arange(count, device=device)[:, None]
        self._places = self.starts[:, None] + steps
        self._masks: dict[int | None, Tensor | None] = {}
        self._sums: dict[int | None, Tensor | None] = {}

    @property
    def positions(self) -> Tensor:
        """[B * m]: each row's position in its text."""
        return (self._places + self.slots.num_shared).flatten()

    def attend(self, query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
        """As in attention.Pass."""
        keys, values = self.slots.layer(self.layer)
        count, width = self.count, self.width
        groups = keys.shape[1]
        each = query.shape[1] // groups
        shape = (groups, count, width, -1)
        keys[self._rows, :, self._places] = key[0].view(shape).permute(1, 2, 0, 3)
        values[self._rows, :, self._places] = value[0].view(shape).permute(1, 2, 0, 3)
        keys, values = keys[:count, :, : self.longest], values[:count, :, : self.longest]
        asked = query[0].view(groups, each, count, width, -1).permute(2, 0, 1, 3, 4)
        asked = asked.reshape(count, groups, each * width, -1)  # [B, H/G, G * m, D]
        shared = self.slots.shared[self.layer] if self.slots.shared is not None else None
        fused = rule.is_plain and query.device.type == "cpu" and not self._hides_shared(rule.window)
        attend = self._fused if fused else self._by_hand
        out = attend(asked, keys, values, shared, rule)
        self.layer += 1
        rows = out.reshape(count, groups, each, width, -1).permute(0, 3, 1, 2, 4)
        return rows.reshape(1, count * width, groups * each, -1)

    def _fused(
        self, asked: Tensor, keys: Tensor, values: Tensor, shared: tuple[Tensor, Tensor] | None, rule: Rule
    ) -> Tensor:
        """Through PyTorch's own kernel; the two parts are merged by their log-sum-exp (Dao 2023)."""
        count, groups, rows, _ = asked.shape
        mask = self._added(rule.window, rows, asked.dtype)
        out: Tensor
        out, total = _flash(asked, keys, values, 0.0, False, attn_mask=mask, scale=rule.scale)
        if shared is None:
            return out
        flat = asked.transpose(0, 1).reshape(1, groups, count * rows, -1)
        first, other = _flash(flat, shared[0][None], shared[1][None], 0.0, False, scale=rule.scale)
        first = first[0].view(groups, count, rows, -1).transpose(0, 1)
        weight = torch.sigmoid(total - other[0].view(groups, count, rows).transpose(0, 1))[..., None]
        merged: Tensor = weight * out + (1 - weight) * first
        return merged.to(out.dtype)

    def _by_hand(
        self, asked: Tensor, keys: Tensor, values: Tensor, shared: tuple[Tensor, Tensor] | None, rule: Rule
    ) -> Tensor:
        """For soft caps, sinks, and windows that end within the shared prefix."""
        count, groups, rows, depth = asked.shape
        asked = asked * (depth**-0.5 if rule.scale is None else rule.scale)
        scores = asked @ keys.transpose(2, 3)
        if shared is not None:
            flat = asked.transpose(0, 1).reshape(groups, count * rows, -1)
            first = (flat @ shared[0].transpose(1, 2)).view(groups, count, rows, -1).transpose(0, 1)
            scores = torch.cat([first, scores], dim=-1)
        weights = self._weights(scores.float(), rule, rows // self.width).to(values.dtype)
        known = self.slots.num_shared
        out = weights[..., known:] @ values
        if shared is not None:
            flat = weights[..., :known].transpose(0, 1).reshape(groups, count * rows, known)
            out = out + (flat @ shared[1]).view(groups, count, rows, -1).transpose(0, 1)
        return out

    def _weights(self, scores: Tensor, rule: Rule, each: int) -> Tensor:
        """scores [B, H/G, G * m, P + L] -> weights of the same shape."""
        if rule.softcap is not None:
            scores = torch.tanh(scores / rule.softcap) * rule.softcap
        mask = self._mask(rule.window, each)
        if mask is not None:
            scores = scores.masked_fill_(mask, -torch.inf)
        if rule.sinks is None:
            return scores.softmax(-1)
        groups = scores.shape[1]
        column = rule.sinks.float().view(1, groups, each, 1, 1)
        column = column.expand(len(scores), groups, each, self.width, 1).reshape(*scores.shape[:3], 1)
        return torch.cat([scores, column], dim=-1).softmax(-1)[..., :-1]

    def _mask(self, window: int | None, each: int) -> Tensor | None:
        """[B, 1, 1 or G * m, P + L]: what a row must not see; None: it sees everything."""
        if window not in self._masks:
            where = (self._places + self.slots.num_shared)[:, :, None]  # [B, m, 1]
            keys = torch.arange(self.slots.num_shared + self.longest, device=where.device)
            hidden = keys > where
            if window is not None:
                hidden |= keys <= where - window
            mask = hidden[:, None] if self.width == 1 else hidden.repeat(1, each, 1)[:, None]
            self._masks[window] = mask if bool(hidden.any()) else None
        return self._masks[window]

    def _hides_shared(self, window: int | None) -> bool:
        """Whether some row does not see all of the shared prefix."""
        return bool(self.slots.num_shared and window is not None and int(self.positions.max()) >= window)

    def _added(self, window: int | None, rows: int, dtype: torch.dtype) -> Tensor | None:
        """The mask of the slots' own tokens as numbers to add to scores, [B, 1, G * m, L]."""
        if window not in self._sums:
            mask = self._mask(window, rows // self.width)
            if mask is not None:
                own = mask[..., self.slots.num_shared :].expand(-1, -1, rows, -1)
                mask = torch.zeros(own.shape, dtype=dtype, device=own.device).masked_fill_(own, -torch.inf)
            self._sums[window] = mask
        return self._sums[window]

    def accept(self, counts: Sequence[int]) -> None:
        """So many of each text's new tokens stay."""
        self.slots.lengths[: self.count] += np.asarray(counts, dtype=np.int64)
