"""Encoders of transformers as givers of token vectors, for metrics that compare meanings (BERTScore).

Contract: a text's vectors do not depend on what else is in its batch beyond rounding; texts longer than the encoder are
cut at its end, and counted in `num_truncated`. Weights are read from safetensors only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from lydite.errors import ModelError

BEST_LAYERS = {
    "bert-base-uncased": 9,
    "bert-base-chinese": 8,
    "bert-base-multilingual-cased": 9,
    "distilbert-base-uncased": 5,
    "roberta-base": 10,
    "roberta-large": 17,
    "xlm-roberta-base": 9,
    "xlm-roberta-large": 17,
}
"""The layer that agreed best with people, from the authors of BERTScore; by the last part of the name."""
_WANT_A_SPACE = ("roberta", "gpt2")
"""Families whose first word is another token without a space in front."""


class TextEncoder:
    """An encoder checkpoint (folder or name on the hub) and a layer: 0 is the embeddings, n the output of block n."""

    def __init__(self, spec: str, *, layer: int | None = None, device: str = "cpu", batch_size: int = 32) -> None:
        """Raises ModelError where the checkpoint cannot be read, or has no layer of that number."""
        self.name = Path(spec).name
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(spec)
            self._model: Any = AutoModel.from_pretrained(spec, use_safetensors=True).to(device).eval()
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"encoder {spec}: {reason}; name a folder with safetensors and a tokenizer") from error
        blocks = int(self._model.config.num_hidden_layers)
        chosen = BEST_LAYERS.get(self.name) if layer is None else layer
        if chosen is None or not 0 <= chosen <= blocks:
            raise ModelError(f"encoder {self.name} has layers 0 to {blocks}; name the one whose vectors are compared")
        self.layer = chosen
        self.device, self.batch_size = device, batch_size
        self.num_truncated = 0
        limit = self._model.config.to_dict().get("max_position_embeddings") or 512
        # RoBERTa's positions start after its padding index, so two of them are never used.
        position = int(limit) - (2 if "roberta" in self._model.config.model_type else 0)
        self._longest = min(int(self._tokenizer.model_max_length), position)

    def embed(self, texts: Sequence[str]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """For each text the vectors of its tokens [tokens, hidden] and whether each is a special one [tokens]."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            for i, vectors in zip(batch, self._batch([texts[i] for i in batch]), strict=True):
                found[i] = vectors
        return [found[i] for i in range(len(texts))]

    def _batch(self, texts: Sequence[str]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        lead = " " if self._model.config.model_type in _WANT_A_SPACE else ""
        texts = [lead + text.strip() if text.strip() else "" for text in texts]
        self.num_truncated += sum(len(ids) > self._longest for ids in self._tokenizer(texts)["input_ids"])
        encoded = self._tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
            return_special_tokens_mask=True,
        )
        special = encoded.pop("special_tokens_mask").numpy().astype(bool)
        inputs = {key: value.to(self.device) for key, value in encoded.items()}
        with torch.inference_mode():
            states = self._model(**inputs, output_hidden_states=True).hidden_states[self.layer]
        states, there = states.float().cpu().numpy(), encoded["attention_mask"].numpy().astype(bool)
        return [
            (np.ascontiguousarray(row[keep]), marks[keep])
            for row, keep, marks in zip(states, there, special, strict=True)
        ]
