"""Answers in a given form: a regular expression, JSON of a schema, or one of a list of texts.

A constraint follows one text token by token and says which tokens may come next; llguidance computes them, on bytes, so
that a character of several tokens is no special case. The tokenizer's trie is built once per encoder, a grammar once
per form, and each text gets a copy of its own.

Contract: a token that is not allowed has a logit of minus infinity, rows of the model that no token of the tokenizer
stands for included; among the allowed ones nothing changes. Where the next bytes are certain, the library allows only
the token that the tokenizer itself would take for them. The text may end where the form is complete, and ends by
itself where nothing more can follow. A form that cannot be used is a Failure of its request, in one line.

V: size of the model's vocabulary.
"""

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lydite.engine.tokens import Encoder
from lydite.errors import ModelError
from lydite.types import Decoding, Failure

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_MOST_GRAMMARS = 256
"""Compiled forms that are kept; samples with choices of their own bring many."""
_JSON_SPACE = r"\n? {1,8}|\n"
"""Between the parts of JSON: enough to indent it, and an end to the spaces that small models love to repeat."""


class Constraint:
    """Where one text stands in its grammar."""

    def __init__(self, matcher: "LLMatcher", not_eos: Collection[int]) -> None:
        self._matcher = matcher
        self._not_eos = list(not_eos)
        self.num_accepted = 0

    def mask(self, size: int) -> Tensor:
        """bool [V = size]: the tokens that may come next, an end-of-sequence token where the text may stop."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        bits[self._not_eos] = 0
        allowed = torch.zeros(size, dtype=torch.bool)
        count = min(size, len(bits))
        allowed[:count] = torch.from_numpy(bits[:count].astype(np.bool_))
        return allowed

    def apply(self, logits: Tensor) -> Tensor:
        """logits [V] with minus infinity at the tokens that may not come next."""
        return logits.masked_fill(~self.mask(len(logits)).to(logits.device), -torch.inf)

    def accept(self, token: int) -> None:
        """The text goes on with this token."""
        self.num_accepted += 1
        self._matcher.consume_token(token)

    @property
    def may_stop(self) -> bool:
        """Whether the text is complete as it stands."""
        return bool(self._matcher.is_accepting())

    @property
    def is_done(self) -> bool:
        """Whether the text is complete and nothing may follow, or has been ended, or has failed."""
        return bool(self._matcher.is_stopped())

    @property
    def failure(self) -> Failure | None:
        """Why the text cannot go on, where that is not because it is complete: the grammar passed a limit."""
        if not self._matcher.is_error():
            return None
        return Failure(reason=f"the constraint on the answer cannot be followed: {_line(self._matcher.get_error())}")


class Constraints:
    """Makes the constraints of one encoder's texts; `eos`: the tokens that end a text."""

    def __init__(self, encoder: Encoder, eos: Collection[int]) -> None:
        self.encoder = encoder
        self.eos = eos
        self._trie: LLTokenizer | None = None
        self._not_eos: list[int] = []
        self._known: dict[tuple[str | None, object, tuple[str, ...]], LLMatcher | Failure] = {}

    def make(self, decoding: Decoding) -> Constraint | Failure | None:
        """A constraint at its beginning; None where every text may be written. ModelError without llguidance."""
        if not decoding.is_constrained:
            return None
        key = (decoding.regex, decoding.json_schema, decoding.choices)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST_GRAMMARS:
                self._known.clear()
            known = self._known[key] = self._compile(decoding)
        return known if isinstance(known, Failure) else Constraint(known.deep_copy(), self._not_eos)

    def _compile(self, decoding: Decoding) -> "LLMatcher | Failure":
        trie = self._trie or self._make_trie()
        from llguidance import LLMatcher

        if decoding.json_schema is not None:
            assert isinstance(decoding.json_schema, str), "Decoding keeps schemas as text"
            what = "json_schema"
            grammar = LLMatcher.grammar_from_json_schema(
                decoding.json_schema, overrides={"whitespace_pattern": _JSON_SPACE}
            )
        elif decoding.regex is not None:
            what = f"regex {decoding.regex!r}"
            grammar = LLMatcher.grammar_from_regex(decoding.regex)
        else:
            what = "choices"
            grammar = LLMatcher.grammar_from_regex("|".join(_literal(choice) for choice in decoding.choices))
        matcher = LLMatcher(trie, grammar, log_level=0)
        if matcher.is_error():
            return Failure(reason=f"{what} cannot be used: {_line(matcher.get_error())}")
        return matcher

    def _make_trie(self) -> "LLTokenizer":
        """The tokenizer's vocabulary as llguidance walks it; a second's work for a quarter of a million tokens."""
        try:
            from llguidance import hf
        except ImportError as error:
            raise ModelError(
                f"regex, json_schema and choices need llguidance ({error}); pip install 'lydite[constrain]'"
            ) from error
        tokenizer = self.encoder.tokenizer
        eos = [token for token in sorted(self.eos) if token < len(tokenizer)]
        try:
            self._trie = hf.from_tokenizer(tokenizer, eos_token=eos or None)
        except ValueError as error:
            raise ModelError(
                f"answers of {type(tokenizer).__name__} cannot be constrained: {_line(str(error))}; "
                "leave regex, json_schema and choices out"
            ) from error
        # Where a model has none, the library takes some token for it.
        self._not_eos = [token for token in self._trie.eos_tokens if token not in self.eos]
        return self._trie


def _literal(text: str) -> str:
    """A regular expression of this text alone."""
    return "".join(char if char.isalnum() else f"\\x{{{ord(char):x}}}" for char in text)


def _line(message: str) -> str:
    """What is wrong, out of a message of several lines: those of regular expressions say it behind a drawing."""
    found = re.search(r"^error: (.+)$", message, flags=re.MULTILINE)
    return found[1] if found else (message.strip().splitlines() or ["no reason given"])[0]
