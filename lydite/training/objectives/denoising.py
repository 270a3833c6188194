"""Denoising (BART, Lewis et al. 2020): the decoder writes the original text, the encoder reads a corrupted one.

The sentences are put in random order, then 30% of the words are infilled: spans of Poisson(3) words each become one mask
token, and a span of length 0 puts a mask where nothing was. The target is the text as it was. Both sequences stand between the
tokenizer's BOS and EOS (CLS and SEP where it has no such).

Rows are whole documents, cut where they are longer than the row. Sentences move within a row; where documents do not know their
sentences, set permute_sentences = false.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from lydite.errors import UserError
from lydite.training.batch import Example, Ints, Loss, TrainBatch
from lydite.training.objectives import noise
from lydite.training.objectives.base import Documents, Stateless, generator
from lydite.training.objectives.pairs import KnowsSentences
from lydite.training.objectives.sequences import pair_batch, pair_example, pair_loss
from lydite.training.objectives.streams import DocumentSource
from lydite.training.objectives.words import Words, pad_id, special
from lydite.types import Record


class Denoising(Record, frozen=True, kw_only=True):
    """Settings of `denoising`."""

    context: int = 512
    """Positions of the original, BOS and EOS included; the corrupted one may have a few more or fewer, cut at this too."""
    mask_ratio: float = 0.3
    """Share of the words that spans cover."""
    poisson_lambda: float = 3.0
    permute_sentences: bool = True
    group: int = 64
    """So many rows in a row are of like length; best a multiple of the batch size."""

    def __post_init__(self) -> None:
        if self.context < 4 or self.group < 1:
            raise ValueError("context must be 4 or more, group 1 or more")
        if not 0 < self.mask_ratio < 1 or not self.poisson_lambda > 0:
            raise ValueError("mask_ratio must be between 0 and 1, poisson_lambda above 0")


class DenoisingLM(Stateless):
    """The objective `denoising`."""

    def __init__(self, documents: Documents, tokenizer: Any, settings: Denoising, seed: int) -> None:
        if settings.permute_sentences and not isinstance(documents, KnowsSentences):
            raise UserError(
                "these documents do not know their sentences; train on a corpus of `lydite prepare`, or set permute_sentences = false"
            )
        self._documents, self._settings, self._seed = documents, settings, seed
        self._mask, self._pad = special(tokenizer, "mask_token"), pad_id(tokenizer)
        self._begin = special(tokenizer, "cls_token" if tokenizer.bos_token_id is None else "bos_token")
        self._end = special(tokenizer, "sep_token" if tokenizer.eos_token_id is None else "eos_token")
        self._words = Words(tokenizer)
        self._source = DocumentSource(documents, settings.context - 2, seed, settings.group)

    def num_examples(self, epoch: int) -> int:
        return len(self._source)

    def example(self, epoch: int, index: int) -> Example:
        rng = generator(self._seed, epoch, index)
        piece = self._source.piece(epoch, index)
        text = self._source.pieces.read(piece)
        mixed = self._permuted(piece, text, rng) if self._settings.permute_sentences else text
        _, lengths = self._words.words(mixed)
        shape = self._settings.mask_ratio, self._settings.poisson_lambda
        noisy = noise.infill(mixed, lengths, self._mask, shape, rng)[: self._settings.context - 2]
        return pair_example(self._between(noisy), self._between(text))

    def _permuted(self, piece: int, text: Ints, rng: np.random.Generator) -> Ints:
        """The sentences of the piece, or the parts of them that are in it, in random order."""
        assert isinstance(self._documents, KnowsSentences)
        starts = np.asarray(self._documents.sentences(int(self._source.pieces.document[piece])), dtype=np.int64)
        starts = starts - int(self._source.pieces.start[piece])
        inside = starts[(starts > 0) & (starts < len(text))]
        sentences = np.split(text, inside)
        return np.concatenate([sentences[i] for i in rng.permutation(len(sentences))])

    def _between(self, ids: Ints) -> Ints:
        return np.concatenate([[self._begin], ids, [self._end]])

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        return pair_batch(examples, self._pad, (self._settings.context, self._settings.context))

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        return pair_loss(network, batch)
