"""Many tests at once: Holm and Benjamini-Hochberg adjustment, and groups of models that no test tells apart."""

from collections.abc import Collection, Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that bound the chance of any false finding (Holm 1979, Scandinavian J. Statistics 6:65)."""
    order = np.argsort(p_values, kind="stable")
    count, adjusted, largest = len(p_values), [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that bound the expected share of false findings (Benjamini and Hochberg 1995, JRSS B 57:289)."""
    order = np.argsort(p_values, kind="stable")[::-1]
    count, adjusted, least = len(p_values), [0.0] * len(p_values), 1.0
    for rank, place in enumerate(order):
        least = min(least, p_values[place] * count / (count - rank))
        adjusted[place] = least
    return adjusted


def rank_groups(count: int, different: Collection[tuple[int, int]]) -> list[str]:
    """Letters for `count` models, best first: two share a letter exactly where they are not in `different`.

    The compact letter display by insertion and absorption (Piepho 2004, J. Computational and Graphical Statistics
    13:456). "a" is the group of the best model.
    """
    columns = [frozenset(range(count))]
    for i, j in sorted(different):
        split = [
            part for column in columns for part in ([column - {i}, column - {j}] if {i, j} <= column else [column])
        ]
        distinct = list(dict.fromkeys(split))
        columns = [column for column in distinct if not any(column < other for other in distinct)]
    columns.sort(key=sorted)
    return [
        "".join(_letter(place) for place, column in enumerate(columns) if model in column) for model in range(count)
    ]


def _letter(place: int) -> str:
    """a to z, then a1, b1 ..."""
    return chr(ord("a") + place % 26) + (str(place // 26) if place >= 26 else "")
