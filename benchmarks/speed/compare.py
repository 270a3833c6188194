"""Lydite's answers beside the peer's, request by request, and the metrics that follow from each."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from speed.measure import Comparison

Line = dict[str, Any]
Answers = Sequence[Any]


def compare(kind: str, lines: Sequence[Line], ours: Answers, theirs: Answers | None) -> Comparison:
    """`ours` and `theirs` as ours.py and peer.py wrote them, in the order of `lines`; theirs may be missing."""
    if kind in ("generate", "decode"):
        return _texts(kind, lines, ours, theirs)
    totals = [float("-inf") if one[0] is None else float(one[0]) for one in ours]
    found = Comparison(requests=len(lines), spanned=sum(one[0] is not None and one[2] == "spanned" for one in ours))
    if kind == "rolling":
        found.ours = _rolling(lines, totals)
    else:
        found.ours = _decisions(kind, lines, totals, [bool(one[1]) for one in ours])
    # Where a request failed, a total has no value; decisions have one.
    found.ours = {name: value for name, value in found.ours.items() if math.isfinite(value)}
    if theirs is None:
        return found
    other = [float(one if kind == "rolling" else one[0]) for one in theirs]
    answered = [i for i, one in enumerate(ours) if one[0] is not None]
    found.failed = len(ours) - len(answered)
    found.largest = max((abs(totals[i] - other[i]) for i in answered), default=None)
    if kind == "rolling":
        found.theirs = _rolling(lines, other)
        return found
    found.theirs = _decisions(kind, lines, other, [bool(one[1]) for one in theirs])
    if kind == "choice":
        found.flips, found.flip_margin = _flips(lines, totals, other)
    else:
        found.flips = sum(bool(a[1]) != bool(b[1]) for a, b in zip(ours, theirs, strict=True))
    return found


def _by_doc(lines: Sequence[Line]) -> list[list[int]]:
    """The requests of each document, in the order of the choices."""
    docs: dict[int, list[int]] = defaultdict(list)
    for position, line in enumerate(lines):
        docs[line["doc"]].append(position)
    return [sorted(members, key=lambda i: lines[i]["index"]) for members in docs.values()]


def _best(members: Sequence[int], values: Sequence[float]) -> int:
    return max(range(len(members)), key=lambda k: values[members[k]])


def _flips(lines: Sequence[Line], ours: Sequence[float], theirs: Sequence[float]) -> tuple[int, float | None]:
    margins = []
    for members in _by_doc(lines):
        if _best(members, ours) != _best(members, theirs):
            first, second = sorted((theirs[i] for i in members), reverse=True)[:2]
            margins.append(first - second)
    return len(margins), max(margins, default=None)


def _decisions(kind: str, lines: Sequence[Line], totals: Sequence[float], greedy: Sequence[bool]) -> dict[str, float]:
    if kind == "last_word":
        return {"acc": sum(greedy) / len(greedy), "perplexity": math.exp(-math.fsum(totals) / len(totals))}
    docs = _by_doc(lines)
    lengths = [len(line["args"][1].removeprefix(" ")) for line in lines]  # of the choice, without what joins it on
    per_sign = [total / length for total, length in zip(totals, lengths, strict=True)]
    found = {"acc": totals, "acc_norm": per_sign}
    return {
        name: sum(_best(members, values) == int(lines[members[0]]["gold"]) for members in docs) / len(docs)
        for name, values in found.items()
    }


def _rolling(lines: Sequence[Line], totals: Sequence[float]) -> dict[str, float]:
    size = sum(len(line["args"][0].encode()) for line in lines)
    return {"bits_per_byte": -math.fsum(totals) / math.log(2) / size}


def _texts(kind: str, lines: Sequence[Line], ours: Answers, theirs: Answers | None) -> Comparison:
    texts = [str(one[0]) for one in ours]
    found = Comparison(requests=len(lines))
    if kind == "generate":
        found.ours = {"exact_match": _numbers(lines, texts)}
    if theirs is not None:
        other = [one if kind == "generate" else one[0] for one in theirs]
        found.flips = sum(a.strip() != b.strip() for a, b in zip(texts, other, strict=True))
        if kind == "generate":
            found.theirs = {"exact_match": _numbers(lines, other)}
    return found


def _numbers(lines: Sequence[Line], texts: Sequence[str]) -> float:
    """The share of texts whose last number is that behind the #### of the solution."""
    right = 0
    for line, text in zip(lines, texts, strict=True):
        found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
        gold = str(line["gold"]).rpartition("####")[2].strip()
        right += bool(found) and found[-1].replace(",", "") == gold.replace(",", "")
    return right / len(lines)
