"""Two tokenizers that need no training: bytes, and the characters of the corpus itself.

Both are saved as transformers' fast tokenizers. `<unk>`, `<s>`, `</s>` and `<pad>` have the ids 0 to 3.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from lydite.errors import DataError
from lydite.runs import write_bytes

SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model", "tokenizer.model",
    "sentencepiece.bpe.model",
)  # fmt: skip
"""What AutoTokenizer reads."""


def save_bytes_tokenizer(folder: Path) -> None:
    """A token a byte: 256 and the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL.values(), *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    _save(tokenizer, folder)


def save_characters_tokenizer(folder: Path, characters: Iterable[str]) -> None:
    """A token a character; others become `<unk>`."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL.values(), *sorted(set(characters))])}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    _save(tokenizer, folder)


def _save(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL.values()])
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    write_bytes(folder / "tokenizer_config.json", _config(SPECIAL | {"clean_up_tokenization_spaces": False}))


def _config(fields: dict[str, object]) -> bytes:
    return json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **fields}, indent=1).encode() + b"\n"


def copy_tokenizer(source: Path, folder: Path) -> None:
    """The files of a tokenizer's folder that AutoTokenizer reads. Raises DataError where they cannot be copied."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    except OSError as error:
        raise DataError(f"cannot copy the tokenizer {source} to {folder}: {error.strerror}") from error
    if not (folder / "tokenizer_config.json").exists():
        write_bytes(folder / "tokenizer_config.json", _config({}))
