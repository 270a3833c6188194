"""The machine at hand, measured: devices, memory, and the peak of its matrix products."""

import os
import platform
from pathlib import Path

import torch

from lydite.engine.peak import matrix_peak
from lydite.training.plan.recipe import Machine


def this_machine(dtype: str) -> Machine:
    """All CUDA devices, or the processor as one device. The peak is what `lydite bench` measures too."""
    if torch.cuda.is_available():
        memory = int(torch.cuda.get_device_properties(0).total_memory)
        name, devices, device = torch.cuda.get_device_name(0), torch.cuda.device_count(), "cuda"
    else:
        name, devices, device = f"this machine ({_cores()} cores, {platform.machine()})", 1, "cpu"
        memory = _memory()
    return Machine(name=name, devices=devices, memory=memory, peak={dtype: matrix_peak(getattr(torch, dtype), device)})


def _cores() -> int:
    return torch.get_num_threads()


def _memory() -> int:
    """Of the machine, or of the container where that is less."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(whole, int(text)) if text.isdecimal() else whole
