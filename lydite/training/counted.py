"""n-gram models from a recipe: counted in one pass, where the loop of loop.py takes steps.

    [model]
    family = "ngram"
    config = { order = 5, smoothing = "kneser_ney" }     see models/ngram.py

    [data]                                               as for every other family: corpus or text

The run's folder is that of every run: recipe.json, log.jsonl, model/. Contract: held-out loss and bits per byte count what
the loop's do for the objective `causal`: every token of every held-out document and its end, each document by itself. A
folder whose model is finished is not counted again.
"""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from lydite.errors import UserError
from lydite.process import resident_peak
from lydite.training.data import Data
from lydite.training.log import NAME, EvalLine, EventLine, Line, Log, read_log
from lydite.training.recipe import Recipe

if TYPE_CHECKING:
    from lydite.models.ngram import NgramTraining
    from lydite.models.ngram_table import NgramTable
    from lydite.training.loop import OnEval

_BLOCK = 1 << 18
"""Held-out tokens that are looked up at one time."""
FINISHED = "finished"


def check_counted(recipe: Recipe) -> "NgramTraining":
    """What [model.config] says. Raises UserError where the recipe asks for what counting cannot do."""
    from lydite.models.ngram import NgramTraining

    if recipe.data.source:
        raise UserError("an n-gram model is counted on [data] corpus or text; parallel files are for seq2seq")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("an n-gram model is counted by one process; leave torchrun out")
    try:
        chosen = msgspec.convert(recipe.model.config, NgramTraining)
    except msgspec.ValidationError as error:
        known = ", ".join(NgramTraining.__struct_fields__)
        raise UserError(f"model.config of an n-gram model knows {known}: {error}") from error
    if chosen.order < 1:
        raise UserError(f"model.config.order must be 1 or more, not {chosen.order}")
    return chosen


def count(
    recipe: Recipe,
    data: Data,
    folder: Path,
    *,
    on_eval: "OnEval | None" = None,
    on_line: Callable[[Line], None] = lambda line: None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Counts the model of `recipe` and measures it on held-out text; returns its folder. Raises UserError."""
    from lydite.models.ngram import pretrain_ngram

    chosen = check_counted(recipe)
    model = folder / "model"
    if (model / "config.json").exists() and _is_finished(folder):
        say(f"{model} is finished already")
        return model
    log = Log(folder, 0)
    try:

        def tell(*lines: Line) -> None:
            log.write(*lines)
            for line in lines:
                on_line(line)

        start = time.perf_counter()
        trained = pretrain_ngram(data.train, data.tokenizer, model, chosen)
        seconds = time.perf_counter() - start
        what = (
            f"counted {trained.num_tokens:,} tokens of {trained.num_documents:,} documents in {seconds:.1f} s: "
            f"{sum(trained.table.num_ngrams):,} n-grams of up to {chosen.order} tokens, {chosen.smoothing}"
        )
        tell(EventLine(step=1, what=what))
        if trained.fallbacks:
            lengths = ", ".join(map(str, trained.fallbacks))
            tell(EventLine(step=1, what=f"too few counts for discounts of the lengths {lengths}: 0.5, 1 and 1.5 there"))
        if data.validation is not None:
            tell(_held_out(trained.table, data, is_likelihood=chosen.smoothing != "stupid_backoff"))
        if on_eval is not None:
            tell(*on_eval(model, 1))
        tell(EventLine(step=1, what=FINISHED, peak_memory_bytes=resident_peak()))
    finally:
        log.close()
    return model


def _is_finished(folder: Path) -> bool:
    """Whether the log has all that follows the counting too."""
    if not (folder / NAME).exists():
        return False
    return any(isinstance(line, EventLine) and line.what == FINISHED for line in read_log(folder))


def _held_out(table: "NgramTable", data: Data, *, is_likelihood: bool) -> Line:
    """Loss and bits per byte of the held-out documents, or why there are none."""
    from lydite.models.ngram import ends_of

    assert data.validation is not None
    start = time.perf_counter()
    bos, eos = ends_of(data.tokenizer)
    total, labels = 0.0, 0
    block: list[Any] = []

    def look_up() -> None:
        nonlocal total, labels
        if block:
            scores = table.score(block, [1] * len(block)).logprobs
            total -= float(scores.sum())
            labels += len(scores)
            block.clear()

    size = 0
    for document in data.validation:
        block.append(np.concatenate([[bos], document, [eos]]))
        size += len(document)
        if size >= _BLOCK:
            look_up()
            size = 0
    look_up()
    if not math.isfinite(total):
        return EventLine(step=1, what="held-out text has tokens that the model says never come: no held-out loss")
    loss = total / labels
    bits = total / math.log(2) / data.validation_bytes if data.validation_bytes and is_likelihood else None
    return EvalLine(
        step=1, loss=loss, parts={"causal": loss}, bits_per_byte=bits, seconds=time.perf_counter() - start, is_best=True
    )
