"""How much may be in memory at once: the number of token rows in a batch, from the machine and the model.

Results do not depend on it (tests say so), only speed and memory do.
"""

import os
from pathlib import Path
from typing import Any

_CPU_ROWS = 1024
"""More rows make matrix products no faster on CPUs, only memory larger."""
_CUDA_ROWS = 16_384
_CPU_POSITIONS = 16_384
"""More texts at a time are hardly faster on CPUs: with twice as many GSM8K took 4% less time and 0.8 GiB more."""
_CUDA_POSITIONS = 32_768
_PREFIX_BYTES = 1 << 29
_SHARE = 8
"""A batch may take one part in so many of the free memory."""


def available_bytes(device: str = "cpu") -> int:
    """Free memory of a device: what the process could still take without swapping, its container's limit included;
    where torchrun started several processes on the machine, this one's part of it."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    free = 4 << 30
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")  # torchrun's word for how many share this machine
    return max(free // max(1, int(processes) if processes.isdecimal() else 1), 64 << 20)


def bytes_per_position(config: dict[str, Any], itemsize: int) -> int:
    """Size of the keys and values of one token in all layers."""
    hidden = int(config.get("hidden_size") or config.get("n_embd") or config.get("d_model") or 1024)
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or 24)
    heads = int(config.get("num_attention_heads") or config.get("n_head") or 16)
    width = int(config.get("head_dim") or hidden // heads)
    return itemsize * 2 * layers * width * int(config.get("num_key_value_heads") or heads)


def batch_rows(config: dict[str, Any], itemsize: int, device: str) -> int:
    """Token rows of a scoring batch, from a rough size of a layer's activations and of all keys and values."""
    hidden = int(config.get("hidden_size") or config.get("n_embd") or config.get("d_model") or 1024)
    inner = int(config.get("intermediate_size") or 4 * hidden)
    row = itemsize * (22 * hidden + 4 * inner) + bytes_per_position(config, itemsize)
    most = _CUDA_ROWS if device.startswith("cuda") else _CPU_ROWS
    return max(64, min(most, available_bytes(device) // _SHARE // row))


def prefix_bytes(device: str) -> int:
    """What prefixes that are kept between blocks of requests may take."""
    return min(_PREFIX_BYTES, available_bytes(device) // (4 * _SHARE))


def generation_positions(config: dict[str, Any], itemsize: int, device: str) -> int:
    """Positions (prompts and new tokens of all rows) whose keys and values a generation batch may hold."""
    room = available_bytes(device) // _SHARE // max(1, bytes_per_position(config, itemsize))
    most = _CUDA_POSITIONS if device.startswith("cuda") else _CPU_POSITIONS
    return max(64, min(most, room))
