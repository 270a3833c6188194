"""What a recipe reads, as documents of token ids with their tokenizer: a corpus folder, plain text, or parallel files.

Contract: the held-out part of a plain text is its end, cut by characters, and is never trained on. `hash` changes when the
tokens do, so that a run does not go on with other data.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lydite.data.corpus import open_corpus
from lydite.data.files import read_lines, read_text
from lydite.errors import DataError, UserError
from lydite.training.recipe import DataTable, expand

Documents = Sequence[Any]
"""Token ids of each document."""
CHARACTERS = "characters"


@dataclass(frozen=True)
class Data:
    """What is read."""

    train: Documents
    validation: Documents | None
    tokenizer: Any
    hash: str
    validation_bytes: int
    """UTF-8 bytes of the validation text; 0 where they do not matter or are not known."""
    validation_tokens: int = 0
    """That they are, without special tokens."""
    targets: Documents | None = None
    """Of parallel files: document i belongs to document i of `train`."""
    validation_targets: Documents | None = None


def read_data(table: DataTable, init: str = "") -> Data:
    """The data of a recipe; `init`: the checkpoint whose tokenizer is used where no other is named, and whose weights know no
    other ids. Raises UserError."""
    data = _corpus(table) if table.corpus else _text(table, init) if table.text else _parallel(table, init)
    if init and (Path(init) / "tokenizer_config.json").is_file():
        _of_one_vocabulary(data.tokenizer, load_tokenizer(init), f"the weights of {init} were trained with")
    return data


def _of_one_vocabulary(tokenizer: Any, other: Any, what: str) -> Any:
    """`tokenizer`, if it gives every token that both have the same id (either may have more); UserError where not."""
    own, known = tokenizer.get_vocab(), other.get_vocab()
    differ = sum(known[token] != number for token, number in own.items() if token in known)
    if differ or not own.keys() & known.keys():
        raise UserError(
            f"{what} another tokenizer than the data is read with ({differ:,} tokens have other ids); use one for both"
        )
    return tokenizer


def _corpus(table: DataTable) -> Data:
    corpus = open_corpus(table.corpus)
    tokenizer = load_tokenizer(str(corpus.tokenizer))
    if table.tokenizer:
        tokenizer = _of_one_vocabulary(load_tokenizer(table.tokenizer), tokenizer, f"{table.corpus} was prepared with")
    held = corpus.info.splits.get("validation")
    validation = corpus.split("validation") if held is not None and held.num_tokens else None
    size, tokens = (0, 0) if validation is None else (validation.num_bytes, validation.num_tokens)
    return Data(corpus.split("train"), validation, tokenizer, corpus.hash, size, tokens)


def _text(table: DataTable, init: str) -> Data:
    texts = [_read(path) for path in expand(table.text, "data.text")]
    held = [_read(path) for path in expand(table.validation_text, "data.validation_text")]
    if not held:
        cuts = [int(len(text) * (1 - table.validation)) for text in texts]
        held = [text[cut:] for text, cut in zip(texts, cuts, strict=True)]
        texts = [text[:cut] for text, cut in zip(texts, cuts, strict=True)]
    held = [text for text in held if text]
    if table.tokenizer == CHARACTERS:
        tokenizer = character_tokenizer([*texts, *held])
    else:
        tokenizer = load_tokenizer(table.tokenizer or init)
    size = sum(len(text.encode()) for text in held)
    train, validation = _encode(texts, tokenizer), _encode(held, tokenizer)
    return Data(train, validation or None, tokenizer, _hash([*train, *validation]), size, sum(map(len, validation)))


def _parallel(table: DataTable, init: str) -> Data:
    tokenizer = load_tokenizer(table.tokenizer or init) if table.tokenizer or init else None
    if tokenizer is None:
        raise UserError("parallel files need data.tokenizer, the folder of a tokenizer for both languages")
    train, targets = _sides(table.source, table.target, tokenizer)
    held: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    if table.validation_source:
        held = _sides(table.validation_source, table.validation_target, tokenizer)
    digest = _hash([*train, *targets, *held[0], *held[1]])
    return Data(train, held[0] or None, tokenizer, digest, 0, targets=targets, validation_targets=held[1] or None)


def _sides(source: str, target: str, tokenizer: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sources and targets of the lines of which neither is empty."""
    sides = [[line for _, line in read_lines(Path(path))] for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise DataError(f"{source} has {len(sides[0]):,} lines and {target} {len(sides[1]):,}; they must be aligned")
    left, right = (_encode(lines, tokenizer) for lines in sides)
    kept = [number for number in range(len(left)) if len(left[number]) and len(right[number])]
    if not kept:
        raise DataError(f"{source} and {target} have no line with text in both")
    return [left[number] for number in kept], [right[number] for number in kept]


def _encode(texts: Sequence[str], tokenizer: Any) -> list[np.ndarray]:
    if not texts:
        return []
    ids = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [np.asarray(row, dtype=np.int32) for row in ids]


def _hash(rows: Sequence[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(len(row).to_bytes(8, "little"))
        digest.update(row.astype("<i4").tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> str:
    """A text file, plain or compressed; DataError, naming it, where it is none or has no text."""
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path} is empty; name a file with text")
    return text


def load_tokenizer(folder: str) -> Any:
    """A fast tokenizer of transformers from a local folder."""
    from transformers import AutoTokenizer

    if not Path(folder).is_dir():
        other = "" if folder == CHARACTERS else f', or "{CHARACTERS}" for data.text'
        raise UserError(f"there is no tokenizer folder {folder}; name one{other}")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"the tokenizer in {folder} cannot be read: {line}") from error


def character_tokenizer(texts: Sequence[str]) -> Any:
    """A token for each character of `texts`, beside <eos>, <pad> and <unk>; what was encoded decodes to itself."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<eos>", "<pad>", "<unk>"]
    known = [*special, *sorted(set().union(*texts))]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
