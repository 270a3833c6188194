"""Causal models of transformers: a local checkpoint folder that answers score and generate requests.

Loads config, tokenizer and safetensors weights with transformers, refuses pickles, and hands requests to the engine:
scoring to `engine.score` (packed where the architecture allows it), text to `engine.decode`.

Contract: the rule of all log-probabilities is `causal`; BOS, truncation and windows follow engine/tokens.py; which path
the engine took stands in `info.settings`, and both paths give the same numbers.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lydite.engine.budget import batch_rows, generation_positions
from lydite.engine.decode import Generator
from lydite.engine.head import OwnLogits
from lydite.engine.linear import Choice
from lydite.engine.parity import LmEvalEncoder
from lydite.engine.score import Scored, Scorer
from lydite.engine.tokens import Encoded, Encoder, Window
from lydite.errors import ModelError
from lydite.models import store
from lydite.types import Failure, GenerateRequest, LogProbs, ModelInfo, Output, Request, ScoreRequest, Usage

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


class CausalSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set key=value` may say about a causal model."""

    batch_tokens: int | None = None
    """Token rows of a scoring batch, positions of a generation batch; None: from the machine's memory."""
    max_tokens: int | None = None
    """Longest sequence; None: what the model's config says."""
    device_map: str | dict[str, Any] | None = None
    """As in transformers; spreads a model over devices."""
    trust_remote_code: bool = False
    revision: str | None = None
    chat_template: str | None = None
    """A file with the Jinja template to use instead of the tokenizer's own."""
    chat_options: dict[str, Any] = {}
    """Variables for the chat template, e.g. enable_thinking."""
    packing: bool = True
    """False: never pack; for comparison."""
    prompt_lookup: int = 0
    """Greedy decoding guesses so many tokens at a time from the text before and checks them in one step; 0: none."""
    kernel: Choice = "auto"
    """Matrix products on CPUs: `default`, `onednn` (prepacked weights), `float16` (weights in half the memory), or `auto`,
    whichever is fastest here; `bfloat16` multiplies a float32 model in bfloat16, and `fastest` is the fastest of all."""
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
        scores = [(i, r) for i, r in enumerate(requests) if isinstance(r, ScoreRequest)]
        texts = [(i, r) for i, r in enumerate(requests) if isinstance(r, GenerateRequest)]
        for index, request in enumerate(requests):
            if not isinstance(request, ScoreRequest | GenerateRequest):
                yield index, Failure(reason=f"a causal model cannot answer a {type(request).__name__}")
        if scores:
            for index, output in self._score([request for _, request in scores]):
                yield scores[index][0], output
        if texts:
            for index, output in self._generate([request for _, request in texts]):
                yield texts[index][0], output

    def _score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, Output]]:
        windows: list[Window] = []
        owners: list[int] = []
        pending: dict[int, _Pending] = {}
        for index, encoded in enumerate(self.encoder.encode(requests)):
            if isinstance(encoded, Failure):
                yield index, encoded
                continue
            self.usage.tokens_requested += encoded.num_positions
            pending[index] = _Pending(encoded, len(windows))
            windows.extend(encoded.windows)
            owners.extend([index] * len(encoded.windows))
        before = self.scorer.num_computed
        for number, scored in self.scorer.score(windows):
            self.usage.tokens_computed += self.scorer.num_computed - before
            before = self.scorer.num_computed
            owner = owners[number]
            if pending[owner].add(number, scored):
                yield owner, self._output(pending.pop(owner))
        assert not pending

    def _output(self, pending: "_Pending") -> Output:
        """A finished request as LogProbs, or as the Failure that its numbers are."""
        encoded = pending.encoded
        parts = [part for part in pending.parts if part is not None]
        logprobs = np.concatenate([part.logprobs for part in parts])
        if np.isneginf(logprobs).any() and not np.isnan(logprobs).any():
            return Failure(reason="zero probability")
        if not np.isfinite(logprobs).all():
            return Failure(reason="not a number among the model's log-probabilities")
        return LogProbs(
            tokens=tuple(
                self.encoder.text_of(int(token)) for window in encoded.windows for token in window.ids[window.first :]
            ),
            logprobs=tuple(logprobs.tolist()),
            greedy=all(bool(part.greedy.all()) for part in parts),
            rule="causal",
            join=encoded.join,
            num_truncated=encoded.num_truncated,
        )

    def _generate(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, Output]]:
        generator = self.generator
        requested, computed, generated = generator.num_requested, generator.num_computed, generator.num_generated
        for index, output in generator.generate(requests):
            self.usage.tokens_requested += generator.num_requested - requested
            self.usage.tokens_computed += generator.num_computed - computed
            self.usage.tokens_generated += generator.num_generated - generated
            requested, computed, generated = generator.num_requested, generator.num_computed, generator.num_generated
            yield index, output


