"""Faster matrix products on CPUs: another layout of the same weights where that is faster than PyTorch's default.

    onednn    weights prepacked for oneDNN's kernels
    float16   float32 products with weights that are kept in half the memory: most checkpoints were stored in float16 or
              bfloat16, so nothing is lost, and decoding, which waits for weights to come from memory, waits half as long
    bfloat16  products in bfloat16; only where the user allows it: numbers move

Which one is fastest depends on the machine (on one AMD server the prepacked form ran 2.3 times faster in float32, on an
Intel one only on few rows), so they are timed for a second or two when a model is loaded, on many rows as in scoring
and on few as in decoding. Norms, attention, softmax and (in bfloat16) the output head stay in float32.

Contract: a prepacked weight gives no gradient, so `Kernel.restore` puts the ordinary modules back, bit for bit, and must
be called before any training (after bfloat16 products it cannot, and says so); no weight is held twice, except an
embedding that is also the output head, which beside a float16 layout is itself held in half precision where that is exact.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lydite.engine.absent import AbsentWeight
from lydite.engine.embedding import halve_embedding
from lydite.engine.memory import FilePages, return_freed
from lydite.engine.siblings import Group, Pending, SiblingLinear, find_groups, joined
from lydite.errors import ModelError

Choice = Literal["auto", "default", "onednn", "float16", "bfloat16", "fastest"]
Layout = Literal["onednn", "float16", "bfloat16"]
HEAD_STRETCH = 4096
"""The output head is packed in stretches of so many tokens of the vocabulary, so that logits can be made stretch by stretch."""
_PROBE_ROWS = (512, 8)
"""Rows as in scoring and as in decoding."""
_PROBE_LAYERS = 12
"""Layers of one shape that are timed in turn on few rows, so that weights come from memory as they do in a model."""
_GAIN = 1.15
"""Another layout must be so many times faster on many rows or on few, and on neither slower than _LOSS."""
_LOSS = 0.95


class PackedLinear(nn.Module):
    """A linear layer whose weight is laid out for another kernel, in one or several stretches of outputs.

    Rows come and go in the layer's own dtype. Raises ValueError where the layout would lose something of the weight.
    """

    def __init__(
        self,
        linear: nn.Linear,
        stretch: int | None = None,
        layout: Layout = "onednn",
        *,
        weight: Tensor | None = None,
        forget: Callable[[Tensor], None] = lambda _: None,
    ) -> None:
        """`weight`: [out, in], where the layer has none any more. `forget` hears of each stretch of it that was read."""
        super().__init__()
        size, weight = linear.out_features, linear.weight.detach() if weight is None else weight
        step = stretch or size
        self.in_features, self.out_features = linear.in_features, size
        self.dtype = torch.bfloat16 if layout == "bfloat16" else linear.weight.dtype
        self.bias = None if linear.bias is None else linear.bias.detach().to(self.dtype)
        pack = _HalfWeight if layout == "float16" else _OneDnnWeight
        self.parts: list[tuple[int, int, _OneDnnWeight | _HalfWeight]] = []
        with torch.no_grad():
            for start in range(0, size, step):
                stop = min(size, start + step)
                self.parts.append((start, stop, pack(weight[start:stop].to(self.dtype))))
                forget(weight[start:stop])
                if len(self.parts) % 8 == 0:
                    return_freed()
        self.weight = AbsentWeight.like(
            weight.shape, linear.weight.dtype, partial(_dense, self.parts, linear.weight.dtype)
        )

    def forward(self, rows: Tensor) -> Tensor:
        outputs = [self.part(rows, number) for number in range(len(self.parts))]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)

    def part(self, rows: Tensor, number: int) -> Tensor:
        """rows [..., in] -> [..., outputs of one stretch]"""
        start, stop, weight = self.parts[number]
        bias = None if self.bias is None else self.bias[start:stop]
        return weight.product(rows.to(self.dtype), bias).to(rows.dtype)

    def weight_as_it_was(self) -> Tensor:
        """[out, in]"""
        return _dense(self.parts, self.dtype)


def _dense(parts: Sequence[tuple[int, int, "_OneDnnWeight | _HalfWeight"]], dtype: torch.dtype) -> Tensor:
    return torch.cat([weight.dense() for _, _, weight in parts]).to(dtype)


def _rows(parts: Sequence[tuple[int, int, "_OneDnnWeight | _HalfWeight"]], dtype: torch.dtype, *span: int) -> Tensor:
    return _dense(parts, dtype)[slice(*span)].clone()


class _OneDnnWeight:
    """A weight [out, in] as oneDNN wants it."""

    def __init__(self, weight: Tensor) -> None:
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _PROBE_ROWS[0])

    def product(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.packed, bias, "none", [], "")
        return out

    def dense(self) -> Tensor:
        return self.packed.to_dense()


class _HalfWeight:
    """A float32 weight [out, in] that float16 can hold, once scaled by a power of two, and FBGEMM's float32 products with it.

    The few numbers that are so much smaller than the largest that float16 has no exact place for them are kept beside it for
    `dense`; in products they are off by less than the largest of their row x 2^-39, far below float32's own rounding.
    """

    def __init__(self, weight: Tensor) -> None:
        if weight.dtype != torch.float32:
            raise ValueError(f"float16 layouts are for float32 layers, not for {weight.dtype}")
        largest = max(map(abs, torch.stack(torch.aminmax(weight)).tolist())) if weight.numel() else 0.0
        if not math.isfinite(largest):
            raise ValueError("a weight that is no number")
        self.scale = 2.0 ** (15 - math.frexp(largest)[1]) if largest else 1.0
        if self.scale > 2.0**127:  # itself no float32
            raise ValueError("weights too small to be scaled")
        scaled = weight * self.scale
        half = scaled.to(torch.float16).float()
        odd: tuple[Tensor, ...] = ()
        if not torch.equal(half, scaled):
            odd = (half != scaled).nonzero(as_tuple=True)
            rows = scaled.abs().amax(dim=1)  # each output has a rounding of its own
            if bool(((half[odd] - scaled[odd]).abs() > rows[odd[0]] * 2.0**-39).any()):
                raise ValueError("float16 cannot hold the weight without loss")
        self.odd = (odd, weight[odd].clone() if odd else None)
        self.packed = torch.ops.quantized.linear_prepack_fp16(half, None)

    def product(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16(rows, self.packed)
        out = out.mul_(1 / self.scale)
        return out if bias is None else out.add_(bias)

    def dense(self) -> Tensor:
        weight: Tensor = torch.ops.quantized.linear_unpack_fp16(self.packed)[0] / self.scale
        where, values = self.odd
        if values is not None:
            weight[where] = values
        return weight


@dataclass
class Kernel:
    """What was chosen for a model, and how to undo it."""

    name: str
    """`default`, `onednn`, `float16` or `bfloat16`."""
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
    """Time the kernels on the model's commonest weight and pack all linear layers where that is faster.

    `auto` chooses among those whose numbers differ by rounding only (default, onednn, float16); `fastest` among all.
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
    left = _pack(model, layers, kernel)
    if left == len(layers):
        return Kernel("default", f"no layer can be laid out as {kernel.name} without loss")
    if left:
        kernel.reason += f"; {left} of {len(layers)} layers stay as they are, because it would lose something of them"
    return kernel


