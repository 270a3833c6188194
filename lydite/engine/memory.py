"""Memory that is no longer needed goes back to the system at once, so that it is there for what comes next.

Everything here works on Linux with glibc and does nothing elsewhere.
"""

import ctypes
import mmap
import sys
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

_DONTNEED = 4
"""MADV_DONTNEED of madvise(2)."""


class Stretch:
    """Rows of a weight [out, in] in another dtype, a few at a time, always in the same memory: freed and asked for again,
    such pieces would leave holes between what is kept, together more than the weight."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self._weight = weight
        self._dtype = dtype
        self._memory: Tensor | None = None

    def rows(self, start: int, stop: int) -> Tensor:
        """Good until the next call."""
        rows = self._weight[start:stop]
        if rows.dtype == self._dtype:
            return rows
        if self._memory is None or len(self._memory) < len(rows):
            self._memory = rows.new_empty(rows.shape, dtype=self._dtype)
        return self._memory[: len(rows)].copy_(rows)


def return_freed() -> None:
    """Gives freed memory back: packing leaves holes of a layer's size, together more than the weights."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None  # musl has none
    if trim is not None:
        trim(0)


class FilePages:
    """The pages of weights that were mapped from their file, as safetensors does.

    They count as the process's memory though the weight was laid out anew. Whoever reads them again gets them from the file,
    so nothing is lost by leaving them; mappings in which anything was written are not touched.
    """

    def __init__(self) -> None:
        self._clean = list(_clean_mappings())

    def forget(self, tensor: Tensor) -> None:
        """Takes the tensor's pages, as far as they hold nothing else, out of memory."""
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            return
        first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if first < last and any(low <= first and last <= high for low, high in self._clean):
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _DONTNEED)


def _clean_mappings() -> Iterator[tuple[int, int]]:
    """Addresses [low, high) of the mappings of files of which no page was written to."""
    if sys.platform != "linux":
        return
    try:
        with open("/proc/self/smaps", encoding="utf-8", errors="replace") as lines:
            yield from _clean(lines)
    except OSError:
        return


def _clean(lines: Iterable[str]) -> Iterator[tuple[int, int]]:
    """From the lines of /proc/self/smaps. What was written to stands in memory as anonymous, or was swapped out."""
    place = None
    left: set[str] = set()
    for line in lines:
        head = line.split(None, 5)
        if not head[0].endswith(":"):
            low, high = (int(number, 16) for number in head[0].split("-"))
            place = (low, high) if len(head) == 6 and head[5].startswith("/") else None
            left = {"Anonymous:", "Swap:"}
        elif place is not None and head[0] in left and int(head[1]) == 0:
            left.remove(head[0])
            if not left:
                yield place
