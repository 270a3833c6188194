"""n-gram models that answer requests: a folder that `save_ngram` wrote, or an ARPA file.

    path/to/folder                config.json (model_type lydite_ngram), model.safetensors, a tokenizer
    path/to/model.arpa[.gz]       words separated by white space; with `--set tokenizer=FOLDER` the tokens of that tokenizer

Texts meet the table as they meet every model: joins, BOS and windows are those of engine/tokens.py, and since a table has
no longest text, nothing is ever cut. Lookup, smoothing and files stand in ngram_table.py, ngram_train.py, ngram_arpa.py.

Contract: the rule says what a number is. `causal`: a probability of the text itself, from left to right over an open
vocabulary of subwords or bytes, so that bits per byte compare with any other such model. `causal:unk`: words that the
model does not know are scored as `<unk>`, a class and not a text, so that such numbers stand apart. `stupid_backoff`:
scores that do not sum to one, which are ranked among themselves only.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lydite.engine.texts import Texts
from lydite.engine.tokens import Encoded, Encoder
from lydite.errors import ModelError
from lydite.models.by_kind import Answerer, by_kind
from lydite.models.ngram_arpa import BOS, EOS, UNK, ArpaFile, arpa_table, read_arpa, spelled, unspelled, write_arpa
from lydite.models.ngram_table import Level, NgramTable
from lydite.models.ngram_train import OnProgress, Smoothing, Trained, train_ngram
from lydite.models.stepwise import (
    StepSettings,
    answer_of,
    make_encoder,
    read_settings,
    read_tokenizer,
    write_texts,
)
from lydite.types import Failure, GenerateRequest, ModelInfo, Output, Request, ScoreRequest, Usage

_WEIGHTS = "model.safetensors"
_BLOCK = 1024
"""Requests that are looked up at one time, so that answers come as they are ready."""
_STRANGE = "\U000f1234\u0e5b"
"""A text that no corpus holds: an open vocabulary spells it out."""


class NgramSettings(StepSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set key=value` may say about an n-gram model."""

    tokenizer: str | None = None
    """For ARPA files: the folder of the tokenizer whose tokens are its words; None: words between white space."""


class NgramConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """config.json of a saved model."""

    model_type: Literal["lydite_ngram"] = "lydite_ngram"
    architectures: tuple[str, ...] = ("LyditeNgram",)
    schema: int = 1
    order: int
    vocab_size: int
    smoothing: Smoothing | Literal["arpa"]
    """`arpa`: as the file had it."""
    missing_backoff: float = 0.0
    """log of what a context that was never seen costs; 0 for probabilities."""
    num_ngrams: tuple[int, ...]
    discounts: tuple[tuple[float, float, float], ...] = ()
    """Of modified Kneser-Ney: D1, D2, D3+ for each length."""
    fallback_discounts: tuple[int, ...] = ()
    """Lengths whose counts gave none."""
    num_documents: int | None = None
    num_tokens: int | None = None
    """That the model was counted on, ends of documents included."""


class NgramModel:
    """Answers ScoreRequests and GenerateRequests from one table."""

    def __init__(self, info: ModelInfo, table: NgramTable, encoder: Encoder) -> None:
        self.info = info
        self.usage = Usage()
        self.table = table
        self.encoder = encoder
        self.texts = Texts(None, encoder)

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, Output]]:
        """Exactly one (position, output) for each request."""
        answerers: dict[type, Answerer] = {
            ScoreRequest: self._score,
            GenerateRequest: lambda own: write_texts(own, self.texts, _Steps(self.table), self.usage),
        }
        return by_kind(requests, answerers, "an n-gram model")

    def _score(self, requests: Sequence[ScoreRequest]) -> Iterator[tuple[int, Output]]:
        ready: list[tuple[int, Encoded]] = []
        for index, encoded in enumerate(self.encoder.encode(requests)):
            if isinstance(encoded, Failure):
                yield index, encoded
                continue
            self.usage.tokens_requested += encoded.num_positions
            ready.append((index, encoded))
        for start in range(0, len(ready), _BLOCK):
            yield from self._look_up(ready[start : start + _BLOCK])

    def _look_up(self, block: Sequence[tuple[int, Encoded]]) -> Iterator[tuple[int, Output]]:
        windows = [window for _, encoded in block for window in encoded.windows]
        scores = self.table.score([window.ids for window in windows], [window.first for window in windows])
        self.usage.tokens_computed += len(scores.logprobs)
        sizes = [len(window.ids) - window.first for window in windows]
        starts = np.cumsum([0, *sizes[:-1]])
        undecided = np.logical_or.reduceat(scores.undecided, starts).tolist()
        maybe = np.logical_and.reduceat(scores.greedy | scores.undecided, starts).tolist()
        tokens = self.encoder.texts_of(np.concatenate([window.ids[window.first :] for window in windows]).tolist())
        end = 0
        for number, (index, encoded) in enumerate(block):
            [window] = encoded.windows  # there is no longest text, so there is never more than one
            start, end = end, end + sizes[number]
            greedy = maybe[number]
            if greedy and undecided[number]:
                spots = np.flatnonzero(scores.undecided[start:end])
                greedy = all(self.table.is_greedy(window.ids, window.first + int(at)) for at in spots)
            logprobs = scores.logprobs[start:end].tolist()
            yield index, answer_of(encoded, tokens[start:end], logprobs, greedy=greedy, rule=self.info.rule)


