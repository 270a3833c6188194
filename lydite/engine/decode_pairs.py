"""Texts of encoder-decoders, through transformers' own `generate`: the prompt in the encoder, the answer in the decoder.

Contract: that of decode_plain.py, with two differences that the architecture brings: the answer is a text of its own, so
it begins without the prompt, and penalties for repeated tokens look at the answer alone (as in transformers), because
the prompt never stands before it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from lydite.engine.decode_plain import PlainGenerator
from lydite.engine.reader import padded
from lydite.engine.seq2seq import PairEncoder
from lydite.engine.texts import Prompt, Texts
from lydite.types import Completion, Decoding, Failure, GenerateRequest


class PairTexts(Texts):
    """Begins and ends the texts of a decoder that begins them itself."""

    encoder: PairEncoder

    def fit(self, index: int, ids: list[int], decoding: Decoding) -> Prompt | Failure:
        """A prompt as the encoder reads it, cut from the left where it must be."""
        longest = self.encoder.max_tokens
        if longest is not None and decoding.max_new_tokens + len(self.encoder.start) > longest + 1:
            return Failure(
                reason=f"max_new_tokens {decoding.max_new_tokens} is more than the decoder's {longest} tokens can hold"
            )
        source = self.encoder.source(ids)
        return source if isinstance(source, Failure) else Prompt(index, source[0].tolist(), source[1])

    def text(self, prompt: Prompt, ids: list[int], *, skip_special: bool = False) -> str:
        """The new tokens as a text of its own."""
        return self.encoder.decode(ids, skip_special=skip_special)


class PairGenerator(PlainGenerator):
    """Generates with one encoder-decoder."""

    def __init__(self, model: PreTrainedModel, texts: PairTexts, *, batch_tokens: int) -> None:
        super().__init__(model, texts, batch_tokens=batch_tokens)
        self.start = texts.encoder.start
        self.num_requested = 0
        self.num_generated = 0

    def answer(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, Completion | Failure]]:
        """Yields (index, Completion) as texts are done."""
        prompts: list[Prompt] = []
        encoder = self.texts.encoder
        rendered = [encoder.render(r.messages) if r.messages else r.prompt for r in requests]
        for index, ids in enumerate(encoder.text_ids(rendered)):
            decoding = requests[index].decoding
            prompt = self.texts.fit(index, ids, decoding)
            constraint = self.texts.constraints.make(decoding)
            if isinstance(prompt, Failure):
                yield index, prompt
            elif isinstance(constraint, Failure):
                yield index, constraint
            else:
                self.num_requested += len(prompt.ids)
                prompts.append(prompt)
        for prompt, answer in self.generate(prompts, requests):
            self.num_generated += answer.num_tokens if isinstance(answer, Completion) else 0
            yield prompt.index, answer

    def _inputs(self, batch: list[Prompt]) -> tuple[dict[str, Tensor], list[int], int]:
        ids, mask = padded([np.asarray(prompt.ids, dtype=np.int32) for prompt in batch], self.pad)
        start = torch.tensor([self.start] * len(batch), dtype=torch.int64)
        width = len(self.start)
        return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": start}, [width] * len(batch), width

    def _config(self, decoding: Decoding) -> GenerationConfig:
        config: Any = super()._config(decoding)
        config.decoder_start_token_id = self.start[0]
        return config
