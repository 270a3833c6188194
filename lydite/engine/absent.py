"""The weight of a layer that was laid out anew: it says what it was like, and is made again for whoever computes with it.

Most models only ask a layer's weight for its dtype (T5). Some compute with it beside the layer (Mamba's steps, DeBERTa's newer
output head), and an empty tensor would be no error there: PyTorch multiplies one of the device `meta` to whatever numbers stand
in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

_DATA = ("data", "T", "mT", "H", "mH", "real", "imag")
"""Attributes that are numbers of the tensor; the others only describe it."""
_SAID = {Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.is_floating_point, torch.is_floating_point}


class AbsentWeight(Tensor):
    """A weight on the CPU that takes no memory; `make` gives it, and must hold nothing that holds this."""

    make: Callable[[], Tensor]

    @classmethod
    def like(cls, shape: Sequence[int], dtype: torch.dtype, make: Callable[[], Tensor]) -> "AbsentWeight":
        absent: AbsentWeight = torch.empty(shape, dtype=dtype, device="meta").as_subclass(cls)
        absent.make = make
        return absent

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Attributes that describe it are its own; for all else the weight is made again and used in its place."""
        of = getattr(func, "__self__", None) if getattr(func, "__name__", "") == "__get__" else None
        if of is Tensor.device:
            return torch.device("cpu")
        with torch._C.DisableTorchFunctionSubclass():
            if func in _SAID or (of is not None and getattr(of, "__name__", "") not in _DATA):
                return func(*args, **(kwargs or {}))
            args, kwargs = tree_map_only(AbsentWeight, lambda absent: absent.make(), (args, dict(kwargs or {})))
            return func(*args, **kwargs)
