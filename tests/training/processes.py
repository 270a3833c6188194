"""`torchrun -m tests.training.processes NAME OUT TEXT`: the tiny recipe with one way of sharing it."""

import sys
from pathlib import Path

from lydite.training.start import pretrain
from tests.training.test_loop import NO_DROPOUT
from tests.training.tinyrun import tiny_recipe

WAYS = {
    "ddp": {},
    "ddp-bfloat16": {"dtype": "bfloat16"},
    "fsdp": {"average": "ema", "parallel": "fsdp"},
}


def recipe_for(name: str, text: Path):
    table = {"gradient_accumulation_steps": 2, "max_steps": 6} | WAYS[name]
    return tiny_recipe(text, model=NO_DROPOUT, training=table)


if __name__ == "__main__":
    pretrain(recipe_for(sys.argv[1], Path(sys.argv[3])), Path(sys.argv[2]))