def _pack(model: PreTrainedModel, layers: dict[str, nn.Linear], kernel: Kernel) -> int:
    """Lay out all layers for the kernel; the number of those that would lose something and stay as they are."""
    layout: Layout = kernel.name  # type: ignore[assignment]
    head, shared, pages = model.get_output_embeddings(), _shared_weights(model), FilePages()
    left, pending = 0, Pending()
    layers = dict(layers)
    for group in list(find_groups(layers)):
        if not shared.isdisjoint(layer.weight.data_ptr() for layer in group.values()):
            continue
        try:
            undo = _pack_group(model, group, layout, pending, pages)
        except ValueError:  # one by one some of them may go
            continue
        kernel._restorers.append(undo)
        layers = {name: layer for name, layer in layers.items() if name not in group}
        return_freed()
    for name, layer in sorted(layers.items(), key=lambda item: item[1] is head):  # the head comes last
        here, stretch, keep = layout, None, layer.weight.data_ptr() in shared
        halved = None
        if layer is head:
            here, stretch = "onednn" if layout == "bfloat16" else layout, HEAD_STRETCH
            halved = halve_embedding(model, head) if layout == "float16" else None
        table = halved.table if halved is not None and halved.tied else None
        try:
            packed = PackedLinear(layer, stretch, here, weight=table, forget=pages.forget)
        except ValueError:
            left += 1
            if halved is not None:
                halved.undo()
            continue
        if halved is not None:
            kernel._restorers.append(halved.undo)
        kernel._restorers.append(_replace(model, name, layer, packed, keep=keep))
        return_freed()
    return left