class _Pending:
    """A request whose windows are not all scored yet."""

    def __init__(self, encoded: Encoded, first: int) -> None:
        self.encoded = encoded
        self.first = first
        self.parts: list[Scored | None] = [None] * len(encoded.windows)
        self.missing = len(encoded.windows)

    def add(self, number: int, scored: Scored) -> bool:
        """Take the answer of window `number`; whether it was the last one."""
        assert self.parts[number - self.first] is None
        self.parts[number - self.first] = scored
        self.missing -= 1
        return self.missing == 0


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
    chosen = _settings(settings or {})
    folder = Path(folder)
    weights = _weight_files(folder)
    if dtype != "auto" and dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; choose one of auto, {', '.join(DTYPES)}")
    with _quiet(), ThreadPoolExecutor(2) as pool:
        # Hashing and reading a tokenizer of a quarter of a million entries take seconds, so the network does not wait.
        fingerprint = pool.submit(_fingerprint, weights)
        tokenizer_read = pool.submit(_load_tokenizer, folder, chosen)
        model = _load_weights(folder, dtype, device, chosen)
        config = model.config.get_text_config().to_dict()
        parameters = model.num_parameters()  # counted before a kernel takes weights out of the modules
        size = config, model.dtype.itemsize, str(model.device)
        rows = chosen.batch_tokens or batch_rows(*size)
        scorer = Scorer(model, batch_tokens=rows, plain=not chosen.packing)
        tokenizer = tokenizer_read.result()
        scorer.use_kernel(chosen.kernel)
        encoder = _encoder(tokenizer, config, chosen)
        generator = Generator(
            scorer,
            encoder,
            batch_tokens=chosen.batch_tokens or generation_positions(*size),
            prompt_lookup=chosen.prompt_lookup,
        )
        info = ModelInfo(
            name=name,
            family="causal",
            rule="causal",
            can=("score", "generate"),
            parameters=parameters,
            max_tokens=encoder.max_tokens,
            dtype=str(model.dtype).removeprefix("torch."),
            fingerprint=fingerprint.result(),
            source=source,
            settings=encoder.settings | _said(model, scorer, chosen),
        )
    return CausalModel(info, encoder, scorer, generator)


def _encoder(tokenizer: PreTrainedTokenizerBase, config: Mapping[str, Any], chosen: CausalSettings) -> Encoder:
    longest = _max_tokens(config, tokenizer, chosen.max_tokens)
    encoder: Encoder
    if chosen.rules == "lm_eval":
        encoder = LmEvalEncoder(
            tokenizer, max_tokens=longest, add_bos_token=chosen.add_bos_token, chat_options=chosen.chat_options
        )
    else:
        family = str(config.get("model_type", "")).startswith("gemma") or None
        wants = family if chosen.add_bos_token is None else chosen.add_bos_token
        encoder = Encoder(tokenizer, max_tokens=longest, wants_bos=wants, chat_options=chosen.chat_options)
    if chosen.prefix_token_id is not None:
        if not 0 <= chosen.prefix_token_id < len(tokenizer):
            raise ModelError(
                f"prefix_token_id {chosen.prefix_token_id} is none of the tokenizer's {len(tokenizer)} tokens"
            )
        encoder.lead = encoder.prefix or (chosen.prefix_token_id,)
    return encoder


