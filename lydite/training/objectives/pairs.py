"""Two segments in one row, and what they are to each other, learned together with masked tokens.

- `next_sentence` (BERT, Devlin et al. 2019): in half of the rows the second segment follows the first, in the others it is from
  another document.
- `sentence_order` (ALBERT, Lan et al. 2020): the segments follow each other, and in half of the rows they are swapped.

Rows are made as in BERT's create_pretraining_data: sentences of a document are gathered until a target length is reached (the
full row; in 10% of the rows a random shorter one), cut in two between two sentences, and tokens are dropped from either end
of the longer segment where both are too long. Sentences that a random second segment displaced come again in the next
row. A last sentence alone has no next one: its second segment is random in `next_sentence` (as in BERT's code), and it has
no row in `sentence_order`.

Contract: documents know where their sentences start (`sentences(i)`, token offsets, the first 0).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lydite.errors import ModelError, UserError
from lydite.training.batch import Example, Ints, Loss, Part, TrainBatch
from lydite.training.objectives.base import Documents, Stateless, generator
from lydite.training.objectives.forward import inner, token_loss
from lydite.training.objectives.masked import Masker, Masking, masked_batch
from lydite.training.objectives.streams import document_lengths, permutation
from lydite.training.objectives.words import pad_id, special


@runtime_checkable
class KnowsSentences(Protocol):
    """Documents that know where their sentences start (a Split of a corpus)."""

    def sentences(self, index: int) -> Any: ...


class Pairs(Masking, frozen=True, kw_only=True):
    """Settings of `next_sentence` and `sentence_order`: rows are CLS, first segment, SEP, second segment, SEP."""

    short_seq_prob: float = 0.1
    """Share of the rows that aim at a random shorter length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.short_seq_prob <= 1 or self.context < 8:
            raise ValueError("short_seq_prob must be between 0 and 1, context 8 or more")
        if self.layout != "stream":
            raise ValueError("rows of two segments have no layout to choose; leave it out")


Row = tuple[int, int, int, int, int, int, int]
"""Document and token borders of the first segment, of the second one, and the label."""