def _pack_group(
    model: PreTrainedModel, group: dict[str, nn.Linear], layout: Layout, pending: Pending, pages: FilePages
) -> Callable[[], None]:
    """Lay out layers that read the same rows as one; gives the function that undoes it."""
    packed = PackedLinear(joined(group), layout=layout)
    sizes = [layer.out_features for layer in group.values()]
    own, undoes, start = Group(packed, sizes, pending), [], 0
    for number, (name, layer) in enumerate(group.items()):
        dense = partial(_rows, packed.parts, layer.weight.dtype, start, start + sizes[number])
        start += sizes[number]
        pages.forget(layer.weight.detach())
        undoes.append(_replace(model, name, layer, SiblingLinear(layer, own, number, dense), keep=False))

    def undo() -> None:
        for one in undoes:
            one()

    return undo


def _fastest_kernel(layers: list[nn.Linear], choice: Choice) -> Kernel:
    """The fastest of those that `choice` allows, measured on these layers."""
    layouts: list[Layout] = ["onednn"]
    if layers and layers[0].weight.dtype == torch.float32:
        layouts += ["float16", "bfloat16"] if choice == "fastest" else ["float16"]
    gains = {layout: _measure(layers, layout) for layout in layouts}
    best = max(gains, key=lambda layout: math.prod(gains[layout]))
    many, few = gains[best]
    if not many:
        return Kernel("default", "no other layout can be used for its layers")
    said = f"{many:.2f} times as fast as the default on {_PROBE_ROWS[0]} rows here, {few:.2f} on {_PROBE_ROWS[1]}"
    if max(many, few) < _GAIN or min(many, few) < _LOSS:
        return Kernel("default", f"the best other layout, {best}, is {said}")
    return Kernel(best, said)


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


def _measure(layers: list[nn.Linear], layout: Layout) -> tuple[float, float]:
    """How many times faster a layout is on layers of the commonest shape, on many rows and on few; 0 where it does not
    run, is wrong, or loses something."""
    shapes = Counter((layer.out_features, layer.in_features) for layer in layers)
    if not shapes:
        return 0.0, 0.0
    shape = max(shapes, key=lambda s: shapes[s] * s[0] * s[1])
    some = [layer for layer in layers if (layer.out_features, layer.in_features) == shape][:_PROBE_LAYERS]
    generator = torch.Generator().manual_seed(0)
    gains = []
    with torch.inference_mode():
        try:
            packed = [PackedLinear(layer, layout=layout) for layer in some]
            for count in _PROBE_ROWS:
                rows = torch.randn(count, shape[1], generator=generator).to(some[0].weight.dtype)
                ours, theirs = packed[0](rows).float(), some[0](rows).float()
                if not torch.allclose(ours, theirs, rtol=1e-2, atol=2e-2 * float(theirs.abs().max())):
                    return 0.0, 0.0
                few = count < 64  # many rows spend their time on products, not on waiting for weights
                gains.append(_ratio(some, packed, rows) if few else _ratio(some[:2], packed[:2], rows))
        except (RuntimeError, AttributeError, ValueError):
            return 0.0, 0.0
    return gains[0], gains[1]


def _ratio(ordinary: Sequence[nn.Module], packed: Sequence[nn.Module], rows: Tensor) -> float:
    """Seconds of the ordinary layers for one of the packed ones. The fastest of several turns: what others do on the
    machine only ever slows one down."""
    best = [float("inf")] * 2
    for _ in range(5):
        for side, layers in enumerate((ordinary, packed)):
            start = time.perf_counter()
            for layer in layers:
                layer(rows)
            best[side] = min(best[side], time.perf_counter() - start)
    return best[0] / best[1]


def _shared_weights(model: PreTrainedModel) -> set[int]:
    """Addresses of weights that belong to more than one module (an embedding tied to the head)."""
    uses = Counter(parameter.data_ptr() for module in model.modules() for parameter in module.parameters(recurse=False))
    return {address for address, count in uses.items() if count > 1}


def _replace(
    model: PreTrainedModel, name: str, layer: nn.Linear, packed: PackedLinear | SiblingLinear, *, keep: bool
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
