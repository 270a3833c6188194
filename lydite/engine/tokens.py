"""Text to token ids: where the continuation begins, which special token comes first, how long texts are cut.

Three rules decide numbers, so they live in one place:

* The join. The whole text is tokenized once. If a token spans the border of context and continuation, scoring starts at
  the last token border before it, the same one for all requests of a sample that share a context, so that choices are
  never compared from different starts; such requests are flagged `spanned`. A scored span is never empty.
* BOS. It stands in front exactly once where the tokenizer's own configuration or the model's family wants it. Where
  neither does and nothing else precedes the first scored token, BOS (else EOS) is put in front as context only.
* Windows. `none` cuts the context from the left; `max_context` slides by half the model's length, so that every token
  outside the first window sees at least that much context; `disjoint` lets each window predict as many tokens as the
  model holds, from one token of context.

Contract: each Window is a sequence whose tokens from `first` on are scored, `1 <= first < len(ids)`, and
`len(ids) - 1 <= max_tokens` (the last token is never an input).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jinja2
import numpy as np
import numpy.typing as npt
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from lydite.errors import ModelError
from lydite.types import Failure, Message, ScoreRequest

_SLICE = 512
"""Texts that are tokenized at one time; the tokenizer uses all cores for them."""
_KNOWN_CHATS = 10_000

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Window:
    """One sequence for the network; `ids[first:]` are scored, each given all ids before it."""

    ids: Ids
    first: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request as windows; the scored tokens of all windows, in order, are the scored span."""

    windows: list[Window]
    join: Literal["clean", "spanned"] = "clean"
    num_truncated: int = 0

    @property
    def num_positions(self) -> int:
        """Token positions that a naive loop would compute."""
        return sum(len(window.ids) - 1 for window in self.windows)


@dataclass(frozen=True, slots=True)
class Text:
    """The tokens of one text, and how they lie about the end of its context."""

    ids: Ids
    encoding: Encoding | None
    """What `tokenizers` said; None where it was not asked (engine/quick.py)."""
    inside: int = 0
    """How many tokens end within the context."""
    spanned: bool = False
    """Whether the next one holds characters of the context."""

    def words(self) -> Ids:
        """Number of the word that each token is part of, as the pre-tokenizer cuts words; -1 where it is of none."""
        assert self.encoding is not None, "the masked encoder asks tokenizers"
        return np.asarray([-1 if word is None else word for word in self.encoding.word_ids], dtype=np.int32)


