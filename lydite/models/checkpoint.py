"""What the loaders of all families share: a checkpoint folder opened, its settings read, its weights hashed.

`open_checkpoint` reads weights, tokenizer and fingerprint at the same time with transformers, from safetensors only; what
each family makes of them stands in its own module (causal.py, masked.py, seq2seq.py, permutation.py, heads.py).

Contract: whatever cannot be read or used is a ModelError of one line; no setting is dropped in silence; transformers says
nothing while a model is loaded, and its settings of logging come back afterwards.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lydite.engine.linear import Choice
from lydite.errors import ModelError
from lydite.models import store
from lydite.types import ModelInfo, RequestKind

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


class CheckpointSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set key=value` may say about a model of any family."""

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
    kernel: Choice = "auto"
    """Matrix products on CPUs: `default`, `onednn` (prepacked weights), `float16` (weights in half the memory), or `auto`,
    whichever is fastest here; `bfloat16` multiplies a float32 model in bfloat16, and `fastest` is the fastest of all."""


Chosen = TypeVar("Chosen", bound=CheckpointSettings)


def read_settings(given: Mapping[str, Any] | None, kind: type[Chosen]) -> Chosen:
    """The settings of one family; raises ModelError for unknown keys, wrong types and sizes below 1."""
    known = kind.__struct_fields__
    for key in given or {}:
        if key not in known:
            raise ModelError(f"unknown model setting {key!r}; known are {', '.join(sorted(known))}")
    try:
        chosen = msgspec.convert(dict(given or {}), kind, strict=False)
    except msgspec.ValidationError as error:
        raise ModelError(f"a model setting has the wrong type: {error}") from error
    for key, value in (("batch_tokens", chosen.batch_tokens), ("max_tokens", chosen.max_tokens)):
        if value is not None and value < 1:
            raise ModelError(f"{key} must be at least 1, not {value}")
    return chosen


@dataclass(frozen=True)
class Opened:
    """A checkpoint whose network is loaded; its tokenizer and fingerprint are waited for when they are needed."""

    network: PreTrainedModel
    config: dict[str, Any]
    """Of the text model."""
    num_parameters: int
    """Counted before a kernel takes weights out of the modules."""
    _tokenizer: "Future[PreTrainedTokenizerBase]"
    _fingerprint: Future[str]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._tokenizer.result()

    @property
    def size(self) -> tuple[dict[str, Any], int, str]:
        """What engine/budget.py wants to know: config, bytes of a number, device."""
        return self.config, self.network.dtype.itemsize, str(self.network.device)

    def max_tokens(self, asked: int | None) -> int | None:
        """The model's length: its config's, else its tokenizer's, else none; `asked` may only shorten it."""
        return longest_sequence(self.network, self.config, self.tokenizer, asked)

    def info(
        self, *, name: str, source: str, rule: tuple[str, str], can: tuple[RequestKind, ...], max_tokens: int | None,
        settings: Mapping[str, Any],
    ) -> ModelInfo:  # fmt: skip
        """What the model says of itself; `rule`: its family and its rule."""
        return ModelInfo(
            name=name,
            family=rule[0],
            rule=rule[1],
            can=can,
            parameters=self.num_parameters,
            max_tokens=max_tokens,
            dtype=str(self.network.dtype).removeprefix("torch."),
            fingerprint=self._fingerprint.result(),
            source=source,
            settings=dict(settings),
        )


@contextmanager
def open_checkpoint(
    folder: Path,
    auto_class: Any,
    chosen: CheckpointSettings,
    *,
    dtype: str,
    device: str,
    tokenizer_options: Mapping[str, Any] | None = None,
) -> Iterator[Opened]:
    """A local checkpoint folder (config.json, *.safetensors, tokenizer.json ...), opened with a class of transformers.

    `dtype`: float32, bfloat16, float16, float64 or auto (as stored). Inside, transformers is quiet. Raises ModelError
    where the folder cannot be used.
    """
    folder = Path(folder)
    weights = weight_files(folder)
    if dtype != "auto" and dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; choose one of auto, {', '.join(DTYPES)}")
    with quiet(), ThreadPoolExecutor(2) as pool:
        # Hashing and reading a tokenizer of a quarter of a million entries take seconds, so the network does not wait.
        fingerprint = pool.submit(fingerprint_of, weights)
        tokenizer = pool.submit(load_tokenizer, folder, chosen, tokenizer_options or {})
        network = load_weights(folder, auto_class, dtype, device, chosen)
        config = network.config.get_text_config().to_dict()
        yield Opened(network, config, network.num_parameters(), tokenizer, fingerprint)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a checkpoint; raises ModelError where there are none."""
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


def fingerprint_of(files: Sequence[Path]) -> str:
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


def load_tokenizer(folder: Path, chosen: CheckpointSettings, options: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint, with the chat template that the settings name."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder),
            trust_remote_code=chosen.trust_remote_code,
            revision=chosen.revision or "main",
            local_files_only=True,
            **options,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"the tokenizer in {folder} cannot be read: {first_line(error)}") from error
    if chosen.chat_template is not None:
        path = Path(chosen.chat_template)
        if not path.is_file():
            raise ModelError(f"chat_template must be a file with a Jinja template; there is none at {path}")
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    return tokenizer


def load_weights(folder: Path, auto_class: Any, dtype: str, device: str, chosen: CheckpointSettings) -> PreTrainedModel:
    """The network of a checkpoint in evaluation mode, without gradients, on its device."""
    options: dict[str, Any] = {} if chosen.device_map is None else {"device_map": chosen.device_map}
    try:
        model, report = auto_class.from_pretrained(
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
        raise ModelError(f"the model in {folder} cannot be read: {first_line(error)}") from error
    if report["missing_keys"]:
        raise ModelError(
            f"the checkpoint {folder} lacks weights of its architecture: {min(report['missing_keys'])} ..."
        )
    if chosen.device_map is None:
        try:
            model = model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"the device {device!r} cannot be used: {first_line(error)}") from error
    model.eval()
    model.requires_grad_(False)
    loaded: PreTrainedModel = model
    return loaded


def longest_sequence(
    network: PreTrainedModel, config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, asked: int | None
) -> int | None:
    """Tokens that a model can take: its config's, else its tokenizer's, else no limit; `asked` may only shorten it."""
    names = ("n_positions", "max_position_embeddings", "n_ctx", "max_seq_len")
    longest = next((int(config[key]) for key in names if config.get(key)), None)
    if longest is not None:
        longest -= _unused_positions(network)
    elif tokenizer.model_max_length < 1_000_000_000:
        longest = int(tokenizer.model_max_length)
    if asked is None:
        return longest
    if longest is not None and asked > longest:
        raise ModelError(f"max_tokens={asked} is more than the model's {longest}")
    return asked


def _unused_positions(network: PreTrainedModel) -> int:
    """RoBERTa and its kin count positions from behind their padding index, so the first ones are never used."""
    for name, module in network.base_model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def said_of(network: PreTrainedModel, chosen: CheckpointSettings, kernel: str) -> dict[str, Any]:
    """What else changes answers, for ModelInfo.settings."""
    said: dict[str, Any] = {"revision": chosen.revision, "trust_remote_code": chosen.trust_remote_code}
    if kernel == "bfloat16":
        said["products"] = "bfloat16"
    quantised = network.config.to_dict().get("quantization_config")
    if quantised:
        said["quantization"] = {key: str(value) for key, value in sorted(dict(quantised).items())}
    return said


def first_line(error: BaseException) -> str:
    """The first line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def quiet() -> Iterator[None]:
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
