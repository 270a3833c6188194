"""Faster matrix products on CPUs where oneDNN's prepacked weights are faster than PyTorch's default.

Which one is depends on the machine (on one AMD server the prepacked form ran 2.3 times faster in float32, on an Intel one
only on few rows), so both are timed for a few milliseconds when a model is loaded, on many rows as in scoring and on few
as in decoding, and the winner is used. Where the user allows it, the layers of a float32 model may multiply in bfloat16:
norms, attention, softmax and the output head stay in float32.

Contract: a prepacked weight gives no gradient, so `Kernel.restore` puts the ordinary modules back, bit for bit, and must
be called before any training (after bfloat16 products it cannot, and says so); no weight is held twice, except an
embedding that is also the output head.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lydite.errors import ModelError

Choice = Literal["auto", "default", "onednn", "bfloat16", "fastest"]
HEAD_STRETCH = 16_384
"""The output head is packed in stretches of so many tokens of the vocabulary, so that logits can be made stretch by stretch."""
_PROBE_ROWS = (512, 16)
"""Rows as in scoring and as in decoding."""
_GAIN = 1.15
"""Another kernel must be so many times faster to be chosen."""


class PackedLinear(nn.Module):
    """A linear layer whose weight oneDNN has laid out for its own kernels, in one or several stretches of outputs.

    `dtype`: of the products; rows come and go in their own.
    """

    def __init__(self, linear: nn.Linear, stretch: int | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        size = linear.out_features
        step = stretch or size
        self.in_features, self.out_features = linear.in_features, size
        self.dtype = dtype or linear.weight.dtype
        self.bias = None if linear.bias is None else linear.bias.detach().to(self.dtype)
        with torch.no_grad():
            self.parts = [
                (start, min(size, start + step), _pack(linear.weight.detach()[start : start + step].to(self.dtype)))
                for start in range(0, size, step)
            ]

    def forward(self, rows: Tensor) -> Tensor:
        outputs = [self.part(rows, number) for number in range(len(self.parts))]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)

    def part(self, rows: Tensor, number: int) -> Tensor:
        """rows [..., in] -> [..., outputs of one stretch]"""
        start, stop, weight = self.parts[number]
        bias = None if self.bias is None else self.bias[start:stop]
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows.to(self.dtype), weight, bias, "none", [], "")
        return out.to(rows.dtype)

    def weight_as_it_was(self) -> Tensor:
        """[out, in]"""
        return torch.cat([weight.to_dense() for _, _, weight in self.parts])


@dataclass
class Kernel:
    """What was chosen for a model, and how to undo it."""

    name: str
    """`default`, `onednn` or `bfloat16`."""
    reason: str
    _restorers: list[Callable[[], None]] = field(default_factory=list)

    def restore(self) -> None:
        """Put ordinary linear layers back; needed before training. Raises ModelError after bfloat16 products."""
        if self.name == "bfloat16":
            raise ModelError(
                "with kernel=bfloat16 no float32 weights are left to train; load the model with kernel=default"
            )
        while self._restorers:
            self._restorers.pop()()
        self.name = "default"


def choose_kernel(model: PreTrainedModel, choice: Choice = "auto") -> Kernel:
    """Time the kernels on the model's commonest weight and prepack all linear layers where that is faster.

    `auto` chooses between `default` and `onednn`, whose numbers differ by rounding only; `fastest` among all three.
    """
    layers = _layers(model)
    if choice == "default" or not layers:
        return Kernel("default", "asked for" if choice == "default" else "no layer can be prepacked here")
    head = model.get_output_embeddings()
    kernel = Kernel(choice, "asked for")
    if choice in ("auto", "fastest"):
        kernel = _fastest_kernel([layer for layer in layers.values() if layer is not head], choice)
    if kernel.name == "default":
        return kernel
    shared = _shared_weights(model)
    low = torch.bfloat16 if kernel.name == "bfloat16" else None
    for name, layer in layers.items():
        packed = PackedLinear(layer, HEAD_STRETCH, None) if layer is head else PackedLinear(layer, dtype=low)
        kernel._restorers.append(_replace(model, name, layer, packed, keep=layer.weight.data_ptr() in shared))
    return kernel


def _fastest_kernel(layers: list[nn.Linear], choice: Choice) -> Kernel:
    """The fastest of those that `choice` allows, measured on these layers."""
    gains = {"onednn": _measure(layers, None)}
    if choice == "fastest" and layers and layers[0].weight.dtype == torch.float32:
        gains["bfloat16"] = _measure(layers, torch.bfloat16)
    best = max(gains, key=lambda name: gains[name])
    if gains[best] < _GAIN:
        tried = "prepacked weights" if best == "onednn" else f"{best} products"
        return Kernel("default", f"{tried} run at {gains[best]:.2f} times its speed here")
    return Kernel(best, f"{gains[best]:.2f} times as fast as the default here")


def _layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The layers that can be prepacked: plain linear layers in float32 or bfloat16 on a CPU whose PyTorch has oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return {}
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype in (torch.float32, torch.bfloat16)
    }


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _PROBE_ROWS[0])
    return packed


def _measure(layers: list[nn.Linear], dtype: torch.dtype | None) -> float:
    """How many times faster the prepacked form is on the commonest shape (the mean, as ratios go, over many rows and few);
    0 where it does not run or is wrong."""
    if not layers:
        return 0.0
    shapes = Counter((layer.out_features, layer.in_features) for layer in layers)
    shape = max(shapes, key=lambda s: shapes[s] * s[0] * s[1])
    layer = next(layer for layer in layers if (layer.out_features, layer.in_features) == shape)
    generator = torch.Generator().manual_seed(0)
    gain = 1.0
    with torch.inference_mode():
        for count in _PROBE_ROWS:
            rows = torch.randn(count, layer.in_features, generator=generator).to(layer.weight.dtype)
            try:
                packed = PackedLinear(layer, dtype=dtype)
                ours, theirs = packed(rows).float(), layer(rows).float()
            except (RuntimeError, AttributeError):
                return 0.0
            if not torch.allclose(ours, theirs, rtol=1e-2, atol=2e-2 * float(theirs.abs().max())):
                return 0.0
            gain *= _fastest(partial(layer, rows)) / _fastest(partial(packed, rows))
    return float(gain ** (1 / len(_PROBE_ROWS)))


def _fastest(run: Callable[[], Tensor]) -> float:
    """Seconds of the fastest of several runs: what others do on the machine only ever slows a run down."""
    run()
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def _shared_weights(model: PreTrainedModel) -> set[int]:
    """Addresses of weights that belong to more than one module (an embedding tied to the head)."""
    uses = Counter(parameter.data_ptr() for module in model.modules() for parameter in module.parameters(recurse=False))
    return {address for address, count in uses.items() if count > 1}


def _replace(
    model: PreTrainedModel, name: str, layer: nn.Linear, packed: PackedLinear, *, keep: bool
) -> Callable[[], None]:
    """Put `packed` in the place of `layer`; gives the function that undoes it. `keep`: the dense weight lives on elsewhere."""
    model.set_submodule(name, packed)
    needs_grad, shape, dtype = layer.weight.requires_grad, layer.weight.shape, layer.weight.dtype
    if not keep:
        layer.weight = nn.Parameter(torch.empty(0, dtype=dtype), requires_grad=False)

    def undo() -> None:
        if not keep:
            weight = packed.weight_as_it_was()
            assert weight.shape == shape
            layer.weight = nn.Parameter(weight, requires_grad=needs_grad)
        model.set_submodule(name, layer)

    return undo
