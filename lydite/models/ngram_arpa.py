"""ARPA files: n-gram models as text, the format that SRILM, KenLM and others share.

    \\data\\                          how many n-grams of each length
    ngram 1=3
    \\1-grams:                       log10 p, words, log10 of the backoff weight where the n-gram is a context
    -0.5   word   -0.3
    \\end\\

Reading and writing take .gz by name. Words are separated by white space, so that subwords which hold some cannot be
written. The three words that the format knows are `<s>`, `</s>` and `<unk>`; a tokenizer's own names for them are
exchanged, and one token for both ends of a text is written as `</s>` where it is predicted and `<s>` where it is context.

Contract: what is written and read back is the same table, to seven digits; a file that is torn or does not fit is a
ModelError with its line. `<s>` is never predicted, whatever number its line has (SRILM writes -99, KenLM 0).
"""

import gzip
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from lydite.errors import ModelError
from lydite.models.ngram_table import Ints, KeyIndex, Level, NgramTable

BOS, EOS, UNK = b"<s>", b"</s>", b"<unk>"
LN10 = math.log(10)
_HEAD = re.compile(rb"^\\(\d+)-grams:[ \t\r]*$", re.MULTILINE)
_COUNT = re.compile(rb"^ngram[ \t]+(\d+)[ \t]*=[ \t]*(\d+)[ \t\r]*$", re.MULTILINE)
_END = re.compile(rb"^\\end\\[ \t\r]*$", re.MULTILINE)
_NEVER = -99.0
"""What SRILM writes for the logarithm of zero."""
_LINES = 100_000
"""That are written at one time."""
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ArpaFile:
    """What stands in a file: n-grams as rows of words, numbers in natural logarithms."""

    words: list[bytes]
    """The vocabulary, in the order of the file."""
    ngrams: list[npt.NDArray[np.int64]]
    """For each length n, [M, n] places in `words`."""
    logprobs: list[npt.NDArray[np.float64]]
    backoffs: list[npt.NDArray[np.float64]]


# ------------------------------------------------------------------------------------------- reading


def read_arpa(path: Path, on_progress: OnProgress | None = None) -> ArpaFile:
    """The content of an ARPA file; raises ModelError with the line where it does not fit."""
    tell = on_progress or (lambda what, done, total: None)
    data = _read(path)
    start = re.search(rb"^\\data\\", data, re.MULTILINE)
    end = _END.search(data)
    if start is None:
        raise ModelError(f"{path} is no ARPA file: it has no line \\data\\")
    if end is None:
        raise ModelError(f"{path} is torn: it has no line \\end\\; fetch or write it again")
    heads = list(_HEAD.finditer(data, start.end(), end.start()))
    sizes = [
        (int(n), int(size)) for n, size in _COUNT.findall(data, start.end(), heads[0].start() if heads else end.start())
    ]
    lengths = list(range(1, len(sizes) + 1))
    if not sizes or [n for n, _ in sizes] != lengths or [int(head[1]) for head in heads] != lengths:
        raise ModelError(f"{path}: the lengths under \\data\\ and the sections of n-grams differ; write it again")
    stops = [head.start() for head in heads[1:]] + [end.start()]
    found = ArpaFile([], [], [], [])
    place: dict[bytes, int] = {}
    for (n, size), head, stop in zip(sizes, heads, stops, strict=True):
        tell("reading n-grams", n, len(sizes))
        section = _Section(path, data, head.end(), stop, n, size)
        logs, words, weights = section.fields()
        if n == 1:
            found.words.extend(words[0])
            place.update((word, i) for i, word in enumerate(words[0]))
            if len(place) < len(words[0]):
                twice = next(word for i, word in enumerate(words[0]) if place[word] != i)
                raise ModelError(f"{path}: the word {_show(twice)} stands twice among the 1-grams; leave one out")
        found.ngrams.append(section.places(words, place))
        found.logprobs.append(section.numbers(logs) * LN10)
        found.backoffs.append(section.numbers(weights) * LN10 if weights else np.zeros(size))
        if size and float(found.logprobs[-1].max()) > 0:
            raise ModelError(f"{path}: a {n}-gram has a positive log-probability; the tool that wrote it has a fault")
    return found


