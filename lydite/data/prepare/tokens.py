"""Documents that come as tokens already: the files of datatrove's `DocumentTokenizer` and `DocumentTokenizerMerger`.

    NAME.ds             token ids one after another, little-endian, 2 bytes each, or 4 where the vocabulary needs them
    NAME.ds.index       uint64, little-endian: where each document ends, in tokens
    NAME.ds.metadata    lines of text: tokenizer|bytes of an id, number of tokens, the same for people; may be missing, and
                        older versions leave out |bytes
    NAME.ds.loss        a byte a token, whether it counts in the loss; not read

(`TokenizedFile` in datatrove/pipeline/tokens/tokenizer.py, version 0.10.1.) The ids are kept, never made again. Rules, languages,
duplicates and evaluation items are judged on the text that they decode to, which byte-level tokenizers give back byte by byte.

Contract: whatever contradicts itself is a DataError that names the file, before any work where the sizes show it: index and
tokens, tokens and metadata, width of the ids and vocabulary, ids and vocabulary, and a tokenizer that encodes the decoded
text to other tokens. Special tokens (datatrove puts an end of sequence behind each document) are taken out, since whoever trains
puts them between documents; an unknown token stands for text and stays.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lydite.data.prepare.encode import decoded_bytes, load_tokenizer, vocab_size
from lydite.errors import DataError, UserError

ENDING = ".ds"
IDS = "<u4"
"""Width of ids on their way; what a file holds may be narrower."""
_BLOCK = 1 << 17
"""Documents of an index at one time."""
_TRIED, _EDGE = 64, 8
"""Documents encoded again to see whether the tokenizer is theirs, and tokens at their ends that need not agree: datatrove may
have cut them in the middle of a word."""

Ids = NDArray[np.uint32]


class TokenFile(NamedTuple):
    """What the files say of themselves."""

    path: Path
    width: int
    """Bytes of an id."""
    num_tokens: int
    num_documents: int
    tokenizer: str
    """By its metadata; may be empty."""


def open_tokens(path: Path) -> TokenFile:
    """Checks index and metadata against the size of the file."""
    index = path.with_name(path.name + ".index")
    if not index.is_file():
        raise DataError(
            f"{path}: no {index.name} beside it, which says where documents end; write it with save_index=True"
        )
    size = path.stat().st_size
    ends = _ends(index)
    last = int(ends[-1]) if len(ends) else 0
    _check_order(index, ends)
    name, stated, count = _metadata(path)
    width = stated or next((n for n in (2, 4) if last and size == n * last), 2)
    if size != width * last:
        raise DataError(
            f"{path} has {size:,} bytes, and its index ends at token {last:,} of {width} bytes, {width * last:,} in all; copy "
            "the files again"
        )
    if count is not None and count != last:
        raise DataError(f"{path} has {last:,} tokens, and its metadata say {count:,}; copy the files again")
    return TokenFile(path, width, last, len(ends), name)


def _ends(index: Path) -> NDArray[np.uint64]:
    """Mapped: the last token of each document, + 1."""
    size = index.stat().st_size
    if size % 8:
        raise DataError(
            f"{index} has {size:,} bytes, which is no whole number of ends of 8 bytes; copy the files again"
        )
    return np.memmap(index, "<u8", "r") if size else np.zeros(0, np.uint64)


def _check_order(index: Path, ends: NDArray[np.uint64]) -> None:
    before = 0
    for start in range(0, len(ends), _BLOCK):
        block = np.r_[np.uint64(before), ends[start : start + _BLOCK]]
        wrong = np.flatnonzero(block[1:] < block[:-1])
        if len(wrong):
            raise DataError(
                f"{index}: document {start + int(wrong[0]) + 1:,} ends before it begins; the index is damaged"
            )
        before = int(block[-1])


def _metadata(path: Path) -> tuple[str, int, int | None]:
    """Name of the tokenizer, bytes of an id (0: not said), number of tokens."""
    file = path.with_name(path.name + ".metadata")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return "", 0, None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    first, count = (*lines, "", "")[:2]
    name, bar, width = first.rpartition("|")
    if bar and width not in ("2", "4"):
        raise DataError(f"{file}: ids of {width!r} bytes; datatrove writes 2 or 4")
    if not count.isdecimal():
        raise DataError(f"{file}: line 2 is {count!r}, and the number of tokens is needed")
    name = name if bar else first
    return "" if name.startswith("Unknown Tokenizer") else name, int(width) if bar else 0, int(count)


def read_tokens(found: TokenFile) -> Iterator[tuple[int, bytes]]:
    """(number of the document, its ids as they are in the file)."""
    ends = _ends(found.path.with_name(found.path.name + ".index"))
    start = number = 0
    with open(found.path, "rb", buffering=1 << 20) as file:
        for first in range(0, len(ends), _BLOCK):
            for end in ends[first : first + _BLOCK].tolist():
                number += 1
                yield number, file.read((end - start) * found.width)
                start = end


class Decoder:
    """Ids of a file to ids of a corpus and their text."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.vocab_size = vocab_size(self.tokenizer)
        self._special = np.zeros(self.vocab_size, bool)
        self._special[sorted(_special(self.tokenizer))] = True

    def decode(self, file: str, number: int, raw: bytes, width: int) -> tuple[Ids, str, int]:
        """(ids without special tokens, text, special tokens that stood within). Raises DataError for a strange id."""
        ids = np.frombuffer(raw, f"<u{width}").astype(np.uint32)
        if len(ids) and int(ids.max()) >= self.vocab_size:
            raise DataError(
                f"{file}, document {number}: id {int(ids.max()):,} is beyond the vocabulary of {self.vocab_size:,}; give the "
                "--tokenizer that made these tokens"
            )
        special = self._special[ids]
        kept = ids[~special]
        text = np.flatnonzero(~special)
        within = int(special[text[0] : text[-1]].sum()) if len(text) else 0
        return kept, self.tokenizer.decode(kept.tolist(), skip_special_tokens=False), within


