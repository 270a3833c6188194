"""The oracle of the engine's tests: plain transformers, one sequence a forward, log_softmax over all logits."""

import torch
from transformers import PreTrainedModel


def naive(model: PreTrainedModel, ids: list[int], first: int) -> tuple[list[float], bool]:
    """log p(ids[i] | ids[:i]) for i from `first` on, in nats; and whether each of them is the most likely token."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids[:-1]]), use_cache=False).logits[0, first - 1 :].float()
    targets = torch.tensor(ids[first:])
    values: list[float] = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].tolist()
    return values, bool((logits.argmax(-1) == targets).all())
