"""XLNet: scores from left to right by the rule `permutation` (engine/permutation.py).

It writes no text here: transformers' `generate` lets the tokens of an XLNet prompt see each other in both directions and
ignores padding, which is another model of text than the one that is scored, so what it wrote could not be checked.

Contract: BOS, joins, truncation and windows follow engine/tokens.py, as for causal models.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM, PreTrainedModel

from lydite.engine.budget import batch_rows
from lydite.engine.permutation import PermutationScorer, left_to_right
from lydite.engine.reader import Reader
from lydite.engine.tokens import Encoder, Window
from lydite.models.checkpoint import CheckpointSettings, open_checkpoint, read_settings, said_of
from lydite.models.scored import Scores
from lydite.types import Failure, ModelInfo, Output, Request, ScoreRequest, Usage


class PermutationModel:
    """Answers ScoreRequests with one XLNet."""

    def __init__(self, info: ModelInfo, encoder: Encoder, scorer: PermutationScorer) -> None:
        self.info = info
        kernel = scorer.reader.kernel
        self.usage = Usage(kernel=f"{kernel.name} ({kernel.reason})")
        self.encoder = encoder
        self.scorer = scorer
        self._scores: Scores[Window] = Scores(
            info.rule,
            scorer.score,
            lambda window: window.ids[window.first :].tolist(),
            encoder.text_of,
            lambda: scorer.reader.num_computed,
        )

    def network(self) -> PreTrainedModel:
        """The transformers model with its ordinary layers, fit for training; what inference had changed is undone."""
        self.scorer.reader.restore()
        return self.scorer.reader.model

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one (position, output) for each request, as batches finish."""
        scores = [(i, r) for i, r in enumerate(requests) if isinstance(r, ScoreRequest)]
        for index, request in enumerate(requests):
            if not isinstance(request, ScoreRequest):
                yield index, Failure(reason=f"an XLNet cannot answer a {type(request).__name__} here, only score")
        for index, output in self._scores.answer(self.encoder.encode([r for _, r in scores]), self.usage):
            yield scores[index][0], output


def load_permutation(
    folder: Path,
    *,
    name: str,
    source: str,
    dtype: str = "float32",
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> PermutationModel:
    """A PermutationModel from a local checkpoint folder; arguments and errors as of load_causal, CheckpointSettings."""
    chosen = read_settings(settings, CheckpointSettings)
    with open_checkpoint(folder, AutoModelForCausalLM, chosen, dtype=dtype, device=device) as opened:
        tokenizer = opened.tokenizer
        encoder = Encoder(tokenizer, max_tokens=opened.max_tokens(chosen.max_tokens), chat_options=chosen.chat_options)
        pad = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        ids = np.random.default_rng(0).integers(0, opened.config["vocab_size"], 6, dtype=np.int32)
        probe, _ = left_to_right([Window(ids, 2)], pad)
        reader = Reader(opened.network, probe, batch_tokens=chosen.batch_tokens or batch_rows(*opened.size))
        reader.use_kernel(chosen.kernel)
        info = opened.info(
            name=name,
            source=source,
            rule=("permutation", "permutation"),
            can=("score",),
            max_tokens=encoder.max_tokens,
            settings=encoder.settings | said_of(opened.network, chosen, reader.kernel.name),
        )
    return PermutationModel(info, encoder, PermutationScorer(reader, pad=pad))
