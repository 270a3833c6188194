"""Every schedule against transformers' scheduler of that name."""

import pytest
import torch
from transformers import get_scheduler

from lydite.training.schedules import factor

CASES = {
    "constant": ("constant_with_warmup", {}, 0.0),
    "linear": ("linear", {}, 0.0),
    "cosine": ("cosine_with_min_lr", {"min_lr_rate": 0.1}, 0.1),
    "inverse_sqrt": ("inverse_sqrt", {}, 0.0),
    "wsd": ("warmup_stable_decay", {"num_decay_steps": 20, "decay_type": "linear"}, 0.0),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("warmup", [0, 10])
def test_equals_transformers(name, warmup):
    theirs, options, floor = CASES[name]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    steps = None if name in ("constant", "inverse_sqrt") else 100
    scheduler = get_scheduler(theirs, optimizer, warmup, steps, options)
    for step in range(100):
        ours = factor(name, step, warmup=warmup, steps=100, floor=floor, decay=20)
        assert ours == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12), step
        optimizer.step()
        scheduler.step()


def test_floor_is_where_decay_ends():
    for name in ("cosine", "linear", "wsd"):
        assert factor(name, 100, warmup=10, steps=100, floor=0.1, decay=20) == pytest.approx(0.1)