class SentencePairs(Stateless):
    """Both objectives; `kind` says which."""

    def __init__(
        self,
        documents: Documents,
        tokenizer: Any,
        settings: Pairs,
        seed: int,
        kind: Literal["next_sentence", "sentence_order"],
    ) -> None:
        if not isinstance(documents, KnowsSentences):
            raise UserError(f"{kind} needs documents that know their sentences; train on a corpus of `lydite prepare`")
        self._documents, self._settings, self._seed, self._kind = documents, settings, seed, kind
        self._lengths = document_lengths(documents)
        if kind == "next_sentence" and np.count_nonzero(self._lengths) < 2:
            raise UserError("next_sentence needs two documents or more: a random second segment is of another one")
        self._cls, self._sep = special(tokenizer, "cls_token"), special(tokenizer, "sep_token")
        self._pad, self._masker = pad_id(tokenizer), Masker(tokenizer, settings)
        self._plan: tuple[int, Ints] | None = None

    def num_examples(self, epoch: int) -> int:
        return len(self._rows(epoch))

    def example(self, epoch: int, index: int) -> Example:
        row = self._rows(epoch)[index].tolist()
        rng = generator(self._seed, epoch, index)
        first, second = self._read(*row[:3]), self._read(*row[3:6])
        first, second = shorten(first, second, self._settings.context - 3, rng)
        ids = np.concatenate([[self._cls], first, [self._sep], second, [self._sep]])
        types = np.repeat([0, 1], [len(first) + 2, len(second) + 1])
        inputs, labels = self._masker.mask(ids, rng)
        fields = {"input_ids": inputs, "labels": labels, "token_type_ids": types, "pair": np.array(row[6])}
        return Example(fields, len(ids))

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        batch = masked_batch(examples, self._pad, self._settings.context)
        batch.targets["pair"] = torch.tensor([int(example.fields["pair"]) for example in examples])
        batch.counts["pair"] = len(examples)
        return batch

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        if getattr(getattr(inner(network), "config", None), "type_vocab_size", 2) < 2:
            raise ModelError(f"{self._kind} marks two segments; set type_vocab_size = 2 in the network's config")
        total, output = token_loss(network, batch.inputs, batch.targets["tokens"])
        pair = cross_entropy(pair_logits(output).float(), batch.targets["pair"], reduction="sum")
        return Loss({"tokens": Part(total, batch.counts["tokens"]), "pair": Part(pair, batch.counts["pair"])})

    def _read(self, document: int, start: int, stop: int) -> Ints:
        return self._documents[document][start:stop].astype(np.int64)

    def _rows(self, epoch: int) -> Ints:
        """All rows of the epoch in their order: int64 [rows, 7]. Planned at once, since one row's cut decides the next."""
        if self._plan is None or self._plan[0] != epoch:
            rows = [row for number in range(len(self._documents)) for row in self._document(epoch, number)]
            if not rows:
                raise UserError(
                    f"no document has two sentences, which {self._kind} needs; prepare the corpus with sentences"
                )
            self._plan = epoch, np.array(rows)[permutation(len(rows), self._seed, epoch)]
        return self._plan[1]

    def _document(self, epoch: int, number: int) -> Iterator[Row]:
        """The rows of one document."""
        rng = generator(self._seed, epoch, number, salt=1)
        borders = [*self._sentences(number), int(self._lengths[number])]
        room = self._settings.context - 3
        begin = 0
        while begin < len(borders) - 1:
            short = rng.random() < self._settings.short_seq_prob
            target = int(rng.integers(2, room + 1)) if short else room
            end = begin + 1
            while end < len(borders) - 1 and borders[end] - borders[begin] < target:
                end += 1
            cut = begin + 1 if end - begin < 2 else int(rng.integers(begin + 1, end))
            first = number, borders[begin], borders[cut]
            if self._kind == "sentence_order":
                if cut < end:
                    second = number, borders[cut], borders[end]
                    yield (*second, *first, 1) if rng.random() < 0.5 else (*first, *second, 0)
                begin = end
            elif end - begin < 2 or rng.random() < 0.5:
                yield (*first, *self._elsewhere(number, target - (borders[cut] - borders[begin]), rng), 1)
                begin = cut
            else:
                yield (*first, number, borders[cut], borders[end], 0)
                begin = end

    def _elsewhere(self, number: int, wanted: int, rng: np.random.Generator) -> tuple[int, int, int]:
        """Whole sentences of another document from a random one on, until there are `wanted` tokens."""
        other = int(rng.integers(len(self._documents) - 1))
        other += other >= number
        while other == number or not self._lengths[other]:
            other = (other + 1) % len(self._documents)
        borders = [*self._sentences(other), int(self._lengths[other])]
        begin = int(rng.integers(len(borders) - 1))
        end = begin + 1
        while end < len(borders) - 1 and borders[end] - borders[begin] < wanted:
            end += 1
        return other, borders[begin], borders[end]

    def _sentences(self, number: int) -> list[int]:
        """Where sentences start; nothing for a document without tokens."""
        assert isinstance(self._documents, KnowsSentences)
        return [int(start) for start in self._documents.sentences(number)] if self._lengths[number] else []


def shorten(first: Ints, second: Ints, room: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Both cut to `room` tokens together: tokens of the longer one are dropped, each at its front or its end by chance."""
    over = len(first) + len(second) - room
    if over <= 0:
        return first, second
    gap = len(first) - len(second)
    drop_first = min(over, max(0, gap)) if gap > 0 else 0
    drop_second = min(over, -gap) if gap < 0 else 0
    rest = over - drop_first - drop_second  # from here on they are of one length, and take turns
    drop_first, drop_second = drop_first + rest // 2, drop_second + rest - rest // 2
    front_first, front_second = int(rng.binomial(drop_first, 0.5)), int(rng.binomial(drop_second, 0.5))
    return (
        first[front_first : len(first) - (drop_first - front_first)],
        second[front_second : len(second) - (drop_second - front_second)],
    )


def pair_logits(output: Any) -> Tensor:
    """[B, 2] of a network's head over pairs, by whatever name; class 1 is random, or swapped."""
    for name in ("seq_relationship_logits", "sop_logits"):
        logits = getattr(output, name, None)
        if isinstance(logits, Tensor):
            return logits
    raise ModelError(
        f"{type(output).__name__} has no logits for pairs; take an architecture such as BertForPreTraining or AlbertForPreTraining"
    )
