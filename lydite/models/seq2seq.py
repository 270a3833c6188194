"""Encoder-decoders of transformers (T5, mT5, BART, mBART, Pegasus ...): scores and texts.

The rule is `seq2seq` or, for models that were pre-trained on span corruption and nothing else, `seq2seq:sentinel`, chosen
by `--set rule=...`; engine/seq2seq.py says what they are. The default is `seq2seq`: it is how a fine-tuned model is used,
and how lm-evaluation-harness scores one.

Contract: log p(continuation | context) with the context in the encoder; a likelihood of the continuation, but no part of
a likelihood of both together, so it is ranked with its own rule only.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerBase

from lydite.engine.budget import batch_rows, generation_positions
from lydite.engine.decode_pairs import PairGenerator, PairTexts
from lydite.engine.reader import Reader
from lydite.engine.seq2seq import PairEncoder, PairScorer, PairWindow, Rule, start_ids
from lydite.models.by_kind import Answerer, ReadModel, by_kind, counted
from lydite.models.checkpoint import CheckpointSettings, Opened, open_checkpoint, read_settings, said_of
from lydite.models.scored import Scores
from lydite.types import GenerateRequest, ModelInfo, Output, Request, ScoreRequest


class Seq2SeqSettings(CheckpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set key=value` may say about an encoder-decoder."""

    rule: Rule = "seq2seq"
    """`seq2seq:sentinel`: the continuation fills a gap behind the context, as in T5's pre-training."""


class Seq2SeqModel(ReadModel):
    """Answers ScoreRequests and GenerateRequests with one encoder-decoder."""

    def __init__(self, info: ModelInfo, scorer: PairScorer, encoder: PairEncoder, generator: PairGenerator) -> None:
        super().__init__(info, scorer.reader)
        self.scorer = scorer
        self.encoder = encoder
        self.generator = generator
        self._scores: Scores[PairWindow] = Scores(
            info.rule,
            scorer.score,
            lambda window: window.target[window.first :].tolist(),
            encoder.text_of,
            lambda: scorer.reader.num_computed,
        )

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one (position, output) for each request, as batches finish."""
        answerers: dict[type, Answerer] = {
            ScoreRequest: lambda own: self._scores.answer(self.encoder.encode_pairs(own), self.usage),
            GenerateRequest: lambda own: counted(self.generator.answer(own), self.generator, self.usage),
        }
        return by_kind(requests, answerers, "an encoder-decoder")


def load_seq2seq(
    folder: Path,
    *,
    name: str,
    source: str,
    dtype: str = "float32",
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> Seq2SeqModel:
    """A Seq2SeqModel from a local checkpoint folder; arguments and errors as of load_causal, settings: Seq2SeqSettings."""
    chosen = read_settings(settings, Seq2SeqSettings)
    with open_checkpoint(folder, AutoModelForSeq2SeqLM, chosen, dtype=dtype, device=device) as opened:
        encoder = _encoder(opened, chosen)
        pad = encoder.tokenizer.pad_token_id
        reader = Reader(
            opened.network,
            _probe(encoder.start[:1], opened.config),
            batch_tokens=chosen.batch_tokens or batch_rows(*opened.size),
        )
        reader.use_kernel(chosen.kernel)
        generator = PairGenerator(
            opened.network,
            PairTexts(opened.network, encoder),
            batch_tokens=chosen.batch_tokens or generation_positions(*opened.size),
        )
        info = opened.info(
            name=name,
            source=source,
            rule=("seq2seq", chosen.rule),
            can=("score", "generate"),
            max_tokens=encoder.max_tokens,
            settings=encoder.settings | said_of(opened.network, chosen, reader.kernel.name),
        )
    return Seq2SeqModel(info, PairScorer(reader, pad=0 if pad is None else pad), encoder, generator)


def _encoder(opened: Opened, chosen: Seq2SeqSettings) -> PairEncoder:
    tokenizer = opened.tokenizer
    generation = opened.network.generation_config
    return PairEncoder(
        tokenizer,
        max_tokens=opened.max_tokens(chosen.max_tokens),
        start=start_ids(opened.config, {} if generation is None else generation.to_dict(), _target_prefix(tokenizer)),
        rule=chosen.rule,
        chat_options=chosen.chat_options,
    )


def _target_prefix(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The special tokens that the tokenizer puts before a target: BART's <s>, the language of mBART."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer(text_target="a")["input_ids"]
    starts = [i for i in range(len(full)) if full[i : i + len(plain)] == plain]
    return tuple(full[: starts[0]]) if starts else ()


def _probe(start: Sequence[int], config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Two short pairs of random tokens."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, config["vocab_size"], (2, 6)))
    targets = torch.cat([torch.tensor([list(start)] * 2), ids[:, :3]], dim=1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": targets}
