"""Published scaling laws: what size of model and how much data a given amount of computation is best spent on.

    Kaplan et al. 2020      "Scaling Laws for Neural Language Models", appendix A
    Hoffmann et al. 2022    "Training Compute-Optimal Large Language Models" (Chinchilla): approaches 1, 2 and 3
    Besiroglu et al. 2024   "Chinchilla Scaling: A replication attempt": approach 3 fitted again to the paper's points
    Muennighoff et al. 2023 "Scaling Data-Constrained Language Models": what repeated data are worth

C is in floating-point operations (a multiplication and an addition are two), N in parameters, D in tokens, losses in nats a
token of the papers' own text and tokenizers. C = 6 N D throughout.

Where they do not apply: they were measured on left-to-right Transformers between the sizes named in each law, on English web
text, with learning rates tuned to the length of the run. On smaller models, other objectives, other
languages or data that are repeated they are a direction, not a number; losses do not carry over to other tokenizers at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lydite.types import Record

PF_DAY = 1e15 * 86_400
"""Kaplan's unit of computation."""
BILLION, TRILLION = 1e9, 1e12


class Optimum(Record, frozen=True, kw_only=True):
    """What a law says a budget is best spent on."""

    law: str
    parameters: float
    tokens: float
    loss: float | None = None
    """Nats a token of the paper's text, where the law has a loss."""
    note: str = ""
    """Why it is to be taken with care."""


@dataclass(frozen=True)
class Parametric:
    """L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, equation 2)."""

    name: str
    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """Nats a token."""
        return float(self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta)

    def optimum(self, operations: float) -> tuple[float, float]:
        """(N, D) of the lowest loss with C = 6 N D (equation 4): N = G (C/6)^(beta/(alpha+beta)), D = (C/6)^(alpha/(alpha+beta)) / G,
        G = (alpha A / (beta B))^(1/(alpha+beta))."""
        both = self.alpha + self.beta
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1 / both)
        parameters = g * (operations / 6) ** (self.beta / both)
        return parameters, operations / 6 / parameters

    def tokens_for(self, parameters: float) -> float:
        """D for which N is the optimum: alpha A / N^alpha = beta B / D^beta."""
        return float((self.beta * self.b * parameters**self.alpha / (self.alpha * self.a)) ** (1 / self.beta))

    def parameters_for(self, tokens: float) -> float:
        """N for which D is the optimum."""
        return float((self.alpha * self.a * tokens**self.beta / (self.beta * self.b)) ** (1 / self.alpha))


HOFFMANN_3 = Parametric("Hoffmann 2022, approach 3", 1.69, 406.4, 410.7, 0.34, 0.28)
"""Constants as printed. The exponents are rounded, which alone moves the optimum of a large budget (Besiroglu et al. 2024)."""
BESIROGLU = Parametric("Besiroglu 2024", 1.8172, 482.01, 2085.43, 0.3478, 0.3658)
MUENNIGHOFF = Parametric("Muennighoff 2023", 1.87, 521.0, 1488.0, 0.353, 0.353)
R_DATA, R_PARAMETERS = 15.39, 5.31
"""Muennighoff et al. 2023: after so many repetitions a further one is worth 1/e of a fresh pass (data; surplus parameters)."""

_Rows = Sequence[tuple[float, float, float]]
_APPROACH_1: _Rows = (
    (0.4e9, 1.92e19, 8.0 * BILLION), (1e9, 1.21e20, 20.2 * BILLION), (10e9, 1.23e22, 205.1 * BILLION),
    (67e9, 5.76e23, 1.5 * TRILLION), (175e9, 3.85e24, 3.7 * TRILLION), (280e9, 9.90e24, 5.9 * TRILLION),
    (520e9, 3.43e25, 11.0 * TRILLION), (1e12, 1.27e26, 21.2 * TRILLION), (10e12, 1.30e28, 216.2 * TRILLION),
)  # fmt: skip
"""Hoffmann et al. 2022, table 3: parameters, operations, tokens. Only the exponents of the lines are printed beside it (0.50
and 0.50), so the law is the line between rows."""
_APPROACH_2: _Rows = (
    (0.4e9, 1.84e19, 7.7 * BILLION), (1e9, 1.20e20, 20.0 * BILLION), (10e9, 1.32e22, 219.5 * BILLION),
    (67e9, 6.88e23, 1.7 * TRILLION), (175e9, 4.54e24, 4.3 * TRILLION), (280e9, 1.18e25, 7.1 * TRILLION),
    (520e9, 4.19e25, 13.4 * TRILLION), (1e12, 1.59e26, 26.5 * TRILLION), (10e12, 1.75e28, 292.0 * TRILLION),
)  # fmt: skip
"""Hoffmann et al. 2022, table A3, approach 2 (exponents 0.49 and 0.51)."""
_RANGES = {"Kaplan 2020": (768.0, 1.5e9), "Hoffmann 2022": (44e6, 16e9), "Besiroglu 2024": (44e6, 16e9)}
"""Sizes of the models that were trained: Kaplan's without embeddings."""


