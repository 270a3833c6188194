"""Span corruption (T5, Raffel et al. 2020): runs of tokens are replaced by sentinels, and the target is what stood there.

15% of the tokens are noise, in runs of 3 in the mean. Each run is one sentinel in the input; the target is each sentinel and its run.
Sentinels are used in the tokenizer's order (<extra_id_0> first, whose id is the highest in T5's vocabulary). Both sequences end with
the end-of-sequence token. The text is as long as makes the input exactly `context` positions: 568 tokens for 512, whose
targets have 114 (random_spans_helper in T5's code).

Documents are joined without anything between them, as there; or each is cut by itself (`layout = "documents"`).
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from torch import nn

from lydite.errors import UserError
from lydite.training.batch import Example, Ints, Loss, TrainBatch
from lydite.training.objectives import noise
from lydite.training.objectives.base import Documents, Stateless, generator
from lydite.training.objectives.sequences import pair_batch, pair_example, pair_loss
from lydite.training.objectives.streams import Source, SourceSettings, make_source
from lydite.training.objectives.words import pad_id, special


class Corrupted(SourceSettings, frozen=True, kw_only=True):
    """Settings of `span_corruption`."""

    context: int = 512
    """Positions of the encoder."""
    layout: Literal["stream", "documents"] = "stream"
    noise_density: float = 0.15
    mean_noise_span_length: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.noise_density < 1 or not self.mean_noise_span_length >= 1:
            raise ValueError("noise_density must be between 0 and 1, mean_noise_span_length 1 or more")


class SpanCorruption(Stateless):
    """The objective `span_corruption`."""

    def __init__(self, documents: Documents, tokenizer: Any, settings: Corrupted, seed: int) -> None:
        self._settings, self._seed = settings, seed
        self._eos, self._pad = special(tokenizer, "eos_token"), pad_id(tokenizer)
        kind = settings.noise_density, settings.mean_noise_span_length
        self._length = noise.fitting_length(settings.context, *kind)
        self._target = noise.corrupted_lengths(self._length, *kind)[1]
        self._sentinels = sentinels(tokenizer, noise.corrupted_counts(self._length, *kind)[1])
        self._source: Source = make_source(documents, self._length, settings, seed)

    def num_examples(self, epoch: int) -> int:
        return len(self._source)

    def example(self, epoch: int, index: int) -> Example:
        ids = self._source.read(epoch, index)
        if len(ids) < 2:  # nothing to take out of one token: it is the target
            return pair_example(*self._ended(self._sentinels[:1], np.concatenate([self._sentinels[:1], ids])))
        rng = generator(self._seed, epoch, index)
        mask = noise.span_mask(len(ids), self._settings.noise_density, self._settings.mean_noise_span_length, rng)
        return pair_example(*self._ended(*noise.to_sentinels(ids, mask, self._sentinels)))

    def _ended(self, source: Ints, target: Ints) -> tuple[Ints, Ints]:
        return np.append(source, self._eos), np.append(target, self._eos)

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        return pair_batch(examples, self._pad, (self._settings.context, None))

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        return pair_loss(network, batch)


def sentinels(tokenizer: Any, needed: int) -> Ints:
    """Ids of <extra_id_0>, <extra_id_1> ... Raises UserError where there are fewer than `needed`."""
    names = [f"<extra_id_{number}>" for number in range(needed)]
    ids = [tokenizer.convert_tokens_to_ids(name) for name in names]
    have = next((n for n, number in enumerate(ids) if number is None or number == tokenizer.unk_token_id), needed)
    if have < needed:
        raise UserError(
            f"the tokenizer has {have} sentinels (<extra_id_N>), and this context needs {needed}; "
            "train one of family t5, or set a smaller context"
        )
    return np.array(ids, dtype=np.int64)
