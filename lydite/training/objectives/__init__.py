"""What a network is asked to learn: from documents to examples, batches and a loss, one small file each.

`make_objective` is the way in, `Mixture` joins several; base.py holds the contract. The settings of an objective are a strict
record: an unknown key is refused in one line.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec

from lydite.errors import UserError
from lydite.training.objectives import (
    causal,
    corrupted,
    denoising,
    masked,
    pairs,
    permuted,
    prefix,
    replaced,
    seq2seq,
)
from lydite.training.objectives.base import Documents, Objective
from lydite.training.objectives.mixture import Mixture

__all__ = ["OBJECTIVES", "Documents", "Entry", "Mixture", "Objective", "make_objective"]


class Entry(NamedTuple):
    """How an objective is made."""

    settings: type[Any]
    make: Callable[[Any, Any, Any, int], Objective]
    """From documents, tokenizer, settings and seed."""


OBJECTIVES: dict[str, Entry] = {
    "causal": Entry(causal.Causal, causal.make_causal),
    "masked": Entry(masked.Masking, masked.MaskedLM),
    "next_sentence": Entry(pairs.Pairs, partial(pairs.SentencePairs, kind="next_sentence")),
    "sentence_order": Entry(pairs.Pairs, partial(pairs.SentencePairs, kind="sentence_order")),
    "replaced": Entry(replaced.Replaced, replaced.ReplacedTokens),
    "span_corruption": Entry(corrupted.Corrupted, corrupted.SpanCorruption),
    "prefix": Entry(prefix.Prefix, prefix.PrefixLM),
    "denoising": Entry(denoising.Denoising, denoising.DenoisingLM),
    "permutation": Entry(permuted.Permuted, permuted.PermutationLM),
    "seq2seq": Entry(seq2seq.Seq2Seq, seq2seq.SequenceToSequence),
}


def make_objective(
    name: str,
    documents: Documents,
    tokenizer: Any,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    *,
    targets: Documents | None = None,
) -> Objective:
    """The objective `name` over `documents`, with `settings` as a recipe gives them; `targets` only for seq2seq.

    Raises UserError for an unknown name, an unknown or meaningless setting, or documents that do not do.
    """
    if name not in OBJECTIVES:
        raise UserError(f"unknown objective {name!r}; there are {', '.join(sorted(OBJECTIVES))}")
    entry = OBJECTIVES[name]
    try:
        record = msgspec.convert(dict(settings or {}), entry.settings)
    except msgspec.ValidationError as error:
        have = ", ".join(entry.settings.__struct_fields__)
        raise UserError(f"objective {name}: {error}; its settings are {have}") from error
    if seed < 0:
        raise UserError(f"the seed must be 0 or more, not {seed}")
    if name == "seq2seq":
        return seq2seq.SequenceToSequence(documents, tokenizer, record, seed, targets=targets)
    if targets is not None:
        raise UserError(f'objective {name} takes no target documents; leave them out or set objective = "seq2seq"')
    return entry.make(documents, tokenizer, record, seed)
