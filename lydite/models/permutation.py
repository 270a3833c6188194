"""XLNet: scores from left to right by the rule `permutation` (engine/permutation.py).

It writes no text here: transformers' `generate` lets the tokens of an XLNet prompt see each other in both directions and
ignores padding, which is another model of text than the one that is scored, so what it wrote could not be checked.

Contract: BOS, joins, truncation and windows follow engine/tokens.py, as for causal models.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForCausalLM

from lydite.engine.budget import batch_rows
from lydite.engine.permutation import PermutationScorer, left_to_right
from lydite.engine.reader import Reader
from lydite.engine.tokens import Encoder, Window
from lydite.models.by_kind import Answerer, ReadModel, by_kind
from lydite.models.checkpoint import CheckpointSettings, open_checkpoint, read_settings, said_of
from lydite.models.scored import Scores
from lydite.types import ModelInfo, Output, Request, ScoreRequest


class PermutationModel(ReadModel):
    """Answers ScoreRequests with one XLNet."""

    def __init__(self, info: ModelInfo, encoder: Encoder, scorer: PermutationScorer) -> None:
        super().__init__(info, scorer.reader)
        self.encoder = encoder
        self.scorer = scorer
        self._scores: Scores[Window] = Scores(
            info.rule,
            scorer.score,
            lambda window: window.ids[window.first :].tolist(),
            encoder.text_of,
            lambda: scorer.reader.num_computed,
        )

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one (position, output) for each request, as batches finish."""
        answerers: dict[type, Answerer] = {
            ScoreRequest: lambda own: self._scores.answer(self.encoder.encode(own), self.usage)
        }
        return by_kind(requests, answerers, "an XLNet here")


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
