"""The machine at hand in four numbers: devices, memory, and the peak of its matrix products, as `lydite bench` measures it."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from lydite.engine.peak import matrix_peak


@dataclass(frozen=True)
class Here:
    """What a training run has on this machine."""

    name: str
    devices: int
    memory: int
    """Bytes of one device."""
    peak: float
    """Floating-point operations a second of one device."""


def this_machine(dtype: str) -> Here:
    """All CUDA devices, or the processor as one device; `dtype` by its name in PyTorch."""
    kind = getattr(torch, dtype)
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        return Here(found.name, torch.cuda.device_count(), int(found.total_memory), matrix_peak(kind, "cuda"))
    name = f"this machine ({torch.get_num_threads()} threads, {platform.machine()})"
    return Here(name, 1, _memory(), matrix_peak(kind))


def _memory() -> int:
    """Of the machine, or of its container where that is less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(whole, int(text)) if text.isdecimal() else whole
