"""Text as it grows: what a new token adds that will not be taken back.

A character may take several tokens, and a text is cut before what ends it (a stop string, the end of its line): so what
might still become either is held back until it is certain.

Contract: what was handed out, with `rest` at the end, is exactly the finished answer's text.
"""

from collections.abc import Sequence

from lydite.engine.stops import stop_in
from lydite.engine.texts import Texts
from lydite.types import Decoding

_TAIL = 4
"""Tokens before a new one that are decoded along, because some tokenizers drop a leading space."""
_MOST_BYTES = 8
"""Tokens that a character may take; what is no character by then is shown as it is."""


class TextStream:
    """Follows one text; `before`: the prompt's tokens. `skip_special=False`: special tokens are text like others."""

    def __init__(
        self, texts: Texts, before: Sequence[int], decoding: Decoding | None = None, *, skip_special: bool = True
    ) -> None:
        self._texts = texts
        self._ids = list(before[-_TAIL:])
        self._settled = len(self._ids)
        """Tokens whose text is known."""
        self._decoding = decoding or Decoding()
        self._skip_special = skip_special
        self._held = ""
        self.sent = ""

    def push(self, token: int) -> str:
        """The text that is certain now; often the token's own, and often nothing."""
        if self._skip_special and token in self._texts.eos:
            return ""
        self._ids.append(token)
        start = max(0, self._settled - _TAIL)
        whole = self._decode(self._ids[start:])
        if whole.endswith("\ufffd") and len(self._ids) - self._settled < _MOST_BYTES:
            return ""
        head = self._decode(self._ids[start : self._settled])
        fresh = whole[len(head) :] if whole.startswith(head) else self._decode(self._ids[self._settled :])
        self._settled = len(self._ids)
        self._held += fresh
        return self._release()

    def rest(self, text: str) -> str:
        """What of the finished answer's text was not handed out yet."""
        return text[len(self.sent) :] if text.startswith(self.sent) else ""

    def _decode(self, ids: list[int]) -> str:
        return self._texts.encoder.decode(ids, skip_special=self._skip_special)

    def _release(self) -> str:
        """All of what is held but the beginning of a stop string, and what would follow the text's end."""
        size = len(self._held)
        for stop in self._decoding.stop_strings:
            ends = range(min(len(stop) - 1, size), 0, -1)
            size = min(size, next((len(self._held) - n for n in ends if self._held.endswith(stop[:n])), size))
        end = stop_in(self.sent + self._held, self._decoding)
        if end is not None:
            size = min(size, max(0, end - len(self.sent)))
        out, self._held = self._held[:size], self._held[size:]
        self.sent += out
        return out
