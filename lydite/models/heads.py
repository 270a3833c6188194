"""What classifiers and span heads share: batches of joined texts through a network that answers a row at a time.

Contract: rows run in batches of like lengths, and no row's numbers depend on its neighbours. Rows are padded on the right,
but for XLNet's classifier, which reads the last position of a row.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from lydite.engine.joined import Joined
from lydite.engine.linear import Choice, Kernel, choose_kernel
from lydite.engine.reader import like_lengths, padded


class HeadRunner:
    """Runs one network with a head over joined texts; `segments`: whether the tokenizer tells texts apart."""

    def __init__(
        self, model: PreTrainedModel, *, pad: int, segments: bool, batch_tokens: int, kernel: Choice = "auto"
    ) -> None:
        self.model = model
        self.pad = pad
        self.batch_tokens = batch_tokens
        self.kernel: Kernel = choose_kernel(model, kernel)
        self.num_computed = 0
        config = model.config.to_dict()
        knows = "token_type_ids" in inspect.signature(model.forward).parameters
        kinds = config.get("type_vocab_size")
        # RoBERTa has one kind of segment only, whatever its tokenizer says; ours may have none.
        self._segments = segments and knows and (kinds is None or kinds > 1)
        self._left = config.get("model_type") == "xlnet" and "Classification" in type(model).__name__
        # Those of BART and T5 read the last end of sequence, and want rows with as many of them in a batch.
        end = config.get("eos_token_id")
        self._end = end if config.get("is_encoder_decoder") and isinstance(end, int) else None

    def run(self, rows: Sequence[Joined]) -> Iterator[tuple[list[int], Any]]:
        """Yields (indices of a batch's rows, the network's output for them) until all have run."""
        groups: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            groups.setdefault(0 if self._end is None else int((row.ids == self._end).sum()), []).append(i)
        for members in groups.values():
            for batch in like_lengths([len(rows[i].ids) for i in members], self.batch_tokens):
                some = [members[i] for i in batch]
                yield some, self._run([rows[i] for i in some])

    def _run(self, rows: Sequence[Joined]) -> Any:
        ids, mask = padded([row.ids for row in rows], self.pad, left=self._left)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._segments:
            inputs["token_type_ids"] = padded([row.segments for row in rows], 0, left=self._left)[0]
        with torch.inference_mode():
            out = self.model(**{key: value.to(self.model.device) for key, value in inputs.items()})
        self.num_computed += int(mask.sum())
        return out