class Encoder:
    """Turns requests into token ids for one tokenizer and one model length.

    `wants_bos`: what the model's family or the user asks for; None leaves it to the tokenizer's own configuration, False
    leaves all special tokens out.
    `max_tokens`: positions that the model can take; None means no limit.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_tokens: int | None,
        wants_bos: bool | None = None,
        chat_options: Mapping[str, Any] | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"the tokenizer {type(tokenizer).__name__} gives no character offsets; save a tokenizer.json beside the weights"
            )
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.chat_options = dict(chat_options or {})
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_padding()
        self._backend.no_truncation()
        self.prefix, self.suffix = self._find_specials(wants_bos)
        lead = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        self.lead: tuple[int, ...] = self.prefix or (() if lead is None else (lead,))
        self._chats: dict[tuple[Message, ...], str] = {}
        self._pieces: dict[int, str] = {}

    def _find_specials(self, wants_bos: bool | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens that the tokenizer puts before every text (else the family's BOS) and behind it."""
        if wants_bos is False:
            return (), ()
        plain = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        full = self.tokenizer("a")["input_ids"]
        starts = [i for i in range(len(full)) if full[i : i + len(plain)] == plain]
        prefix = tuple(full[: starts[0]]) if starts else ()
        suffix = tuple(full[starts[0] + len(plain) :]) if starts else ()
        if not prefix and wants_bos:
            if self.tokenizer.bos_token_id is None:
                raise ModelError("this family of models needs a BOS token, but its tokenizer names none; set bos_token")
            prefix = (self.tokenizer.bos_token_id,)
        return prefix, suffix

    @property
    def settings(self) -> dict[str, Any]:
        """What of all this changes numbers, for ModelInfo.settings."""
        names = self.tokenizer.convert_ids_to_tokens
        bos = "".join(names(list(self.prefix))) if self.prefix else "none"
        if not self.prefix and self.lead:
            bos += f" ({names(self.lead[0])} before an empty context)"
        template = self.tokenizer.chat_template
        chat = hashlib.sha256(str(template).encode()).hexdigest()[:12] if template else "none"
        stride = None if self.max_tokens is None else self._body() // 2
        return {"bos": bos, "chat_template": chat, "chat_options": self.chat_options, "max_context_stride": stride}

    # ---------------------------------------------------------------------------------------- texts

    def render(self, messages: tuple[Message, ...]) -> str:
        """Messages as the chat template writes them, up to where the model's turn begins."""
        known = self._chats.get(messages)
        if known is not None:
            return known
        if not self.tokenizer.chat_template:
            raise ModelError("the model has no chat template; leave --chat out or set chat_template=FILE")
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, **self.chat_options
            )
        except jinja2.TemplateError as error:
            raise ModelError(f"the model's chat template refuses these messages: {error}") from error
        if len(self._chats) >= _KNOWN_CHATS:
            self._chats.clear()
        self._chats[messages] = text
        return str(text)

    def text_of(self, token: int) -> str:
        """One token as text (a part of a character shows as U+FFFD)."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self.decode([token])
        return known

    def texts_of(self, tokens: Sequence[int]) -> tuple[str, ...]:
        """`text_of` each of them."""
        try:
            return tuple(map(self._pieces.__getitem__, tokens))
        except KeyError:  # one that was not asked for before
            return tuple(map(self.text_of, tokens))

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Tokens as text, spaces as they are."""
        return str(
            self.tokenizer.decode(list(ids), skip_special_tokens=skip_special, clean_up_tokenization_spaces=False)
        )

    def prompt_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Prompts for generation: the same BOS rule as for scoring; an empty prompt is the leading token alone."""
        return [self._before(ids) + ids for ids in self.text_ids(texts)]

    def text_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Texts without any special tokens around them."""
        found = {text: encoding.ids for text, encoding in self._tokenize(texts).items()}
        return [found[text] for text in texts]

    def _tokenize(self, texts: Iterable[str]) -> dict[str, Encoding]:
        """Each distinct text once, no special tokens added."""
        distinct = list(dict.fromkeys(texts))
        return dict(zip(distinct, self._backend.encode_batch(distinct, add_special_tokens=False), strict=True))

    def _before(self, ids: Sequence[int] | Ids) -> list[int]:
        """What to put before these ids: nothing where they bring their BOS along, the lead where there is nothing."""
        if not len(ids):
            return list(self.lead)
        return [] if self._num_fixed(ids) else list(self.prefix)

    def _num_fixed(self, ids: Sequence[int] | Ids) -> int:
        """How many ids at the front are the prefix, which stays in every window."""
        size = len(self.prefix)
        return size if size and tuple(map(int, ids[:size])) == self.prefix else 0

    def fit(self, ids: list[int], room: int) -> tuple[list[int], int]:
        """A prompt cut from the left to `room` ids, its prefix kept; and how many were dropped."""
        dropped = max(0, len(ids) - room)
        fixed = self._num_fixed(ids)
        return ids[:fixed] + ids[fixed + dropped :], dropped

    # ------------------------------------------------------------------------------------- requests

    def encode(self, requests: Sequence[ScoreRequest]) -> list[Encoded | Failure]:
        """One Encoded, or the reason why there is none, for each request.

        Requests with the same sample_id and the same context must come in one call, because they share their cut.
        """
        answers: list[Encoded | Failure | None] = [None] * len(requests)
        for i, text, cut in self.place(requests):
            answers[i] = self._encode_one(requests[i], text, cut)
        return [answer for answer in answers if answer is not None]

    def place(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, Text, int]]:
        """Yields (index, its context and continuation as tokens, how many of them come before the scored span)."""
        groups: dict[tuple[str, str], list[int]] = {}
        for i, request in enumerate(requests):
            context = self.render(request.messages) if request.messages else request.context
            groups.setdefault((request.sample_id, context), []).append(i)
        for some in _slices(groups):
            texts = iter(self.texts([(c, requests[i].continuation) for (_, c), members in some for i in members]))
            for _, members in some:
                own = [next(texts) for _ in members]
                cut = common_cut(own)
                for i, text in zip(members, own, strict=True):
                    yield i, text, cut

    def texts(self, pairs: Sequence[tuple[str, str]]) -> list[Text]:
        """The tokens of each (context, continuation) as one text."""
        found = self._tokenize(context + continuation for context, continuation in pairs)
        return [_place(found[context + continuation], context) for context, continuation in pairs]

    def _encode_one(self, request: ScoreRequest, text: Text, cut: int) -> Encoded | Failure:
        if not request.continuation:
            return Failure(reason="the continuation is empty")
        spanned = text.spanned or cut < text.inside
        before = self._before(text.ids)
        if not before and cut == 0 and len(text.ids):
            if self.prefix:  # the text brought its own BOS along: it is context
                cut = len(self.prefix)
            else:
                before = list(self.lead)
        if cut >= len(text.ids):
            return Failure(reason=f"the continuation {request.continuation!r} has no tokens of its own")
        if not before and cut == 0:
            return Failure(reason="the tokenizer has neither BOS nor EOS to stand before the first scored token")
        ids = np.concatenate([np.asarray(before, dtype=np.int32), text.ids])
        return self._windows(request.window, ids, len(before) + cut, "spanned" if spanned else "clean")

    def _body(self) -> int:
        """Input positions left in a window once the prefix stands in it."""
        assert self.max_tokens is not None
        return self.max_tokens - len(self.prefix)

    def _windows(
        self,
        kind: Literal["none", "max_context", "disjoint"],
        ids: Ids,
        first: int,
        join: Literal["clean", "spanned"],
    ) -> Encoded | Failure:
        """Cut to the model's length; the prefix stays in every window."""
        limit = None if self.max_tokens is None else self.max_tokens + 1  # the last token is never an input
        if limit is None or len(ids) <= limit:
            return Encoded([Window(ids, first)], join)
        fixed = self._num_fixed(ids)
        if kind == "none":
            scored = len(ids) - first
            if scored + max(fixed, 1) > limit:
                return Failure(
                    reason=f"the continuation has {scored} tokens, more than the model's {self.max_tokens} can hold; "
                    "ask for windows (max_context or disjoint)"
                )
            dropped = len(ids) - limit
            kept = np.concatenate([ids[:fixed], ids[fixed + dropped :]])
            return Encoded([Window(kept, first - dropped)], join, dropped)
        front, body, start = ids[:fixed], ids[fixed:], first - fixed
        cut = slide if kind == "max_context" else disjoint
        spans = cut(len(body), start, limit - fixed)
        return Encoded([Window(np.concatenate([front, body[a:b]]), fixed + s - a) for a, s, b in spans], join)