class _Steps:
    """Texts as an n-gram model sees them: their last words."""

    def __init__(self, table: NgramTable) -> None:
        self.table = table
        self.seen: list[list[int]] = []

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        self.seen = [list(prompt) for prompt in prompts]
        return self._logits()

    def step(self, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
        reach = max(1, self.table.order - 1)
        self.seen = [[*self.seen[row], token][-reach:] for row, token in zip(rows, tokens, strict=True)]
        return self._logits()

    def _logits(self) -> Tensor:
        return torch.from_numpy(np.stack([self.table.distribution(seen) for seen in self.seen]))


# ------------------------------------------------------------------------------------------ training


class NgramTraining(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a recipe may say about an n-gram model."""

    order: int = 5
    """The longest n-gram."""
    smoothing: Smoothing = "kneser_ney"
    """kneser_ney, witten_bell or stupid_backoff (ngram_train.py)."""


def pretrain_ngram(
    documents: Sequence[npt.NDArray[np.integer]],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    chosen: NgramTraining,
    on_progress: OnProgress | None = None,
) -> Trained:
    """Counts `documents` (token ids of `tokenizer`, no special tokens) and writes the model to `folder`.

    Raises ModelError where the tokenizer has no ends of texts or the folder cannot be written, DataError where there is
    nothing to count.
    """
    if chosen.order < 1:
        raise ModelError(f"order must be 1 or more, not {chosen.order}")
    bos, eos = ends_of(tokenizer)
    trained = train_ngram(
        documents,
        order=chosen.order,
        vocab_size=len(tokenizer),
        bos=bos,
        eos=eos,
        smoothing=chosen.smoothing,
        on_progress=on_progress,
    )
    save_ngram(folder, trained, tokenizer, chosen.smoothing)
    return trained


def ends_of(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """The tokens that stand before and behind every document that is counted. Raises ModelError where there are none."""
    # A text begins as it will when it is scored, whatever the tokenizer calls that token.
    bos = make_encoder(tokenizer, StepSettings(), begins=True).lead[-1]
    return bos, bos if tokenizer.eos_token_id is None else tokenizer.eos_token_id


# ------------------------------------------------------------------------------------------- folders


def save_ngram(folder: Path, trained: Trained, tokenizer: PreTrainedTokenizerBase, smoothing: Smoothing) -> None:
    """Writes a folder that `load_model` opens. Raises ModelError where it cannot be written.

    Each file is complete or absent, and config.json, without which the folder is no model, comes last.
    """
    table = trained.table
    config = NgramConfig(
        order=table.order,
        vocab_size=table.vocab_size,
        smoothing=smoothing,
        missing_backoff=table.missing,
        num_ngrams=table.num_ngrams,
        discounts=trained.discounts,
        fallback_discounts=trained.fallbacks,
        num_documents=trained.num_documents,
        num_tokens=trained.num_tokens,
    )
    arrays: dict[str, Any] = {}
    for n, level in enumerate(table.levels, start=1):
        arrays[f"{n}.logprobs"] = level.logprobs
        if n > 1:
            arrays[f"{n}.words"], arrays[f"{n}.offsets"] = level.words, level.offsets
        if n < table.order:
            arrays[f"{n}.backoffs"] = level.backoffs
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").unlink(missing_ok=True)
        tokenizer.save_pretrained(str(folder))
        temporary = folder / f".{_WEIGHTS}.tmp"
        save_file(arrays, temporary)
        _into_place(temporary, folder / _WEIGHTS)
        temporary = folder / ".config.json.tmp"
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
        _into_place(temporary, folder / "config.json")
    except (OSError, SafetensorError) as error:
        for name in (_WEIGHTS, "config.json"):
            (folder / f".{name}.tmp").unlink(missing_ok=True)
        raise ModelError(f"{folder} cannot be written: {error}; choose another folder or free some space") from None


def _into_place(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def read_table(folder: Path) -> tuple[NgramConfig, NgramTable]:
    """What `save_ngram` wrote; raises ModelError where it does not fit together."""
    try:
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=NgramConfig)
        arrays = load_file(folder / _WEIGHTS)
        levels = []
        none = np.empty(0, dtype=np.float32)
        for n in range(1, config.order + 1):
            logprobs = arrays[f"{n}.logprobs"]
            words = arrays[f"{n}.words"] if n > 1 else np.arange(config.vocab_size, dtype=np.int32)
            offsets = arrays[f"{n}.offsets"] if n > 1 else np.array([0, config.vocab_size])
            backoffs = arrays[f"{n}.backoffs"] if n < config.order else none
            levels.append(Level(words, offsets, logprobs, backoffs))
        _check(config, levels)
    except (OSError, msgspec.DecodeError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{folder} is no n-gram model that can be read ({error}); train or fetch it again") from None
    return config, NgramTable(levels, missing=config.missing_backoff)


def _check(config: NgramConfig, levels: Sequence[Level]) -> None:
    """ValueError where the arrays do not belong together, so that no lookup ever leaves them."""
    if tuple(map(len, levels)) != config.num_ngrams or config.num_ngrams[0] != config.vocab_size:
        raise ValueError("the numbers of n-grams differ from those of config.json")
    for n, level in enumerate(levels, start=1):
        contexts = 1 if n == 1 else len(levels[n - 2])
        fits = len(level.logprobs) == len(level) and len(level.offsets) == contexts + 1
        fits &= n == len(levels) or len(level.backoffs) == len(level)
        if not fits or level.offsets[0] != 0 or level.offsets[-1] != len(level) or (np.diff(level.offsets) < 0).any():
            raise ValueError(f"the arrays of the {n}-grams do not fit together")
        if len(level) and not 0 <= int(level.words.min()) <= int(level.words.max()) < config.vocab_size:
            raise ValueError(f"a word of the {n}-grams is none of the vocabulary")


# ------------------------------------------------------------------------------------------- loading


def load_ngram(
    folder: Path,
    *,
    name: str,
    source: str,
    dtype: str = "float32",
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> NgramModel:
    """The model in a folder. `dtype` and `device` concern networks and change nothing here."""
    chosen = read_settings(settings, NgramSettings, "an n-gram model")
    if chosen.tokenizer is not None:
        raise ModelError("tokenizer is a setting for ARPA files; this folder has its own")
    config, table = read_table(folder)
    tokenizer = read_tokenizer(folder)
    if len(tokenizer) > table.vocab_size:
        raise ModelError(f"{folder}: the tokenizer has {len(tokenizer)} tokens and the model {table.vocab_size}")
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    with (folder / _WEIGHTS).open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    said: dict[str, Any] = {"order": config.order, "smoothing": config.smoothing}
    if config.fallback_discounts:
        said["fallback_discounts"] = list(config.fallback_discounts)
    return _make(table, tokenizer, chosen, name, source, digest.hexdigest()[:16], said)


def load_arpa(path: Path, *, source: str, settings: Mapping[str, Any] | None = None) -> NgramModel:
    """The model of an ARPA file. Raises ModelError where it cannot be read or its words are none of the tokenizer's."""
    chosen = read_settings(settings, NgramSettings, "an n-gram model")
    file = read_arpa(path)
    digest = hashlib.sha256(path.read_bytes())
    if chosen.tokenizer is None:
        tokenizer = word_tokenizer(file, path)
        ids = np.arange(len(file.words))
    else:
        tokenizer = read_tokenizer(Path(chosen.tokenizer))
        ids = _token_ids(file, tokenizer, path)
        digest.update(tokenizer.backend_tokenizer.to_str().encode())
    table = arpa_table(file, ids, max(len(tokenizer), len(file.words)), path=path)
    name = path.name.removesuffix(".gz").removesuffix(".arpa")
    return _make(table, tokenizer, chosen, name, source, digest.hexdigest()[:16], {"order": table.order})


def export_arpa(folder: Path, path: Path, on_progress: OnProgress | None = None) -> None:
    """Writes the model in `folder` as an ARPA file, gzipped where `path` ends with .gz, for KenLM, SRILM and others.

    Words are the tokens' names; `load_arpa` reads the file again with `tokenizer=folder`. Raises ModelError where the
    folder holds no such model, or one that the format has no numbers for (stupid backoff).
    """
    _, table = read_table(folder)
    tokenizer = read_tokenizer(folder)
    names = tokenizer.convert_ids_to_tokens(list(range(table.vocab_size)))
    if None in names:
        raise ModelError(f"{folder}: the token {names.index(None)} has no name; the tokenizer is not the model's")
    bos, eos = ends_of(tokenizer)
    words = [spelled(name) for name in names]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arpa(table, path, words, bos=bos, eos=eos, unk=tokenizer.unk_token_id, on_progress=on_progress)


def word_tokenizer(file: ArpaFile, path: Path) -> PreTrainedTokenizerFast:
    """Words between white space, those that the file does not have as `<unk>`; if it lacks that too, they have no
    probability."""
    words = [word.decode("utf-8", "replace") for word in file.words]
    vocabulary = {word: i for i, word in enumerate(words)}
    for name in (BOS, EOS):
        if name.decode() not in vocabulary:
            raise ModelError(f"{path} has no word {name.decode()}; without it texts cannot be scored")
    if len(vocabulary) < len(words):
        raise ModelError(f"{path} is not UTF-8; convert it")
    vocabulary.setdefault(UNK.decode(), len(words))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK.decode()))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS.decode(), eos_token=EOS.decode(), unk_token=UNK.decode()
    )