def kaplan(operations: float) -> Optimum:
    """N = 1.3e9 C^0.73, D = 2e10 C^0.27, L = (3.1e8 / C)^0.050 with C in PF-days (Kaplan et al. 2020, tables 5 and 6); N is
    without embeddings. Its learning rates were not tuned to the length of the runs, which is one reason why it asks for
    larger models on less data than all later laws."""
    days = operations / PF_DAY
    return _checked("Kaplan 2020", 1.3e9 * days**0.73, 2e10 * days**0.27, (3.1e8 / days) ** 0.050)


def kaplan_loss(parameters: float, tokens: float) -> float:
    """L(N, D) = ((6.4e13 / N)^(0.076 / 0.103) + 1.8e13 / D)^0.103, N without embeddings (Kaplan et al. 2020, equation 1.5 and
    table 2)."""
    return float(((6.4e13 / parameters) ** (0.076 / 0.103) + 1.8e13 / tokens) ** 0.103)


def hoffmann(operations: float) -> list[Optimum]:
    """Chinchilla's three approaches, which agree on about 20 tokens a parameter near the paper's budget but for the third."""
    found = []
    for number, rows in ((1, _APPROACH_1), (2, _APPROACH_2)):
        parameters, outside = _between(rows, operations)
        name = f"Hoffmann 2022, approach {number}"
        found.append(_checked(name, parameters, operations / 6 / parameters, None, outside))
    parameters, tokens = HOFFMANN_3.optimum(operations)
    return [*found, _checked(HOFFMANN_3.name, parameters, tokens, HOFFMANN_3.loss(parameters, tokens))]


def besiroglu(operations: float) -> Optimum:
    """Approach 3 with the constants of the replication: about 20 tokens a parameter too, as approaches 1 and 2 have it."""
    parameters, tokens = BESIROGLU.optimum(operations)
    return _checked(BESIROGLU.name, parameters, tokens, BESIROGLU.loss(parameters, tokens))


def optima(operations: float) -> list[Optimum]:
    """All laws for a budget."""
    return [kaplan(operations), *hoffmann(operations), besiroglu(operations)]


def effective_tokens(unique: float, epochs: float) -> float:
    """What `epochs` passes over `unique` tokens are worth in fresh ones: U + U R* (1 - exp(-R / R*)), R = epochs - 1
    (Muennighoff et al. 2023, equation 5)."""
    repeats = max(epochs - 1, 0.0)
    return unique * (min(epochs, 1.0) + R_DATA * -math.expm1(-repeats / R_DATA))


def effective_parameters(parameters: float, unique: float) -> float:
    """The same of parameters beyond the optimum U_N of the unique tokens (Muennighoff et al. 2023, equation 6)."""
    best = min(MUENNIGHOFF.parameters_for(unique), parameters)
    surplus = parameters / best - 1
    return best * (1 + R_PARAMETERS * -math.expm1(-surplus / R_PARAMETERS))


def constrained_loss(parameters: float, unique: float, epochs: float) -> float:
    """Nats a token after `epochs` passes over `unique` tokens (Muennighoff et al. 2023, on C4)."""
    return MUENNIGHOFF.loss(effective_parameters(parameters, unique), effective_tokens(unique, epochs))


def _between(rows: _Rows, operations: float) -> tuple[float, str]:
    """Parameters on the straight lines between the rows, both axes logarithmic; the outer lines go on."""
    outside = "" if rows[0][1] <= operations <= rows[-1][1] else "the line beyond the paper's table"
    place = next((i for i in range(1, len(rows) - 1) if operations <= rows[i][1]), len(rows) - 1)
    (n0, c0, _), (n1, c1, _) = rows[place - 1], rows[place]
    share = math.log(operations / c0) / math.log(c1 / c0)
    return n0 * (n1 / n0) ** share, outside


def _checked(law: str, parameters: float, tokens: float, loss: float | None, note: str = "") -> Optimum:
    low, high = _RANGES[law.partition(",")[0]]
    if not low <= parameters <= high:
        note = f"outside the {_short(low)} to {_short(high)} parameters that it was measured on"
    return Optimum(law=law, parameters=parameters, tokens=tokens, loss=loss, note=note)


def _short(number: float) -> str:
    return f"{number / 1e9:g}B" if number >= 1e9 else f"{number / 1e6:g}M" if number >= 1e6 else f"{number:g}"
