"""Reading a GGUF file: its metadata, its table of tensors, and the values of one tensor at a time.

The `gguf` package unpacks the quantised blocks, but its reader builds an object for each string of the vocabulary and
needs 19 seconds for Gemma's 262,144 tokens; this one walks the same bytes in under one second. The file comes from the
network, so every length is checked against the size of the file before it is believed: garbage ends in a ModelError,
never in an endless loop or an allocation of what a number in the file claims.

Layout (little-endian): magic, version, number of tensors, number of keys; the keys with their values; a table with a
line a tensor (name, dimensions fastest first, type, offset); padding to the alignment; the data.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lydite.errors import ModelError

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_DIMENSIONS = 4
_CHUNK_VALUES = 1 << 24
"""Values unpacked at once (64 MB in float32)."""


class _Torn(Exception):
    """The bytes do not follow the format."""


@dataclass(frozen=True)
class Tensor:
    """One line of the table of tensors."""

    name: str
    shape: tuple[int, ...]
    """Slowest dimension first, as numpy and torch write it."""
    type_id: int
    offset: int
    """From the start of the data."""


@dataclass(frozen=True)
class GGUFFile:
    """The head of a GGUF file; the values of the tensors stay on disk until they are asked for."""

    path: Path
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    data_start: int

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture: llama, gemma3, qwen2 ..."""
        return str(self.metadata["general.architecture"])

    def rows(self, tensor: Tensor) -> Iterator[NDArray[np.float32]]:
        """The tensor's values as float32, in pieces of whole rows [rows, shape[-1]], so that memory stays flat."""
        import gguf

        kind = _quantization(self.path, tensor)
        block_values, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        width = tensor.shape[-1]
        num_rows = prod(tensor.shape[:-1])
        row_bytes = width // block_values * block_bytes
        raw = np.memmap(self.path, np.uint8, "r", self.data_start + tensor.offset, (num_rows, row_bytes))
        step = max(1, _CHUNK_VALUES // width)
        plain = {gguf.GGMLQuantizationType.F32: np.float32, gguf.GGMLQuantizationType.F16: np.float16}
        for start in range(0, num_rows, step):
            piece = np.ascontiguousarray(raw[start : start + step])
            if kind in plain:
                yield piece.view(plain[kind]).astype(np.float32)
            else:
                yield np.asarray(gguf.dequantize(piece, kind), dtype=np.float32)


def read_gguf(path: Path) -> GGUFFile:
    """The metadata and the table of tensors of the file.

    Raises ModelError where it is no GGUF file, is torn, or holds a tensor that reaches beyond its end.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            head = _read_head(path, _Cursor(data))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; name a .gguf file that exists") from None
    except (_Torn, struct.error, UnicodeDecodeError, ValueError) as error:
        raise ModelError(f"{path} is not a readable GGUF file ({error}); fetch it again") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    size = path.stat().st_size
    for tensor in head.tensors:
        if head.data_start + tensor.offset + _num_bytes(path, tensor) > size:
            raise ModelError(f"{path} ends before its tensor {tensor.name}: it is incomplete; fetch it again")
    return head


class _Cursor:
    """A position in the file that never passes its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self.position = 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > self._size:
            raise _Torn(f"it ends inside a field at byte {self.position}")
        piece = self._data[self.position : end]
        self.position = end
        return piece

    def scalars(self, code: str, count: int) -> tuple[Any, ...]:
        return struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}")))

    def integer(self, code: str) -> int:
        return int(self.scalars(code, 1)[0])

    def string(self) -> str:
        return self.take(self.integer("Q")).decode("utf-8")

    def value(self) -> Any:
        kind = self.integer("I")
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.scalars(_scalar(kind), 1)[0]
        element, count = self.integer("I"), self.integer("Q")
        if element != _STRING:
            return list(self.scalars(_scalar(element), count))
        return [self.string() for _ in range(count)]


def _scalar(kind: int) -> str:
    if kind not in _SCALARS:
        raise _Torn(f"a value has the unknown type {kind}")
    return _SCALARS[kind]


def _read_head(path: Path, cursor: _Cursor) -> GGUFFile:
    if cursor.take(4) != _MAGIC:
        raise _Torn("it does not begin with GGUF")
    version = cursor.integer("I")
    if version not in (2, 3):
        raise _Torn(f"version {version}; versions 2 and 3 are known")
    num_tensors, num_keys = cursor.integer("Q"), cursor.integer("Q")
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.string()
        metadata[key] = cursor.value()
    if not isinstance(metadata.get("general.architecture"), str):
        raise _Torn("it names no architecture")
    tensors = tuple(_read_tensor(cursor) for _ in range(num_tensors))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise _Torn(f"alignment {alignment!r}")
    return GGUFFile(path, metadata, tensors, -(-cursor.position // alignment) * alignment)


def _read_tensor(cursor: _Cursor) -> Tensor:
    name = cursor.string()
    num_dimensions = cursor.integer("I")
    if not 0 < num_dimensions <= _MAX_DIMENSIONS:
        raise _Torn(f"tensor {name} has {num_dimensions} dimensions")
    shape = tuple(int(size) for size in reversed(cursor.scalars("Q", num_dimensions)))
    if 0 in shape:
        raise _Torn(f"tensor {name} is empty")
    return Tensor(name, shape, cursor.integer("I"), cursor.integer("Q"))


def _quantization(path: Path, tensor: Tensor) -> Any:
    import gguf

    try:
        kind = gguf.GGMLQuantizationType(tensor.type_id)
    except ValueError:
        raise ModelError(
            f"{path}: tensor {tensor.name} has the unknown type {tensor.type_id}; a newer `gguf` package may know it"
        ) from None
    if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        raise ModelError(f"{path}: tensor {tensor.name} does not fill whole blocks of {kind.name}; fetch it again")
    return kind


def _num_bytes(path: Path, tensor: Tensor) -> int:
    import gguf

    block_values, block_bytes = gguf.GGML_QUANT_SIZES[_quantization(path, tensor)]
    return int(prod(tensor.shape) // block_values * block_bytes)
