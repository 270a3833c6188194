"""From new tokens to text: where an answer ends, and what it says.

Contract: text is what the new tokens add to the prompt's text, without special tokens; it is cut at the first
end-of-sequence token and before the first stop string, also where that spans several tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from lydite.engine.constrain import Constraints
from lydite.engine.stops import has_stop, stop_in
from lydite.engine.tokens import Encoder
from lydite.types import Completion, Decoding, Failure

_TAIL = 4
"""Prompt tokens that are decoded along with new ones, because some tokenizers drop a leading space."""
_MORE = 8
"""Tokens before those that a stop string can span which are decoded along, so that characters are whole."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request's prompt as token ids."""

    index: int
    """Of the request."""
    ids: list[int]
    num_truncated: int


class Texts:
    """Begins and ends generated texts for one encoder and its model (None: one that is none of transformers')."""

    def __init__(self, model: PreTrainedModel | None, encoder: Encoder) -> None:
        self.encoder = encoder
        self.eos = _eos_ids(model, encoder)
        self.constraints = Constraints(encoder, self.eos)

    def fit(self, index: int, ids: list[int], decoding: Decoding) -> Prompt | Failure:
        """A prompt with room for the new tokens in the model's length, cut from the left where it must be."""
        longest = self.encoder.max_tokens
        if not ids:
            return Failure(reason="the prompt is empty and the tokenizer has neither BOS nor EOS to begin with")
        if longest is None:
            return Prompt(index, ids, 0)
        room = longest - decoding.max_new_tokens
        if room < 1 + len(self.encoder.prefix):
            return Failure(
                reason=f"max_new_tokens {decoding.max_new_tokens} leaves no room for a prompt in the model's {longest} tokens"
            )
        return Prompt(index, *self.encoder.fit(ids, room))

    def is_done(self, new: Sequence[int], decoding: Decoding) -> bool:
        """Whether an answer ends with its last token; called after every token."""
        if len(new) >= decoding.max_new_tokens or new[-1] in self.eos:
            return True
        return has_stop(decoding) and self.has_stop(new, decoding)

    def has_stop(self, new: Sequence[int], decoding: Decoding) -> bool:
        """Whether something at the end of the text so far ends it (where else, it was seen before)."""
        tail = max((len(stop.encode()) for stop in decoding.stop_strings), default=1) + _MORE
        text = self.encoder.decode(new[-tail:])
        if any(stop in text for stop in decoding.stop_strings):
            return True
        return decoding.one_line and "\n" in text and stop_in(self.encoder.decode(new), decoding) is not None

    def finish(self, prompt: Prompt, new: Sequence[int], decoding: Decoding, *, complete: bool = False) -> Completion:
        """The answer, cut at the end-of-sequence token and before what ends it; later tokens are ignored.

        `complete`: its constraint lets nothing follow, so that it was not cut by max_new_tokens.
        """
        end = next((i for i, token in enumerate(new) if token in self.eos), None)
        ids = list(new if end is None else new[:end])
        text, count = self.text(prompt, ids, skip_special=True), len(ids)
        stopped = complete or end is not None
        if has_stop(decoding) and stop_in(self.text(prompt, ids), decoding) is not None:
            stopped = True
            low, high = 1, len(ids)  # the fewest tokens whose text holds what ends it
            while low < high:
                middle = (low + high) // 2
                found = stop_in(self.text(prompt, ids[:middle]), decoding) is not None
                low, high = (low, middle) if found else (middle + 1, high)
            count = low
            text = self.text(prompt, ids[:count], skip_special=True)
            text = text[: stop_in(text, decoding)]
        return Completion(
            text=text,
            num_tokens=count,
            finish="stop" if stopped else "length",
            num_truncated=prompt.num_truncated,
        )

    def text(self, prompt: Prompt, ids: list[int], *, skip_special: bool = False) -> str:
        """What the new tokens add to the prompt's text."""
        before = prompt.ids[-_TAIL:]
        head = self.encoder.decode(before, skip_special=skip_special)
        whole = self.encoder.decode(before + ids, skip_special=skip_special)
        return whole[len(head) :] if whole.startswith(head) else self.encoder.decode(ids, skip_special=skip_special)


def _eos_ids(model: PreTrainedModel | None, encoder: Encoder) -> frozenset[int]:
    """All tokens that end a text: the generation config's, the model config's and the tokenizer's."""
    found: set[int] = set()
    stated = [encoder.tokenizer.eos_token_id]
    if model is not None:
        stated.append(model.config.get_text_config().eos_token_id)
        if model.can_generate():
            stated.append(model.generation_config.eos_token_id)
    for given in stated:
        found.update([given] if isinstance(given, int) else given or [])
    return frozenset(found)
