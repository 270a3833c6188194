"""Masked models of transformers (BERT, RoBERTa, ALBERT, ELECTRA's generator ...): pseudo-log-likelihoods and filled masks.

The rule is `pseudo` (Salazar et al. 2020) or, by default, `pseudo:within_word_l2r` (Kauf and Ivanova 2023), chosen by
`--set pll=original` or `--set pll=within_word_l2r`; engine/masked.py says what they are. Neither is the probability of a
text: what a pseudo-log-likelihood gives is never ranked with a likelihood, and its perplexity is a pseudo-perplexity.

Contract: log p(continuation | context) masks tokens of the continuation only, one after the other, with all of the context
in view. A masked model writes no text; `fill` names the likeliest tokens for the masks of a text.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

from lydite.engine.budget import batch_rows
from lydite.engine.masked import MaskedEncoder, MaskedScorer, MaskedWindow, Pll
from lydite.engine.reader import Reader
from lydite.errors import ModelError
from lydite.models.by_kind import Answerer, ReadModel, by_kind
from lydite.models.checkpoint import CheckpointSettings, open_checkpoint, read_settings, said_of
from lydite.models.scored import Scores
from lydite.types import Failure, GenerateRequest, ModelInfo, Output, Request, ScoreRequest

MASKS = ("[MASK]", "<mask>")
"""How a mask may be written in a prompt, whatever the tokenizer calls its own."""
RULES: Mapping[Pll, str] = {"original": "pseudo", "within_word_l2r": "pseudo:within_word_l2r"}


class MaskedSettings(CheckpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set key=value` may say about a masked model."""

    pll: Pll = "within_word_l2r"
    """Which tokens are masked while one is scored: it alone (`original`), or the later ones of its word too."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that may stand where a mask is, and its probability."""

    token: str
    prob: float


class MaskedModel(ReadModel):
    """Answers ScoreRequests with one masked model."""

    def __init__(self, info: ModelInfo, encoder: MaskedEncoder, scorer: MaskedScorer) -> None:
        super().__init__(info, scorer.reader)
        self.encoder = encoder
        self.scorer = scorer
        self._scores: Scores[MaskedWindow] = Scores(
            info.rule,
            scorer.score,
            lambda window: window.ids[window.first : window.last].tolist(),
            encoder.text_of,
            lambda: scorer.reader.num_computed,
        )

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one (position, output) for each request, as batches finish."""
        no_text = Failure(reason="a masked model writes no text; `lydite generate` fills its masks")
        answerers: dict[type, Answerer] = {
            ScoreRequest: lambda own: self._scores.answer(self.encoder.encode_masked(own), self.usage),
            GenerateRequest: lambda own: ((index, no_text) for index in range(len(own))),
        }
        return by_kind(requests, answerers, "a masked model")

    def fill(self, texts: Sequence[str], top_k: int) -> Iterator[tuple[int, list[list[Candidate]] | Failure]]:
        """Yields (index, for each mask of that text its `top_k` likeliest tokens, best first; or why there are none).

        Several masks of a text are filled each by itself, the others masked, as in transformers' fill-mask pipeline.
        """
        mask = self.encoder.tokenizer.mask_token
        rows: list[tuple[int, Any]] = []
        for index, text in enumerate(texts):
            for written in MASKS:
                text = text.replace(written, mask)
            ids = self.encoder.whole(text)
            if self.scorer.mask not in ids:
                yield index, Failure(reason=f"the prompt has no mask to fill; write {MASKS[0]} where a word is missing")
            elif self.encoder.max_tokens is not None and len(ids) > self.encoder.max_tokens:
                longest = self.encoder.max_tokens
                yield index, Failure(reason=f"the prompt has {len(ids)} tokens, more than the model's {longest}")
            else:
                self.usage.tokens_requested += len(ids)
                rows.append((index, ids))
        before = self.scorer.reader.num_computed
        for number, found in self.scorer.candidates([ids for _, ids in rows], top_k):
            self.usage.tokens_computed += self.scorer.reader.num_computed - before
            before = self.scorer.reader.num_computed
            if not all(np.isfinite(prob) for best in found for _, prob in best):
                yield rows[number][0], Failure(reason="not a number among the model's probabilities")
                continue
            yield (
                rows[number][0],
                [[Candidate(self.encoder.text_of(token), prob) for token, prob in best] for best in found],
            )


def load_masked(
    folder: Path,
    *,
    name: str,
    source: str,
    dtype: str = "float32",
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> MaskedModel:
    """A MaskedModel from a local checkpoint folder; arguments and errors as of load_causal, settings: MaskedSettings."""
    chosen = read_settings(settings, MaskedSettings)
    with open_checkpoint(folder, AutoModelForMaskedLM, chosen, dtype=dtype, device=device) as opened:
        tokenizer = opened.tokenizer
        mask, pad = tokenizer.mask_token_id, tokenizer.pad_token_id
        if mask is None:
            raise ModelError(
                f"the tokenizer of {name} names no mask token; set mask_token in its tokenizer_config.json"
            )
        encoder = MaskedEncoder(
            tokenizer, max_tokens=opened.max_tokens(chosen.max_tokens), chat_options=chosen.chat_options
        )
        if encoder.room is not None and encoder.room < 1:
            raise ModelError(f"max_tokens={encoder.max_tokens} leaves no room between the special tokens; raise it")
        reader = Reader(
            opened.network,
            _probe(mask, opened.config),
            batch_tokens=chosen.batch_tokens or batch_rows(*opened.size),
        )
        reader.use_kernel(chosen.kernel)
        rule = RULES[chosen.pll]
        info = opened.info(
            name=name,
            source=source,
            rule=("masked", rule),
            can=("score",),
            max_tokens=encoder.max_tokens,
            settings=encoder.settings | {"pll": chosen.pll} | said_of(opened.network, chosen, reader.kernel.name),
        )
    scorer = MaskedScorer(reader, mask=mask, pad=0 if pad is None else pad, pll=chosen.pll)
    return MaskedModel(info, encoder, scorer)


def _probe(mask: int, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Two short rows of random tokens, one of them masked in each."""
    length = min(int(config.get("max_position_embeddings") or 8) - 2, 8)
    ids = np.random.default_rng(0).integers(0, config["vocab_size"], (2, max(length, 1)))
    ids[:, length // 2] = mask
    tokens = torch.from_numpy(ids)
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
