"""What records refuse, in words for the person who set it; apart from types.py, which holds the nouns alone.

Contract: a ValueError in one line, which msgspec turns into a ValidationError where a record is read.
"""

import math
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from lydite.types import Decoding


def finite(owner: str, *values: float | None) -> None:
    """ValueError where a number of `owner` is infinite or none at all."""
    for value in values:
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{owner} refuses the non-finite number {value}")


def check_decoding(decoding: "Decoding") -> None:
    """ValueError for options that mean nothing, alone or together."""
    finite(
        "Decoding", decoding.temperature, decoding.top_p, decoding.min_p, decoding.typical_p, decoding.length_penalty
    )
    finite("Decoding", decoding.repetition_penalty, decoding.presence_penalty)
    if min(decoding.max_new_tokens, decoding.num_beams) < 1:
        raise ValueError("max_new_tokens and num_beams must be 1 or more")
    if (
        min(decoding.temperature, decoding.top_p, decoding.top_k, decoding.min_p) < 0
        or decoding.repetition_penalty <= 0
    ):
        raise ValueError("temperature, top_p, top_k and min_p must be 0 or more, repetition_penalty above 0")
    if decoding.min_p > 1 or not 0 < decoding.typical_p <= 1:
        raise ValueError("min_p must be 1 or less, typical_p above 0 and 1 or less")
    if "" in decoding.stop_strings:
        raise ValueError("an empty stop string would end every answer at once")
    if decoding.is_constrained:
        _check_form(decoding)


def _check_form(decoding: "Decoding") -> None:
    if (decoding.regex is not None) + (decoding.json_schema is not None) + bool(decoding.choices) > 1:
        raise ValueError("regex, json_schema and choices exclude each other; keep one of them")
    if decoding.regex == "" or "" in decoding.choices:
        raise ValueError("an empty regex or choice would leave nothing to answer")
    if isinstance(decoding.json_schema, str):
        try:
            msgspec.json.decode(decoding.json_schema, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ValueError(f"json_schema is no JSON object: {error}") from error
    if decoding.num_beams > 1:
        raise ValueError("regex, json_schema and choices cannot be combined with beam search; leave num_beams out")
