"""Which device a model goes to where the one asked for may be a tool's default and not a wish."""

import os

import torch

from lydite.errors import ModelError


def usable(device: str | None) -> str:
    """The device itself, or the CPU where it names a CUDA device and there is none; None: the best there is."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        return "cpu"
    return device


def of_this_process(device: str) -> str:
    """The device of one process among several on a machine (LOCAL_RANK): `cuda` is the CUDA device of that number."""
    if not device.startswith("cuda"):
        return device
    local = os.environ.get("LOCAL_RANK", "")
    if device != "cuda" or not local.isdecimal():
        raise ModelError(
            f"of several processes each takes a CUDA device of its own, so not {device}; give --device cuda"
            if device != "cuda"
            else "LOCAL_RANK does not say which CUDA device is this process's; start with torchrun"
        )
    if int(local) >= torch.cuda.device_count():
        raise ModelError(
            f"there are {torch.cuda.device_count()} CUDA devices here, too few for process {local} (counted from 0); "
            "start as many processes as there are devices"
        )
    return f"cuda:{local}"
