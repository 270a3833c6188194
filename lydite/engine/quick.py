"""Token ids without `tokenizers`, for the plain kinds of tokenizers: several times faster where a model itself takes no time.

An n-gram table answers in less time than `tokenizers` needs to say which token stands where. But words between white
space, and single characters, are found by Python's own `split` and a dict, and byte-level BPE by remembered words
(data/prepare/words.py). What goes this way is decided by the tokenizer's file and then text by text: a text that spells
an added token, or that the two would cut differently, is left to `tokenizers`.

Contract: the ids, the cut and the flags are those of `Encoder`, for every text; only `Text.encoding` is None.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from lydite.data.prepare.words import WordEncoder, word_encoder
from lydite.engine.tokens import Encoded, Encoder, Ids, Text, Window
from lydite.types import Failure, ScoreRequest

_NO_SPACE = tuple("\x1c\x1d\x1e\x1f")
"""White space to `str.split`, and not to Unicode, which `tokenizers` follows."""

Pair = tuple[str, str]
"""(context, continuation)."""


class QuickEncoder(Encoder):
    """An Encoder that asks `tokenizers` only where it must; for models that need no words of the pre-tokenizer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._quick = quick_splitter(self._backend)
        self._added = tuple(token.content for token in self._backend.get_added_tokens_decoder().values())

    def encode(self, requests: Sequence[ScoreRequest]) -> list[Encoded | Failure]:
        """One Encoded, or the reason why there is none, for each request."""
        bare = not any(request.context or request.messages for request in requests)
        if not bare or self._quick is None or not self.lead or self.max_tokens is not None:
            return super().encode(requests)
        # Without contexts there is nothing to be shared and nothing to be cut: the lead stands before every text.
        lead, first = np.array(self.lead, dtype=np.int32), len(self.lead)
        found: list[Encoded | Failure] = []
        for request, text in zip(requests, self.texts([("", r.continuation) for r in requests]), strict=True):
            if text.encoding is None and len(text.ids):
                found.append(Encoded([Window(np.concatenate([lead, text.ids]), first)]))
            else:
                found.append(self._encode_one(request, text, 0))
        return found

    def texts(self, pairs: Sequence[Pair]) -> list[Text]:
        """The tokens of each (context, continuation) as one text."""
        if self._quick is None:
            return super().texts(pairs)
        strange = (*self._added, *self._quick.strange)
        plain = [pair for pair in pairs if not any(map((pair[0] + pair[1]).__contains__, strange))]
        quick = self._quick.texts(plain)
        if len(plain) == len(pairs) and None not in quick:
            return [text for text in quick if text is not None]
        found = {pair: text for pair, text in zip(plain, quick, strict=True) if text is not None}
        left = [pair for pair in pairs if pair not in found]
        found |= zip(left, super().texts(left), strict=True)
        return [found[pair] for pair in pairs]


class Splitter(Protocol):
    """One way to cut texts."""

    strange: tuple[str, ...]
    """What a text must not hold to go this way."""

    def texts(self, pairs: Sequence[Pair]) -> list[Text | None]:
        """The tokens of each pair; None where `tokenizers` has to be asked."""
        ...


def quick_splitter(tokenizer: Tokenizer) -> Splitter | None:
    """The way that this tokenizer's texts can go, if there is one."""
    whole: dict[str, Any] = json.loads(tokenizer.to_str())
    model, cutter = whole["model"], whole.get("pre_tokenizer") or {}
    if whole.get("normalizer"):
        return None
    known: Mapping[str, int] = model["vocab"] if isinstance(model.get("vocab"), dict) else {}
    if cutter.get("type") == "WhitespaceSplit" and model["type"] == "WordLevel" and model["unk_token"] in known:
        return _Spaces(known, known[model["unk_token"]])
    single = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
    # A BPE may mark the ends of words in its vocabulary: then a character's token is not the one of its own name.
    alone = model["type"] == "BPE" and not model["merges"] and not model.get("end_of_word_suffix")
    if cutter == single and (model["type"] == "WordLevel" or alone):
        return _Characters(known)
    words = word_encoder(tokenizer, whole)
    return None if words is None else _Remembered(words)


class _Known(dict[str, int]):
    """Ids of words; `unknown` for all others."""

    def __init__(self, known: Mapping[str, int], unknown: int) -> None:
        super().__init__(known)
        self.unknown = unknown

    def __missing__(self, word: str) -> int:
        return self.unknown


class _Spaces:
    """Words between white space, and one id for those that are not known."""

    strange: tuple[str, ...] = _NO_SPACE

    def __init__(self, known: Mapping[str, int], unknown: int) -> None:
        self._ids = _Known(known, unknown)

    def texts(self, pairs: Sequence[Pair]) -> list[Text | None]:
        words: list[str] = []
        ends = [0]
        for context, continuation in pairs:
            words += (context + continuation).split()
            ends.append(len(words))
        ids = np.fromiter(map(self._ids.__getitem__, words), np.int32, len(words))
        return [
            _spaced(ids[start:end], *pair) if pair[0] else Text(ids[start:end], None)
            for pair, start, end in zip(pairs, ends[:-1], ends[1:], strict=True)
        ]


def _spaced(ids: Ids, context: str, continuation: str) -> Text:
    """Where words lie about the end of a context: white space behind it belongs to the word that comes next."""
    inside = len(context.split())
    if context[-1].isspace():
        return Text(ids, None, inside, inside < len(ids))
    if continuation and not continuation[0].isspace():
        return Text(ids, None, inside - 1, spanned=True)
    return Text(ids, None, inside)


class _Characters:
    """Single characters, all of them known."""

    strange: tuple[str, ...] = ()

    def __init__(self, known: Mapping[str, int]) -> None:
        self._ids = _Known(known, -1)

    def texts(self, pairs: Sequence[Pair]) -> list[Text | None]:
        found: list[Text | None] = []
        for context, continuation in pairs:
            text = context + continuation
            ids = np.fromiter(map(self._ids.__getitem__, text), np.int32, len(text))
            found.append(None if len(ids) and ids.min() < 0 else Text(ids, None, len(context)))
        return found


class _Remembered:
    """Byte-level BPE by remembered words, where there is no context to find the end of."""

    strange: tuple[str, ...] = ()

    def __init__(self, words: WordEncoder) -> None:
        self._words = words

    def texts(self, pairs: Sequence[Pair]) -> list[Text | None]:
        found: list[Text | None] = [None] * len(pairs)
        bare = [place for place, (context, _) in enumerate(pairs) if not context]
        for place, ids in zip(bare, self._words.encode([pairs[place][1] for place in bare]), strict=True):
            if ids is not None:
                found[place] = Text(ids.view(np.int32), None)
        return found
