"""The oracle of the engine's tests: plain transformers, one sequence a forward, log_softmax over all logits."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from lydite.engine.tokens import Window


def window(ids: Sequence[int], first: int) -> Window:
    """A Window from plain numbers."""
    return Window(np.asarray(ids, dtype=np.int32), first)


def naive(model: PreTrainedModel, ids: Sequence[int], first: int) -> tuple[list[float], bool]:
    """log p(ids[i] | ids[:i]) for i from `first` on, in nats; and whether each of them is the most likely token."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([list(ids[:-1])]), use_cache=False).logits[0, first - 1 :].float()
    targets = torch.tensor(list(ids[first:]))
    values: list[float] = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].tolist()
    return values, bool((logits.argmax(-1) == targets).all())
