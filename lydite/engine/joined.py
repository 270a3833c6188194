"""Texts and pairs of texts as a tokenizer joins them for a head: [CLS] a [SEP] b [SEP], with the segments of each.

The tokenizer's own template is asked once, with short texts, for what stands before, between and behind, and on which
side the first text goes; so pairs can be cut and slid over without tokenizing them again.

Contract: for texts that fit, the ids and segments are those of the tokenizer's own call.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from lydite.engine.tokens import Ids
from lydite.errors import ModelError


@dataclass(frozen=True, slots=True)
class Joined:
    """One input of a head."""

    ids: Ids
    segments: Ids
    """token_type_ids"""
    last: int
    """Where the last text begins."""
    classes: int | None
    """Where the classification token stands; None where there is none."""


@dataclass(frozen=True, slots=True)
class _Template:
    """Special tokens and their segments around one text or two."""

    parts: tuple[tuple[tuple[int, int], ...], ...]
    """(id, segment) before the first text, behind it (between), and behind the second."""
    segments: tuple[int, ...]
    """Of the texts."""


class PairTokenizer:
    """Joins texts for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"the tokenizer {type(tokenizer).__name__} gives no character offsets; save a tokenizer.json beside the weights"
            )
        self.tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_padding()
        self._backend.no_truncation()
        self.has_segments = "token_type_ids" in tokenizer.model_input_names
        self._one = self._template(("a",))
        self._two = self._template(("a", "a"))

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Each text without special tokens."""
        return list(self._backend.encode_batch(list(texts), add_special_tokens=False))

    def num_special(self, num_texts: int) -> int:
        """Special tokens around one text, or two."""
        template = self._one if num_texts == 1 else self._two
        return sum(len(part) for part in template.parts)

    def join(self, *texts: Sequence[int] | Ids) -> Joined:
        """One text or two, as token ids, with what the tokenizer puts around them."""
        template = self._one if len(texts) == 1 else self._two
        ids: list[int] = []
        segments: list[int] = []
        begin, classes = 0, None
        for number, part in enumerate(template.parts):
            for token, segment in part:
                if token == self.tokenizer.cls_token_id and classes is None:
                    classes = len(ids)
                ids.append(token)
                segments.append(segment)
            if number < len(texts):
                begin = len(ids)
                ids += [int(token) for token in texts[number]]
                segments += [template.segments[number]] * len(texts[number])
        return Joined(np.asarray(ids, dtype=np.int32), np.asarray(segments, dtype=np.int32), begin, classes)

    def _template(self, texts: tuple[str, ...]) -> _Template:
        plain = self.tokenizer(texts[0], add_special_tokens=False)["input_ids"]
        full: Any = self.tokenizer(*texts)
        ids = full["input_ids"]
        segments = full["token_type_ids"] if self.has_segments else [0] * len(ids)
        parts: list[tuple[tuple[int, int], ...]] = []
        kinds: list[int] = []
        done = 0
        for _ in texts:
            begin = next((i for i in range(done, len(ids)) if plain and ids[i : i + len(plain)] == plain), None)
            if begin is None:
                raise ModelError(
                    f"how {type(self.tokenizer).__name__} joins texts cannot be read; its template is unusual"
                )
            parts.append(tuple(zip(ids[done:begin], segments[done:begin], strict=True)))
            kinds.append(segments[begin])
            done = begin + len(plain)
        parts.append(tuple(zip(ids[done:], segments[done:], strict=True)))
        return _Template(tuple(parts), tuple(kinds))
