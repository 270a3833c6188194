"""Which device a model goes to where the one asked for may be a tool's default and not a wish."""

import torch


def usable(device: str | None) -> str:
    """The device itself, or the CPU where it names a CUDA device and there is none; None: the best there is."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        return "cpu"
    return device
