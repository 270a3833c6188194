"""How much may be in memory at once: the number of token rows in a batch, from the machine and the model.

Results do not depend on it (tests say so), only speed and memory do.
"""

from pathlib import Path
from typing import Any

_CPU_ROWS = 2048
"""More rows make matrix products no faster on CPUs, only memory larger."""
_CUDA_ROWS = 16_384
_SHARE = 8
"""A batch may take one part in so many of the free memory."""


def available_bytes(device: str = "cpu") -> int:
    """Free memory of a device: what the process could still take without swapping, its container's limit included."""
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
    return max(free, 64 << 20)


def bytes_per_row(config: dict[str, Any], itemsize: int) -> int:
    """Rough size of what one token row needs in a forward pass: activations of a layer, and keys and values of all."""
    hidden = int(config.get("hidden_size") or config.get("n_embd") or 1024)
    inner = int(config.get("intermediate_size") or 4 * hidden)
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or 24)
    heads = int(config.get("num_attention_heads") or config.get("n_head") or 16)
    width = int(config.get("head_dim") or hidden // heads)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    return itemsize * (16 * hidden + 4 * inner + 6 * heads * width + 2 * layers * kv_heads * width)


def batch_rows(config: dict[str, Any], itemsize: int, device: str) -> int:
    """Token rows of a batch."""
    most = _CUDA_ROWS if device.startswith("cuda") else _CPU_ROWS
    return max(64, min(most, available_bytes(device) // _SHARE // bytes_per_row(config, itemsize)))
