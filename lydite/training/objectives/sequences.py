"""What all objectives of encoder-decoders share: two sequences an example, and a loss over the second.

The decoder's input is its target moved right behind the network's own start token, as transformers does it; that token is
read from the network's config when the loss is computed, since data does not know it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lydite.errors import ModelError
from lydite.training.batch import IGNORE, Example, Ints, Loss, Part, TrainBatch, pad, real_positions
from lydite.training.objectives.forward import inner, token_loss


def pair_example(source: Ints, target: Ints) -> Example:
    """The encoder's input and the decoder's target."""
    return Example({"source": source, "target": target}, len(source) + len(target))


def pair_batch(examples: Sequence[Example], fill: int, limits: tuple[int | None, int | None]) -> TrainBatch:
    """limits: longest source and target that the network takes, so that padding does not go beyond."""
    sources = [example.fields["source"] for example in examples]
    targets = [example.fields["target"] for example in examples]
    inputs = {"input_ids": pad(sources, fill, limits[0])}
    mask = real_positions(sources, inputs["input_ids"].shape[1])
    if mask is not None:
        inputs["attention_mask"] = mask
    count = sum(map(len, targets))
    return TrainBatch(
        inputs, {"tokens": pad(targets, IGNORE, limits[1])}, sum(map(len, sources)) + count, {"tokens": count}
    )


def pair_loss(network: nn.Module, batch: TrainBatch, label_smoothing: float = 0.0) -> Loss:
    """Nats per target token; labels are smoothed while training alone, so that what is held out has the nats of its text."""
    labels = batch.targets["tokens"]
    inputs = {**batch.inputs, "decoder_input_ids": moved_right(network, labels)}
    smoothing = label_smoothing if network.training else 0.0
    total, _ = token_loss(network, inputs, labels, label_smoothing=smoothing)
    return Loss({"tokens": Part(total, batch.counts["tokens"])})


def moved_right(network: nn.Module, labels: Tensor) -> Tensor:
    """labels [B, L] -> decoder inputs [B, L]: the start token, then all labels but the last; IGNORE becomes padding."""
    config: Any = getattr(inner(network), "config", None)
    start = getattr(config, "decoder_start_token_id", None)
    if not getattr(config, "is_encoder_decoder", False) or start is None:
        raise ModelError(
            f"{type(inner(network)).__name__} is no encoder-decoder with a decoder_start_token_id; this objective needs one"
        )
    fill = start if config.pad_token_id is None else config.pad_token_id
    first = torch.full_like(labels[:, :1], start)
    return torch.cat([first, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE, fill)], dim=1)
