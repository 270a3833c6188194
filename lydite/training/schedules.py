"""Learning rates by step: pure functions of the step, so that a schedule has no state to save.

The values are those of transformers' schedulers of the same names (`get_scheduler`); `wsd` is its
`warmup_stable_decay` with a linear decay over the last `decay_steps`. Step k (from 0) is the k-th update.
"""

import math
from collections.abc import Callable
from typing import Literal

Schedule = Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd"]


def factor(schedule: Schedule, step: int, *, warmup: int, steps: int, floor: float, decay: int) -> float:
    """What the base learning rate is multiplied with at update `step` of `steps`.

    `warmup`: updates over which it grows linearly from 0; `floor`: what cosine, linear and wsd end at; `decay`: updates
    of wsd's decay.
    """
    if step < warmup:
        return step / warmup
    return _AFTER[schedule](step, warmup, steps, floor, decay)


def _constant(step: int, warmup: int, steps: int, floor: float, decay: int) -> float:
    return 1.0


def _linear(step: int, warmup: int, steps: int, floor: float, decay: int) -> float:
    left = max(0.0, (steps - step) / max(1, steps - warmup))
    return floor + (1 - floor) * left


def _cosine(step: int, warmup: int, steps: int, floor: float, decay: int) -> float:
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def _inverse_sqrt(step: int, warmup: int, steps: int, floor: float, decay: int) -> float:
    """Vaswani et al. 2017: proportional to 1 / sqrt(step). Without warmup it starts as after 10,000, as in transformers."""
    shift = warmup or 10_000
    return 1 / math.sqrt((step + shift - warmup) / shift)


def _wsd(step: int, warmup: int, steps: int, floor: float, decay: int) -> float:
    """Warmup, stable, decay (Hu et al. 2024, MiniCPM)."""
    start = max(warmup, steps - decay)
    if step < start:
        return 1.0
    return floor + (1 - floor) * max(0.0, 1 - (step - start) / max(1, steps - start))


_AFTER: dict[Schedule, Callable[[int, int, int, float, int], float]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "inverse_sqrt": _inverse_sqrt,
    "wsd": _wsd,
}
