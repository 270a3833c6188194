"""What a device's matrix products can do: the yardstick that speeds are measured against.

Nothing is assumed of the hardware. Square products of several sizes are timed with PyTorch's default product and, on
CPUs, with oneDNN's prepacked weights; the fastest run of all is the peak. It is what this machine reached while it was
measured, so a busy machine has a lower one.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lydite.engine.linear import PackedLinear

_SIZES = (1024, 2048)


def matrix_peak(dtype: torch.dtype, device: str = "cpu", *, seconds: float = 0.4) -> float:
    """Floating-point operations a second (a multiplication and an addition are two) of the fastest matrix product.

    `seconds` is about the time for each size and kernel. No more than 100 MB are held.
    """
    best = 0.0
    for size in _SIZES:
        generator = torch.Generator().manual_seed(size)
        rows = torch.randn(size, size, generator=generator).to(device, dtype)
        layer = nn.Linear(size, size, bias=False).to(device, dtype)
        for run in _kernels(rows, layer):
            with torch.inference_mode():
                best = max(best, 2 * size**3 / _fastest(run, seconds, device))
    return best


def _kernels(rows: Tensor, layer: nn.Linear) -> list[Callable[[], Tensor]]:
    kernels: list[Callable[[], Tensor]] = [lambda: layer(rows)]
    if rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.bfloat16):
        try:
            packed = PackedLinear(layer)
            packed(rows[:1])
            kernels.append(lambda: packed(rows))
        except (RuntimeError, AttributeError):  # a PyTorch without oneDNN, or a processor that it does not serve
            pass
    return kernels


def _fastest(run: Callable[[], Tensor], seconds: float, device: str) -> float:
    """Seconds of the fastest of the runs that fit; three at least."""
    best, end, count = float("inf"), time.perf_counter() + seconds, 0
    while count < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        count += 1
    return best