def _special(tokenizer: Tokenizer) -> set[int]:
    """Ids of special tokens, the unknown one left out."""
    unknown: set[int | None] = set()
    if (
        decoded_bytes(tokenizer) is None
    ):  # bytes know everything; where they name an unknown token, it is the end of sequence
        model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
        unknown = {tokenizer.token_to_id(model["unk_token"])} if model.get("unk_token") else {model.get("unk_id")}
    return {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special} - unknown


def check_tokens(files: Sequence[Path], tokenizer: str, rules: Sequence[str]) -> list[str]:
    """What a report should say of token files and what is not done with them; none: no notes.

    Raises UserError where the request does not suit tokens, DataError where tokenizer and tokens do not suit each other.
    """
    if not files:
        return []
    found = [open_tokens(path) for path in files]
    names = sorted({file.tokenizer for file in found if file.tokenizer})
    said = f"their metadata name {', '.join(names)}" if names else "no metadata name one"
    if tokenizer in ("bytes", "characters"):
        raise UserError(f"{files[0]} holds tokens; give the --tokenizer that made them, a folder ({said})")
    if "c4" in rules:
        raise UserError(f"the rule c4 takes lines out of documents, which {files[0]} holds as tokens; leave it out")
    decoder = Decoder(Path(tokenizer))
    for file in found:
        if file.width == 2 and decoder.vocab_size > 1 << 16 and file.num_tokens:
            raise DataError(
                f"{file.path}: ids of 2 bytes, and the vocabulary of {tokenizer} has {decoder.vocab_size:,}; give the "
                f"--tokenizer that made these tokens ({said})"
            )
    _check_tokenizer(found, decoder, f"--tokenizer that made these tokens ({said})")
    many = "files" if len(found) > 1 else "file"
    notes = [f"{len(found):,} {many} of tokens kept as they are, not normalized and not cut; tokenizer: {said}"]
    if decoded_bytes(decoder.tokenizer) is None:
        notes.append(
            "the tokenizer is not byte-level: in documents of tokens, sentences are not known and bytes are of decoded text"
        )
    if any(file.path.with_name(file.path.name + ".loss").exists() for file in found):
        notes.append("masks of the loss (.ds.loss) are not read")
    return notes


def _check_tokenizer(files: Sequence[TokenFile], decoder: Decoder, wanted: str) -> None:
    """Decodes the first documents of the files and encodes them again."""
    tried = same = 0
    each = max(1, _TRIED // len(files))
    for file in files[:_TRIED]:
        for (number, raw), _ in zip(read_tokens(file), range(each), strict=False):
            ids, text, _ = decoder.decode(str(file.path), number, raw[: 4096 * file.width], file.width)
            inner = ids[_EDGE:-_EDGE]
            if len(inner) < _EDGE:
                continue
            again = np.array(decoder.tokenizer.encode(text, add_special_tokens=False).ids, np.uint32)
            tried += 1
            same += inner.tobytes() in again.tobytes()
    if same < tried / 2:
        raise DataError(
            f"{files[0].path.parent}: of {tried} documents decoded and encoded again, {tried - same} have other tokens; give the {wanted}"
        )