def _token_ids(file: ArpaFile, tokenizer: PreTrainedTokenizerBase, path: Path) -> Any:
    """For each word of the file the token of that name."""
    known = tokenizer.get_vocab()
    bos, eos = ends_of(tokenizer)
    special = {BOS: bos, EOS: eos, UNK: tokenizer.unk_token_id}
    found = []
    for word in file.words:
        token, name = special.get(word), word.decode("utf-8", "replace")
        token = known.get(name, known.get(unspelled(name))) if token is None else token
        if token is None:
            raise ModelError(f"{path}: the word {word.decode('utf-8', 'replace')!r} is no token of the tokenizer")
        found.append(token)
    return np.array(found, dtype=np.int64)


def _make(
    table: NgramTable,
    tokenizer: PreTrainedTokenizerBase,
    chosen: NgramSettings,
    name: str,
    source: str,
    fingerprint: str,
    said: Mapping[str, Any],
) -> NgramModel:
    encoder = make_encoder(tokenizer, chosen, begins=True)  # as every text that was counted
    is_open = is_open_vocabulary(tokenizer)
    rule = "stupid_backoff" if table.missing else "causal" if is_open else "causal:unk"
    info = ModelInfo(
        name=name,
        family="ngram",
        rule=rule,
        can=("score", "generate"),
        parameters=sum(len(level.logprobs) + len(level.backoffs) for level in table.levels),
        dtype="float32",
        fingerprint=fingerprint,
        source=source,
        settings=encoder.settings
        | dict(said)
        | {"vocabulary": "open" if is_open else "closed: unknown words are scored as one class, <unk>"},
    )
    return NgramModel(info, table, encoder)


def is_open_vocabulary(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether every text has tokens that say what it is; the tokenizer is asked about characters that none has seen."""
    ids = tokenizer.backend_tokenizer.encode(_STRANGE, add_special_tokens=False).ids
    return _STRANGE in tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
