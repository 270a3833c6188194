"""A recipe that trains in a second, for the tests of training."""

import random
from pathlib import Path
from typing import Any

from lydite.training.log import StepLine, read_log
from lydite.training.recipe import Recipe, make_recipe

MODEL = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 16, "resid_pdrop": 0.1, "embd_pdrop": 0.1}


def write_text(path: Path, size: int = 2000, seed: int = 0) -> Path:
    """Words of a made-up language."""
    chance = random.Random(seed)
    words = ["ba", "do", "kemi", "lu", "sarto", "ti", "vo", "nelu"]
    text = ""
    while len(text) < size:
        text += chance.choice(words) + chance.choice([" ", " ", " ", ". ", "\n"])
    path.write_text(text, encoding="utf-8")
    return path


def tiny_recipe(text: Path, **tables: dict[str, Any]) -> Recipe:
    """`tables` override single keys: training={"max_steps": 3}."""
    plain: dict[str, Any] = {
        "model": {"family": "gpt2", "config": MODEL},
        "data": {"text": [str(text)], "tokenizer": "characters"},
        "objective": [{"name": "causal", "context": 16, "end_of_document": False}],
        "training": {"max_steps": 12, "batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 2},
        "save": {"every": 3},
    }
    for name, table in tables.items():
        plain[name] = plain.get(name, {}) | table if isinstance(table, dict) else table
    return make_recipe(plain)


def curve(folder: Path) -> list[tuple[int, float, float, float]]:
    """(step, loss, gradient norm, learning rate) of every step in the log."""
    return [
        (line.step, line.loss, line.grad_norm, line.learning_rate)
        for line in read_log(folder)
        if isinstance(line, StepLine)
    ]
