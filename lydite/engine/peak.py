"""What a device's matrix products can do, and how many of them a model needs: the yardstick of speeds.

Nothing is assumed of the hardware. Square products of several sizes are timed with PyTorch's default product and, on
CPUs, with oneDNN's prepacked weights; the fastest run of all is the peak. It is what this machine reached while it was
measured, so a busy machine has a lower one.
"""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lydite.engine.linear import PackedLinear
from lydite.engine.siblings import SiblingLinear

SIZES = (1024, 2048)


def matrix_peak(
    dtype: torch.dtype, device: str = "cpu", *, seconds: float = 0.4, sizes: Sequence[int] = SIZES
) -> float:
    """Floating-point operations a second (a multiplication and an addition are two) of the fastest matrix product.

    `seconds` is about the time for each of `sizes` (rows and columns of the square) and each kernel. At most 100 MB are
    held.
    """
    best = 0.0
    for size in sizes:
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


def product_weights(model: PreTrainedModel) -> tuple[int, int] | None:
    """Weights that one token position is multiplied with: (in the body, in the output head).

    Twice these numbers are the floating-point operations of a position, attention itself left out. None where a position
    meets only a part of the weights (mixtures of experts).
    """
    config = model.config.get_text_config().to_dict()
    if any(config.get(name) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return None
    head, body = model.get_output_embeddings(), 0
    if head is None:
        return None
    for module in model.modules():
        if module is head or isinstance(module, nn.Embedding):
            continue
        if isinstance(module, PackedLinear | SiblingLinear):
            body += module.in_features * module.out_features
        else:
            body += sum(weight.numel() for weight in module.parameters(recurse=False) if weight.dim() >= 2)
    wide = head.in_features * head.out_features if isinstance(head, PackedLinear) else head.weight.numel()
    return body, wide


def device_peak_bytes(device: str) -> int:
    """The most that PyTorch held on a CUDA device so far; 0 elsewhere, where the process itself is measured."""
    return int(torch.cuda.max_memory_allocated(torch.device(device))) if device.startswith("cuda") else 0
