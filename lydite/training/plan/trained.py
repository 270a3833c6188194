"""The recipe of `lydite pretrain` as a plan takes it: its real data are read, and its real batches measured.

Contract: what the plan is told of lengths, labelled positions and rows is what the training loop would make of the recipe;
of steps that differ (rows sorted by length, mixtures) one with a median number of positions stands for all.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lydite.errors import UserError
from lydite.training.plan.recipe import Objective, Recipe, Training

_STEPS = 32
"""Steps of which the median is taken."""
_KINDS: dict[str, Objective] = {
    "causal": "causal", "prefix": "causal", "permutation": "causal",
    "masked": "masked", "next_sentence": "masked", "sentence_order": "masked", "replaced": "masked",
    "seq2seq": "seq2seq", "denoising": "seq2seq", "span_corruption": "seq2seq", "prefix:encoder-decoder": "seq2seq",
}  # fmt: skip


def read_trained(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a training run; reads its data. Raises UserError."""
    from lydite.models.own import register
    from lydite.training.data import read_data
    from lydite.training.recipe import is_counted, kind_of, read_recipe
    from lydite.training.start import objective_of

    recipe = read_recipe(path, overrides)
    table = recipe.training
    if is_counted(recipe.model):
        raise UserError("an n-gram model is counted, not trained in steps: there is nothing to plan")
    register()
    data = read_data(recipe.data, recipe.model.init)
    train = objective_of(recipe, data, "train")
    assert train is not None
    rows, shapes, labelled = _median_step(train, recipe)
    name = kind_of(recipe.objective[0])
    model: dict[str, Any] = {"config": recipe.model.init}
    if recipe.model.family:
        model = {"family": recipe.model.family, "vocab_size": len(data.tokenizer), **recipe.model.config}
    texts = [*data.train, *(data.targets or ())]
    return Recipe(
        model=model,
        training=Training(
            batch=rows,
            steps=table.max_steps,
            sequence_length=shapes[0],
            target_length=shapes[1],
            micro_batch=-(-rows // table.gradient_accumulation_steps),
            dtype="float32" if table.dtype == "float32" else "bfloat16",
            optimizer=table.optimizer,
            gradient_checkpointing=table.gradient_checkpointing,
            parallel=table.parallel,
            objective=_KINDS.get(name, "causal"),
            labelled=labelled,
        ),
        unique_tokens=sum(len(text) for text in texts),
    )


def _median_step(train: Any, recipe: Any) -> tuple[int, tuple[int, int | None], float]:
    """Rows, lengths (the encoder's or only one, the decoder's), and the labelled share of the positions that have labels."""
    from lydite.training.feed import Feed
    from lydite.training.recipe import kind_of

    table = recipe.training
    feed = Feed(
        train,
        batch_size=table.batch_size,
        batch_tokens=table.batch_tokens,
        window=table.length_window,
        seed=table.seed,
    )
    two = _KINDS.get(kind_of(recipe.objective[0])) == "seq2seq"
    found = []
    for _ in range(min(_STEPS, table.max_steps)):
        batch = train.collate(feed.next()[0])
        largest = max([batch, *batch.members.values()], key=lambda one: one.num_tokens if one.inputs else 0)
        rows, length = largest.inputs["input_ids"].shape
        width = (
            largest.targets["tokens"].shape[1] if two else None
        )  # the network's own inputs are made of them in the loss
        rows = max(rows, rows * batch.num_tokens // max(largest.num_tokens, 1))  # the other objectives of a mixture
        share = max(largest.counts.values()) / (largest.inputs["input_ids"].shape[0] * (width or length))
        found.append((rows * (length + (width or 0)), rows, (length, width), min(1.0, share)))
    return sorted(found, key=lambda one: one[0])[len(found) // 2][1:]