def _settings(given: Mapping[str, Any]) -> CausalSettings:
    known = CausalSettings.__struct_fields__
    for key in given:
        if key not in known:
            raise ModelError(f"unknown model setting {key!r}; known are {', '.join(sorted(known))}")
    try:
        chosen = msgspec.convert(dict(given), CausalSettings, strict=False)
    except msgspec.ValidationError as error:
        raise ModelError(f"a model setting has the wrong type: {error}") from error
    for key in ("batch_tokens", "max_tokens"):
        value = {"batch_tokens": chosen.batch_tokens, "max_tokens": chosen.max_tokens}[key]
        if value is not None and value < 1:
            raise ModelError(f"{key} must be at least 1, not {value}")
    return chosen


def _weight_files(folder: Path) -> list[Path]:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no checkpoint: it has no config.json")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(path.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(kind))
        if pickles:
            raise ModelError(
                f"{folder} holds only pickled weights ({pickles[0]}), which can run code; convert them to safetensors"
            )
        raise ModelError(f"{folder} holds no weights (*.safetensors)")
    return files


def _fingerprint(files: Sequence[Path]) -> str:
    """SHA-256 over the SHA-256 of the weight files, first 16 hexadecimal digits; those of our own cache are known."""
    manifest = store.read_entry(files[0].parent, check_sums=False)
    known = {} if manifest is None else manifest.files
    digest = hashlib.sha256()
    for path in files:
        if path.name in known:
            digest.update(bytes.fromhex(known[path.name].sha256))
            continue
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _load_tokenizer(folder: Path, chosen: CausalSettings) -> PreTrainedTokenizerBase:
    # lm-evaluation-harness hands it to the tokenizer too, and some of them act on it.
    more = (
        {"add_bos_token": chosen.add_bos_token}
        if chosen.rules == "lm_eval" and chosen.add_bos_token is not None
        else {}
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder),
            trust_remote_code=chosen.trust_remote_code,
            revision=chosen.revision or "main",
            local_files_only=True,
            **more,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"the tokenizer in {folder} cannot be read: {_line(error)}") from error
    if chosen.chat_template is not None:
        path = Path(chosen.chat_template)
        if not path.is_file():
            raise ModelError(f"chat_template must be a file with a Jinja template; there is none at {path}")
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    return tokenizer


def _load_weights(folder: Path, dtype: str, device: str, chosen: CausalSettings) -> PreTrainedModel:
    options: dict[str, Any] = {} if chosen.device_map is None else {"device_map": chosen.device_map}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=DTYPES.get(dtype, dtype),
            trust_remote_code=chosen.trust_remote_code,
            revision=chosen.revision or "main",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the model in {folder} cannot be read: {_line(error)}") from error
    if report["missing_keys"]:
        raise ModelError(
            f"the checkpoint {folder} lacks weights of its architecture: {min(report['missing_keys'])} ..."
        )
    if chosen.device_map is None:
        try:
            model = model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"the device {device!r} cannot be used: {_line(error)}") from error
    model.eval()
    model.requires_grad_(False)
    loaded: PreTrainedModel = model
    return loaded


def _max_tokens(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, asked: int | None) -> int | None:
    """The model's length: its config's, else its tokenizer's, else none; `asked` may only shorten it."""
    names = ("n_positions", "max_position_embeddings", "n_ctx", "max_seq_len")
    longest = next((int(config[key]) for key in names if config.get(key)), None)
    if longest is None and tokenizer.model_max_length < 1_000_000_000:
        longest = int(tokenizer.model_max_length)
    if asked is None:
        return longest
    if longest is not None and asked > longest:
        raise ModelError(f"max_tokens={asked} is more than the model's {longest}")
    return asked


def _said(model: PreTrainedModel, scorer: Scorer, chosen: CausalSettings) -> dict[str, Any]:
    """What else changes answers, and which way the engine goes."""
    said: dict[str, Any] = {
        "engine": scorer.path if scorer.path == "packed" else f"plain ({scorer.reason})",
        "revision": chosen.revision,
        "trust_remote_code": chosen.trust_remote_code,
    }
    if scorer.kernel.name == "bfloat16":
        said["products"] = "bfloat16"
    if isinstance(scorer.head, OwnLogits):
        said["head"] = "the model's own"
    quantised = model.config.to_dict().get("quantization_config")
    if quantised:
        said["quantization"] = {key: str(value) for key, value in sorted(dict(quantised).items())}
    return said


def _line(error: BaseException) -> str:
    """The first line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """No chatter and no progress bars of transformers while loading; its settings come back afterwards."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
