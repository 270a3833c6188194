"""Replaced-token detection (ELECTRA, Clark et al. 2020): a small generator fills masked positions, and the network that is wanted,
the discriminator, says of every token whether it is the original one.

The total is the generator's masked loss plus 50 times the discriminator's, over all real positions. Both share their embeddings. No
gradient flows through the samples. A token that was sampled right counts as original.

Sampling is part of the data: each masked position brings its own random number, and the sampled token is where the generator's
cumulative distribution passes it, so that a batch, its split into micro-batches and a resumed run sample alike.

The paper masks all chosen positions; its code keeps 15% of them as they are (set mask_replace_prob = 0.85 for that).
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from lydite.errors import ModelError
from lydite.training.batch import IGNORE, Example, Loss, Part, TrainBatch
from lydite.training.objectives.base import Documents, generator
from lydite.training.objectives.forward import inner, run
from lydite.training.objectives.masked import MaskedLM, Masking


class Replaced(Masking, frozen=True, kw_only=True):
    """Settings of `replaced`; those of `masked` with everything chosen masked."""

    mask_replace_prob: float = 1.0
    random_replace_prob: float = 0.0
    generator_size: float = 0.25
    """Width of the generator's layers, as a share of the discriminator's (paper: 1/4 small, 1/3 base, 1/4 large)."""
    discriminator_weight: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.generator_size <= 1 or not self.discriminator_weight > 0:
            raise ValueError("generator_size must be above 0 and 1 or less, discriminator_weight above 0")


class GeneratorAndDiscriminator(nn.Module):
    """Both networks, as one module to train; the embeddings are one and the same module."""

    def __init__(self, discriminator: ElectraForPreTraining, size: float) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.generator = ElectraForMaskedLM(generator_config(discriminator.config, size))
        self.generator.electra.embeddings = discriminator.electra.embeddings
        self.generator.tie_weights()

    def forward(
        self,
        input_ids: Tensor,
        originals: Tensor,
        labels: Tensor,
        chances: Tensor,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(sum of the generator's nats, sum of the discriminator's), over masked and over real positions.

        input_ids, originals, labels [B, L]; chances [N] in [0, 1), one for each labelled position in order.
        """
        chosen = labels != IGNORE
        states = self.generator.electra(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[chosen]
        logits = self.generator.generator_lm_head(self.generator.generator_predictions(states)).float()
        generated = cross_entropy(logits, labels[chosen], reduction="sum")
        filled = originals.clone()
        filled[chosen] = sample(logits.detach(), chances)
        scores = self.discriminator(input_ids=filled, attention_mask=attention_mask).logits.float()
        wrong = binary_cross_entropy_with_logits(scores, (filled != originals).float(), reduction="none")
        return generated, wrong.sum() if attention_mask is None else wrong[attention_mask.bool()].sum()


def sample(logits: Tensor, chances: Tensor) -> Tensor:
    """For each row of logits [N, V] the token at which the cumulative distribution passes chances [N] in [0, 1)."""
    cumulative = logits.softmax(-1).cumsum(-1)
    points = chances.to(cumulative)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, points, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)


def generator_config(config: ElectraConfig, size: float) -> ElectraConfig:
    """The discriminator's config with narrower layers: width, feed-forward and heads by `size`, the width of a head kept."""
    small = copy.deepcopy(config)
    heads = max(1, round(config.num_attention_heads * size))
    width = config.hidden_size // config.num_attention_heads
    small.update(
        {
            "num_attention_heads": heads,
            "hidden_size": heads * width,
            "intermediate_size": max(1, round(config.intermediate_size * size)),
        }
    )
    return small


class ReplacedTokens(MaskedLM):
    """The objective `replaced`."""

    def __init__(self, documents: Documents, tokenizer: Any, settings: Replaced, seed: int) -> None:
        super().__init__(documents, tokenizer, settings, seed)
        self._settings = settings

    def example(self, epoch: int, index: int) -> Example:
        masked = super().example(epoch, index)
        chances = generator(self._seed, epoch, index, salt=1).random(int((masked.fields["labels"] != IGNORE).sum()))
        return Example({**masked.fields, "chances": chances}, masked.length)

    def collate(self, examples: Sequence[Example]) -> TrainBatch:
        batch = super().collate(examples)
        chances = [torch.from_numpy(example.fields["chances"]) for example in examples]
        batch.targets["chances"] = torch.cat(chances)
        return TrainBatch(
            batch.inputs,
            batch.targets,
            batch.num_tokens,
            {"generator": batch.counts["tokens"], "discriminator": batch.num_tokens},
        )

    def wrap(self, network: nn.Module) -> nn.Module:
        """Makes the generator, with weights drawn from torch's generator. Raises ModelError for other architectures."""
        if not isinstance(network, ElectraForPreTraining):
            raise ModelError(f"replaced trains an ElectraForPreTraining, not {type(network).__name__}")
        return GeneratorAndDiscriminator(network, self._settings.generator_size)

    def loss(self, network: nn.Module, batch: TrainBatch) -> Loss:
        assert isinstance(inner(network), GeneratorAndDiscriminator), "the loop trains what `wrap` gave"
        labels = batch.targets["tokens"]
        originals = torch.where(labels == IGNORE, batch.inputs["input_ids"], labels)
        extra = {"originals": originals, "labels": labels, "chances": batch.targets["chances"]}
        generated, detected = run(network, {**batch.inputs, **extra})
        return Loss(
            {
                "generator": Part(generated, batch.counts["generator"]),
                "discriminator": Part(detected, batch.counts["discriminator"], self._settings.discriminator_weight),
            }
        )
