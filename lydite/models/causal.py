"""Causal models of transformers: a local checkpoint folder that answers score and generate requests.

Loads config, tokenizer and safetensors weights with transformers, refuses pickles, and hands requests to the engine:
scoring to `engine.score` (packed where the architecture allows it), text to `engine.decode`.

Contract: the rule of all log-probabilities is `causal`; BOS, truncation and windows follow engine/tokens.py; which path
the engine took stands in `info.settings`, and both paths give the same numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from lydite.engine.budget import batch_rows, generation_positions
from lydite.engine.decode import Generator
from lydite.engine.head import OwnLogits
from lydite.engine.parity import LmEvalEncoder
from lydite.engine.score import Scorer
from lydite.engine.tokens import Encoder, Window
from lydite.errors import ModelError
from lydite.models.by_kind import Answerer, by_kind, counted
from lydite.models.checkpoint import CheckpointSettings, Opened, open_checkpoint, read_settings, said_of
from lydite.models.scored import Scores
from lydite.types import GenerateRequest, ModelInfo, Output, Request, ScoreRequest, Usage


class CausalSettings(CheckpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set key=value` may say about a causal model."""

    packing: bool = True
    """False: never pack; for comparison."""
    prompt_lookup: int = 0
    """Greedy decoding guesses so many tokens at a time from the text before and checks them in one step; 0: none."""
    rules: Literal["lydite", "lm_eval"] = "lydite"
    """Who says where BOS stands and how texts are joined and cut: engine/tokens.py, or lm-evaluation-harness
    (engine/parity.py), for numbers that must equal its own."""
    add_bos_token: bool | None = None
    """Whether special tokens stand before every text; None: as the tokenizer and the model's family have it."""
    prefix_token_id: int | None = None
    """The token before an empty context; None: BOS, else EOS."""


class CausalModel:
    """Answers ScoreRequests and GenerateRequests with one decoder."""

    def __init__(self, info: ModelInfo, encoder: Encoder, scorer: Scorer, generator: Generator) -> None:
        self.info = info
        self.usage = Usage(kernel=f"{scorer.kernel.name} ({scorer.kernel.reason})")
        self.encoder = encoder
        self.scorer = scorer
        self.generator = generator
        self._scores: Scores[Window] = Scores(
            info.rule,
            lambda windows: self.scorer.score(windows),
            lambda window: window.ids[window.first :].tolist(),
            encoder.text_of,
            lambda: self.scorer.num_computed,
        )

    @property
    def kernel(self) -> str:
        """Which matrix kernel was chosen, and why; it moves numbers by no more than rounding (bfloat16: see settings)."""
        return self.usage.kernel

    def network(self) -> PreTrainedModel:
        """The transformers model with its ordinary layers, fit for training; what inference had changed is undone."""
        self.scorer.restore()
        return self.scorer.model

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one (position, output) for each request, as batches finish."""
        answerers: dict[type, Answerer] = {
            ScoreRequest: lambda own: self._scores.answer(self.encoder.encode(own), self.usage),
            GenerateRequest: lambda own: counted(self.generator.generate(own), self.generator, self.usage),
        }
        return by_kind(requests, answerers, "a causal model")


# ------------------------------------------------------------------------------------------- loading


def load_causal(
    folder: Path,
    *,
    name: str,
    source: str,
    dtype: str = "float32",
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> CausalModel:
    """A CausalModel from a local checkpoint folder (config.json, *.safetensors, tokenizer.json ...).

    `dtype`: float32, bfloat16, float16, float64 or auto (as stored); `settings`: see CausalSettings. Raises ModelError
    where the folder cannot be used.
    """
    chosen = read_settings(settings, CausalSettings)
    # lm-evaluation-harness hands it to the tokenizer too, and some of them act on it.
    theirs = chosen.rules == "lm_eval" and chosen.add_bos_token is not None
    options = {"add_bos_token": chosen.add_bos_token} if theirs else {}
    with open_checkpoint(
        folder, AutoModelForCausalLM, chosen, dtype=dtype, device=device, tokenizer_options=options
    ) as opened:
        rows = chosen.batch_tokens or batch_rows(*opened.size)
        scorer = Scorer(opened.network, batch_tokens=rows, plain=not chosen.packing)
        tokenizer = opened.tokenizer
        scorer.use_kernel(chosen.kernel)
        encoder = _encoder(tokenizer, opened, chosen)
        generator = Generator(
            scorer,
            encoder,
            batch_tokens=chosen.batch_tokens or generation_positions(*opened.size),
            prompt_lookup=chosen.prompt_lookup,
        )
        info = opened.info(
            name=name,
            source=source,
            rule=("causal", "causal"),
            can=("score", "generate"),
            max_tokens=encoder.max_tokens,
            settings=encoder.settings | _said(scorer, chosen),
        )
    return CausalModel(info, encoder, scorer, generator)


def _encoder(tokenizer: PreTrainedTokenizerBase, opened: Opened, chosen: CausalSettings) -> Encoder:
    longest = opened.max_tokens(chosen.max_tokens)
    encoder: Encoder
    if chosen.rules == "lm_eval":
        encoder = LmEvalEncoder(
            tokenizer, max_tokens=longest, add_bos_token=chosen.add_bos_token, chat_options=chosen.chat_options
        )
    else:
        family = str(opened.config.get("model_type", "")).startswith("gemma") or None
        wants = family if chosen.add_bos_token is None else chosen.add_bos_token
        encoder = Encoder(tokenizer, max_tokens=longest, wants_bos=wants, chat_options=chosen.chat_options)
    if chosen.prefix_token_id is not None:
        if not 0 <= chosen.prefix_token_id < len(tokenizer):
            raise ModelError(
                f"prefix_token_id {chosen.prefix_token_id} is none of the tokenizer's {len(tokenizer)} tokens"
            )
        encoder.lead = encoder.prefix or (chosen.prefix_token_id,)
    return encoder


def _said(scorer: Scorer, chosen: CausalSettings) -> dict[str, Any]:
    """What else changes answers, and which way the engine goes."""
    said: dict[str, Any] = {"engine": scorer.path if scorer.path == "packed" else f"plain ({scorer.reason})"}
    said |= said_of(scorer.model, chosen, scorer.kernel.name)
    if isinstance(scorer.head, OwnLogits):
        said["head"] = "the model's own"
    return said
