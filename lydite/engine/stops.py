"""Where a generated text ends: before its stop strings, or with its first line."""

from lydite.types import Decoding


def has_stop(decoding: Decoding) -> bool:
    """Whether something in a text can end it."""
    return bool(decoding.stop_strings) or decoding.one_line


def stop_in(text: str, decoding: Decoding) -> int | None:
    """Where something in a text ends it: the index of the first character that is cut off. None: nowhere."""
    ends = [end for stop in decoding.stop_strings if (end := text.find(stop)) >= 0]
    if decoding.one_line and (end := text.find("\n", len(text) - len(text.lstrip()))) >= 0:
        ends.append(end)
    return min(ends, default=None)