def _read(path: Path) -> bytes:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return file.read()
    except FileNotFoundError:
        raise ModelError(f"no file {path.absolute()}; name an .arpa or .arpa.gz file that exists") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ModelError(f"{path} is torn or no gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from None


@dataclass(frozen=True)
class _Section:
    """The lines of all n-grams of one length."""

    path: Path
    data: bytes
    begin: int
    end: int
    n: int
    size: int

    def fields(self) -> tuple[list[bytes], list[list[bytes]], list[bytes]]:
        """Numbers, words by column, and backoff weights (none where no line has one), as they are written."""
        n, size = self.n, self.size
        flat = self.data[self.begin : self.end].split()
        for width in (n + 2, n + 1):
            if len(flat) == size * width and size:
                columns = [flat[k::width] for k in range(width)]
                return columns[0], columns[1 : n + 1], columns[n + 1] if width == n + 2 else []
        logs, weights = [], []
        rows = []
        for number, line in self._lines():
            parts = line.split()
            if len(parts) not in (n + 1, n + 2):
                raise self._error(number, f"has {len(parts)} fields where a {n}-gram has {n + 1} or {n + 2}")
            logs.append(parts[0])
            rows.append(parts[1 : n + 1])
            weights.append(parts[n + 1] if len(parts) == n + 2 else b"0")
        if len(rows) != size:
            raise ModelError(f"{self.path} has {len(rows)} {n}-grams but says {size}; it is torn: fetch it again")
        return logs, [[row[k] for row in rows] for k in range(n)], weights

    def places(self, words: list[list[bytes]], place: Mapping[bytes, int]) -> npt.NDArray[np.int64]:
        """[M, n] places of the words in the vocabulary."""
        try:
            columns = [np.fromiter(map(place.__getitem__, column), dtype=np.int64, count=self.size) for column in words]
        except KeyError:
            for number, line in self._lines():
                for word in line.split()[1 : self.n + 1]:
                    if word not in place:
                        raise self._error(number, f"holds {_show(word)}, which is none of the 1-grams") from None
            raise
        return np.stack(columns, axis=1)

    def numbers(self, texts: list[bytes]) -> npt.NDArray[np.float64]:
        """Fields as numbers."""
        try:
            found = np.fromiter(map(float, texts), dtype=np.float64, count=len(texts))
        except ValueError:
            found = np.array([np.nan])
        if not np.isfinite(found).all():
            for number, line in self._lines():
                parts = line.split()
                for text in (parts[0], *parts[self.n + 1 :]):
                    if not _is_number(text):
                        raise self._error(number, f"has {_show(text)} where a number belongs")
        return found

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Lines with something on them, numbered within the file."""
        first = self.data.count(b"\n", 0, self.begin) + 1
        for number, line in enumerate(self.data[self.begin : self.end].split(b"\n"), start=first):
            if line.strip():
                yield number, line

    def _error(self, number: int, what: str) -> ModelError:
        return ModelError(f"{self.path}, line {number}: {what}; fetch or write the file again")


def _is_number(text: bytes) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _show(word: bytes) -> str:
    return repr(word.decode("utf-8", "replace"))


def arpa_table(file: ArpaFile, ids: Ints, vocab_size: int, *, path: Path) -> NgramTable:
    """The table of a file whose word number i is the token ids[i] of a vocabulary of `vocab_size`.

    Tokens that the file does not have are never predicted. Raises ModelError where an n-gram's context is missing.
    """
    words = {word: i for i, word in enumerate(file.words)}
    logprobs = np.full(vocab_size, -np.inf)
    backoffs = np.zeros(vocab_size)
    own = file.logprobs[0].copy()
    if BOS in words:
        own[words[BOS]] = -np.inf
    np.maximum.at(logprobs, ids, own)  # one token for both ends of a text has the number of </s> ...
    backoffs[ids] = file.backoffs[0]
    if BOS in words and EOS in words and ids[words[BOS]] == ids[words[EOS]]:
        backoffs[ids[words[BOS]]] = file.backoffs[0][words[BOS]]  # ... and the weight of <s>
    none = np.empty(0, dtype=np.float32)
    top = len(file.ngrams)
    first = none if top == 1 else backoffs.astype(np.float32)
    levels = [
        Level(np.arange(vocab_size, dtype=np.int32), np.array([0, vocab_size]), logprobs.astype(np.float32), first)
    ]
    keys: list[KeyIndex] = []
    for n, rows in enumerate(file.ngrams[1:], start=2):
        at = ids[rows[:, 0]]
        for k, known in enumerate(keys, start=1):
            at = known.find(at * vocab_size + ids[rows[:, k]])
            if (at < 0).any():
                some = b" ".join(file.words[w] for w in rows[int((at < 0).argmax())])
                raise ModelError(f"{path}: the {n}-gram {_show(some)} has no context among the shorter n-grams")
        key = at * vocab_size + ids[rows[:, n - 1]]
        order = np.argsort(key, kind="stable")
        key = key[order]
        if (key[1:] == key[:-1]).any():
            some = b" ".join(file.words[w] for w in rows[order[int((key[1:] == key[:-1]).argmax())]])
            raise ModelError(f"{path}: the {n}-gram {_show(some)} stands there twice; leave one out")
        keys.append(KeyIndex(key))
        weights = none if n == top else file.backoffs[n - 1][order].astype(np.float32)
        parents, last = np.divmod(key, vocab_size)
        levels.append(
            Level(
                last.astype(np.int32),
                np.searchsorted(parents, np.arange(len(levels[-1]) + 1)).astype(np.int64),
                file.logprobs[n - 1][order].astype(np.float32),
                weights,
            )
        )
    return NgramTable(levels)


# ------------------------------------------------------------------------------------------- writing


def write_arpa(
    table: NgramTable,
    path: Path,
    words: Sequence[str],
    *,
    bos: int,
    eos: int,
    unk: int | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Writes a table of probabilities; words [V] are the tokens' names, `bos`, `eos` and `unk` those with a name of
    the format's own. Raises ModelError where a name cannot be written."""
    if table.missing:
        raise ModelError(
            "scores of stupid backoff are no probabilities, and ARPA files hold those; train another smoothing"
        )
    names = _names(words[: table.vocab_size], bos, eos, unk)
    first, last = list(names), list(names)
    if bos == eos:
        first[bos], last[bos] = BOS, EOS
    tell = on_progress or (lambda what, done, total: None)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with _open(temporary, zipped=path.suffix == ".gz") as file:
            sizes = list(table.num_ngrams)
            sizes[0] += int(bos == eos)
            file.write(b"\\data\\\n" + b"".join(b"ngram %d=%d\n" % pair for pair in enumerate(sizes, start=1)))
            _write_words(file, table, names, bos, bos == eos)
            rows = np.arange(table.vocab_size)[:, None]
            for n, level in enumerate(table.levels[1:], start=2):
                tell("writing n-grams", n, table.order)
                rows = np.concatenate([rows[level.parents], level.words[:, None]], axis=1)
                if bos == eos and (rows[:, 1:-1] == bos).any():
                    raise ModelError("the end of a text stands within a document, and ARPA has no word for that")
                file.write(b"\n\\%d-grams:\n" % n)
                _write_level(file, level, rows, [first, *[names] * (n - 2), last])
            file.write(b"\n\\end\\\n")
        temporary.replace(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


_SPELLED = str.maketrans("\t\n\x0b\x0c\r ", "\u0109\u010a\u010b\u010c\u010d\u0120")
_UNSPELLED = str.maketrans("\u0109\u010a\u010b\u010c\u010d\u0120", "\t\n\x0b\x0c\r ")


def spelled(token: str) -> str:
    """A token without white space, which separates words in ARPA files: GPT-2's letters for those bytes stand for it."""
    return token.translate(_SPELLED)


def unspelled(word: str) -> str:
    """The token that `spelled` made the word from."""
    return word.translate(_UNSPELLED)


def _open(path: Path, *, zipped: bool) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "wb", compresslevel=6)) if zipped else path.open("wb")


