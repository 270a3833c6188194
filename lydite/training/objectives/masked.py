"""Masked language modelling: 15% of the tokens are chosen anew each epoch, and predicted from all others.

Of those chosen 80% are replaced by the mask token, 10% by a random token, 10% stay (Devlin et al. 2019; anew each time:
RoBERTa, Liu et al. 2019). `unit` says what is chosen at once:

- `token`: each by itself;
- `word`: whole words (BERT's whole word masking; every Chinese character is a word, see words.py);
- `span`: runs of whole words of geometric length (p = 0.2, at most 10, mean 3.8), all of one span masked, replaced or kept
  alike (SpanBERT, Joshi et al. 2020; without its boundary objective).

Special tokens are never chosen. Rows are CLS, text, SEP: of a stream of documents with SEP between (`layout = "stream"`,
RoBERTa's FULL-SENTENCES), or of one document each (`documents`, DOC-SENTENCES), cut where it is longer.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from torch import nn

from lydite.training.batch import IGNORE, Example, Ints, Loss, Part, TrainBatch, pad, real_positions
from lydite.training.objectives import noise
from lydite.training.objectives.base import Documents, Stateless, generator
from lydite.training.objectives.forward import token_loss
from lydite.training.objectives.streams import Source, SourceSettings, make_source
from lydite.training.objectives.words import Words, ordinary_ids, pad_id, special


class Masking(SourceSettings, frozen=True, kw_only=True):
    """Settings of `masked` and of what builds on it; names as in transformers' collators where it has them."""

    context: int = 512
    """Positions of a row, special tokens included."""
    unit: Literal["token", "word", "span"] = "token"
    mlm_probability: float = 0.15
    """Share of the tokens that is chosen."""
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    geometric_p: float = 0.2
    """Of `span`."""
    max_span_length: int = 10
    """Of `span`, in words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mlm_probability < 1:
            raise ValueError("mlm_probability must be between 0 and 1")
        if min(self.mask_replace_prob, self.random_replace_prob) < 0:
            raise ValueError("mask_replace_prob and random_replace_prob must be 0 or more")
        if self.mask_replace_prob + self.random_replace_prob > 1:
            raise ValueError("mask_replace_prob and random_replace_prob must not be more than 1 together")
        if not 0 < self.geometric_p < 1 or self.max_span_length < 1:
            raise ValueError("geometric_p must be between 0 and 1, max_span_length 1 or more")


class Masker:
    """Chooses and replaces tokens."""

    def __init__(self, tokenizer: Any, settings: Masking) -> None:
        self._settings = settings
        self._mask = special(tokenizer, "mask_token")
        self._others = ordinary_ids(tokenizer)
        self._words = Words(tokenizer)

    def choose(self, ids: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """(positions to predict, in order; for each the number of its unit, all tokens of which share their fate)."""
        share, unit = self._settings.mlm_probability, self._settings.unit
        if unit == "token":
            usable = np.flatnonzero(~self._words.is_special[ids])
            chosen = usable[noise.choose(len(usable), share, rng)]
            return chosen, np.arange(len(chosen))
        starts, lengths = self._words.words(ids)
        if not len(starts):
            return starts, starts
        if unit == "word":  # as in BERT's code, each token of a word has a fate of its own
            words = noise.choose_whole(lengths, share, rng)
            chosen = noise.ranges(starts[words], lengths[words])
            return chosen, np.arange(len(chosen))
        sizes = noise.geometric_lengths(
            noise.amount(len(starts), share, rng), self._settings.geometric_p, self._settings.max_span_length, rng
        )
        first = noise.place(len(starts), sizes, rng, apart=True)
        words = noise.ranges(first, sizes)
        unit_of_word = np.repeat(np.arange(len(sizes)), sizes)
        return noise.ranges(starts[words], lengths[words]), np.repeat(unit_of_word, lengths[words])

    def mask(self, ids: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """(inputs, labels), both [n]: IGNORE where nothing is to be predicted."""
        positions, units = self.choose(ids, rng)
        shares = self._settings.mask_replace_prob, self._settings.random_replace_prob
        inputs = noise.replace(ids, (positions, units), self._mask, self._others, shares, rng)
        labels = np.full(len(ids), IGNORE, dtype=np.int64)
        labels[positions] = ids[positions]
        return inputs, labels


class MaskedLM(Stateless):
    """The objective `masked`."""

    def __init__(self, documents: Documents, tokenizer: Any, settings: Masking, seed: int) -> None:
        self._cls, self._sep = special(tokenizer, "cls_token"), special(tokenizer, "sep_token")
        self._source: Source = make_source(documents, settings.context - 2, settings, seed, between=[self._sep])
        self._seed = seed
        self._masker = Masker(tokenizer, settings)
        self._pad, self._context = pad_id(tokenizer), settings.context

    def num_examples(self, epoch: int) -> int:
        return len(self._source)

    def example(self, epoch: int, index: int) -> Example:
        ids = np.concatenate([[self._cls], self._source.read(epoch, index), [self._sep]])
        inputs, labels = self._masker.mask(ids, generator(self._seed, epoch, index))
        return Example({"input_ids": inputs, "labels": labels}, len(ids))

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        return masked_batch(examples, self._pad, self._context)

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        total, _ = token_loss(network, batch.inputs, batch.targets["tokens"])
        return Loss({"tokens": Part(total, batch.counts["tokens"])})


def masked_batch(examples: Sequence[Example], fill: int, context: int) -> TrainBatch:
    """Rows "input_ids" and "labels", with "token_type_ids" where the examples have them; an attention mask if padded."""
    rows = [example.fields["input_ids"] for example in examples]
    labels = pad([example.fields["labels"] for example in examples], IGNORE, context)
    inputs = {"input_ids": pad(rows, fill, context)}
    if "token_type_ids" in examples[0].fields:
        inputs["token_type_ids"] = pad([example.fields["token_type_ids"] for example in examples], 0, context)
    mask = real_positions(rows, labels.shape[1])
    if mask is not None:
        inputs["attention_mask"] = mask
    counts = {"tokens": int((labels != IGNORE).sum())}
    return TrainBatch(inputs, {"tokens": labels}, sum(map(len, rows)), counts)
