"""A few real training steps on this machine: the utilisation that a plan would otherwise assume.

The loop is the plainest there is: AdamW, random token ids, and the training loop's loss over labelled positions. It holds the
whole model, so it is for what fits.
"""

import time
from pathlib import Path

import torch

from lydite.process import resident_peak
from lydite.training.loss import vocab_loss
from lydite.training.plan.network import NoHead, autocast, make_config, make_network, objective_of
from lydite.training.plan.plan import LABELLED_WHEN_MASKED
from lydite.training.plan.recipe import Recipe
from lydite.types import Record


class Trial(Record, frozen=True, kw_only=True):
    """What was measured."""

    tokens_per_second: float
    """Of the median step."""
    peak_memory: int
    """Largest resident size of the process, in bytes."""
    steps: int


def try_steps(recipe: Recipe, *, steps: int = 3, folder: Path = Path()) -> Trial:
    """Runs one step to warm up and `steps` that count, of one micro-batch each, on the processor."""
    training = recipe.training
    config = make_config(recipe, folder)
    objective = objective_of(config, training)
    torch.manual_seed(0)
    model = make_network(config, objective).train()
    head = model.get_output_embeddings()
    weight, bias = head.weight, head.bias
    model.set_output_embeddings(NoHead())
    generator = torch.Generator().manual_seed(0)
    micro = training.micro_batch or training.batch
    lengths = [training.sequence_length]
    if objective == "seq2seq":
        lengths.append(training.target_length or training.sequence_length)
    share = training.labelled or (LABELLED_WHEN_MASKED if objective == "masked" else 1.0)
    optimizer = torch.optim.AdamW(
        [*model.parameters(), weight] if weight.requires_grad else model.parameters(), fused=True
    )
    seconds = []
    for _ in range(steps + 1):
        ids = [torch.randint(config.vocab_size, (micro, length), generator=generator) for length in lengths]
        inputs = dict(zip(("input_ids", "decoder_input_ids"), ids, strict=False))
        start = time.perf_counter()
        with autocast("cpu", getattr(torch, training.dtype)):
            states = model(**inputs).logits.flatten(0, 1)
            picked = torch.randperm(len(states), generator=generator)[: round(share * len(states))].sort().values
            loss = vocab_loss(states[picked], weight, bias, ids[-1].flatten()[picked]) / len(picked)
        torch.autograd.backward([loss])
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    speed = micro * sum(lengths) / sorted(seconds[1:])[steps // 2]
    return Trial(tokens_per_second=speed, peak_memory=resident_peak(), steps=steps)