def _names(words: Sequence[str], bos: int, eos: int, unk: int | None) -> list[bytes]:
    names = [word.encode("utf-8") for word in words]
    for token, name in ((unk, UNK), (eos, EOS), (bos, BOS)):
        if token is not None and token < len(names):
            names[token] = name
    if bos == eos:
        names[eos] = EOS
    seen: set[bytes] = set()
    for token, name in enumerate(names):
        if not name or len(name.split()) != 1 or name.split()[0] != name:
            raise ModelError(
                f"the token {token} ({_show(name)}) is empty or holds white space, and ARPA separates words by it"
            )
        if name in seen:
            raise ModelError(f"two tokens are called {_show(name)}, and ARPA tells words apart by their names")
        seen.add(name)
    return names


def _number(value: float) -> bytes:
    return b"%.9g" % (value / LN10) if value > -math.inf else b"%g" % _NEVER


def _write_words(file: IO[bytes], table: NgramTable, names: Sequence[bytes], bos: int, one_token: bool) -> None:
    level = table.levels[0]
    backoffs = level.backoffs.tolist() if len(level.backoffs) else None
    file.write(b"\n\\1-grams:\n")
    for token, (value, name) in enumerate(zip(level.logprobs.tolist(), names, strict=True)):
        weight = b"" if backoffs is None else b"\t" + _number(backoffs[token])
        if one_token and token == bos:
            file.write(_number(-math.inf) + b"\t" + BOS + weight + b"\n")
            weight = b"" if backoffs is None else b"\t0"
        file.write(_number(value) + b"\t" + name + weight + b"\n")


def _write_level(file: IO[bytes], level: Level, rows: Ints, names: Sequence[Sequence[bytes]]) -> None:
    for start in range(0, len(level), _LINES):
        part = slice(start, start + _LINES)
        columns = [[own[token] for token in column] for own, column in zip(names, rows[part].T.tolist(), strict=True)]
        texts = map(b" ".join, zip(*columns, strict=True))
        logs = (level.logprobs[part].astype(np.float64) / LN10).tolist()
        if len(level.backoffs):
            weights = (level.backoffs[part].astype(np.float64) / LN10).tolist()
            lines = [b"%.9g\t%b\t%.9g\n" % row for row in zip(logs, texts, weights, strict=True)]
        else:
            lines = [b"%.9g\t%b\n" % row for row in zip(logs, texts, strict=True)]
        file.write(b"".join(lines))