def _slices(groups: Mapping[tuple[str, str], list[int]]) -> Iterator[list[tuple[tuple[str, str], list[int]]]]:
    """Groups in runs of about _SLICE requests."""
    run: list[tuple[tuple[str, str], list[int]]] = []
    size = 0
    for group in groups.items():
        run.append(group)
        size += len(group[1])
        if size >= _SLICE:
            yield run
            run, size = [], 0
    if run:
        yield run


def _place(encoding: Encoding, context: str) -> Text:
    """Where the tokens of a text lie about the end of its context."""
    ids = np.asarray(encoding.ids, dtype=np.int32)
    join = len(context)
    if join == 0:
        return Text(ids, encoding)
    last = next((t for t in map(encoding.char_to_token, range(join - 1, -1, -1)) if t is not None), None)
    inside = 0 if last is None else last
    while inside < len(ids) and _span(encoding, inside)[1] <= join:
        inside += 1
    # Some tokenizers report a token " a" by the offsets of "a" alone: a trailing space that no token of the context
    # covers belongs to the next one.
    uncovered = context[-1].isspace() and (inside == 0 or _span(encoding, inside - 1)[1] < join)
    spanned = inside < len(ids) and (uncovered or _span(encoding, inside)[0] < join)
    return Text(ids, encoding, inside, spanned)


def _span(encoding: Encoding, token: int) -> tuple[int, int]:
    """Characters [start, end) of a token."""
    span = encoding.token_to_chars(token)
    assert span is not None, "only special tokens that a tokenizer adds stand for no text"
    return int(span[0]), int(span[1])


def common_cut(texts: Sequence[Text]) -> int:
    """How many tokens, equal in all texts, lie within the context: the border from which all of them are scored."""
    first = texts[0].ids
    cut = texts[0].inside
    for text in texts[1:]:
        cut = min(cut, text.inside)
        differs = text.ids[:cut] != first[:cut]
        if differs.any():
            cut = int(differs.argmax())
    return cut


def slide(length: int, start: int, room: int) -> list[tuple[int, int, int]]:
    """Windows (begin, first scored, end) over `length` tokens that score [start, length), moving by half a window.

    `room`: tokens that a window holds; the last one is not an input.
    """
    stride = max(1, room // 2)
    spans: list[tuple[int, int, int]] = []
    done = start
    while done < length:
        end = min(length, done + stride if spans else max(room, done + stride))
        spans.append((max(0, end - room), done, end))
        done = end
    return spans


def disjoint(length: int, start: int, room: int) -> list[tuple[int, int, int]]:
    """Windows (begin, first scored, end) that each score as many tokens as fit, with one token of context.

    The last window is filled up with context on its left, as in lm-evaluation-harness.
    """
    spans: list[tuple[int, int, int]] = []
    done = start
    while done < length:
        begin = max(0, done - 1)
        end = min(length, begin + room)
        spans.append((max(0, end - room) if end == length and spans else begin, done, end))
        done = end
    return spans
