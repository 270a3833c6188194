"""Token texts laid over the text that they spell.

A byte-level vocabulary splits characters that it does not know over several tokens, and a token that holds part of a
character has no text but "\\ufffd". Readers of the page want the characters: tokens between two readable ones are drawn
as one stretch of the original text, with the sum of their log-probabilities.
"""

from collections.abc import Sequence

from lydite.types import LogProbs

BROKEN = "\ufffd"
MAX_BYTES = 4
"""UTF-8 bytes of a character, so at most as many tokens."""
MAX_BEFORE = 24
"""Characters before the border at which scoring may have begun."""
Stretch = tuple[str, float, int]
"""Text, log-probability in nats, number of tokens."""


def stretches(output: LogProbs, text: str, before: str = "") -> list[Stretch]:
    """The scored tokens as stretches of `text`, in order; as they are where they cannot be laid over it.

    `before` is what stands before `text`: where a token crosses the border, scoring began in it.
    """
    plain: list[Stretch] = [(t, p, 1) for t, p in zip(output.tokens, output.logprobs, strict=True)]
    if not any(BROKEN in token for token in output.tokens):
        return plain
    for length in range(min(len(before), MAX_BEFORE) + 1):
        found = _lay(plain, before[len(before) - length :] + text)
        if found is not None:
            return found
    return plain


def _lay(tokens: Sequence[Stretch], text: str) -> list[Stretch] | None:
    found: list[Stretch] = []
    position, broken = 0, []
    for token, logprob, _ in tokens:
        if BROKEN in token or not token:
            broken.append(logprob)
            continue
        # The tokens in between spell at least one character for every MAX_BYTES of them.
        start = text.find(token, position + -(-len(broken) // MAX_BYTES))
        if start < 0 or (not broken and text[position:start].strip()):
            return None
        if broken:
            found.append((text[position:start], sum(broken), len(broken)))
        found.append((token if broken else text[position:start] + token, logprob, 1))
        position, broken = start + len(token), []
    if bool(broken) != (position < len(text)):
        return None
    return [*found, (text[position:], sum(broken), len(broken))] if broken else found
