"""`torchrun -m tests.training.processes NAME OUT TEXT [STEP]`: the tiny recipe with one way of sharing it.

With STEP the last process dies without a word once that step is done, the first time that it gets there.
"""

import os
import sys
from pathlib import Path

from lydite.training.loop import Loop
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
    name, out, text, *steps = sys.argv[1:]
    died = Path(f"{out}.died")
    if steps and os.environ["RANK"] == "1" and not died.exists():
        train_step = Loop._train_step

        def dying(self: Loop) -> None:
            train_step(self)
            if self.state.step == int(steps[0]):
                died.touch()
                os._exit(1)

        Loop._train_step = dying  # type: ignore[method-assign]
    pretrain(recipe_for(name, Path(text)), Path(out))
