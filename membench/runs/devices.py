"""Which device a run uses where none was named."""

from __future__ import annotations

import torch

AUTO = "auto"


def device_of(name: str) -> str:
    """The device itself; of ``auto`` the first that is there: cuda, then mps, then cpu.
    A named one is not checked (``models.loading.check_device`` does).
    """
    if name != AUTO:
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_line(device: str, dtype: str) -> str:
    """``device cuda (NVIDIA H100), float32``; of the processor, whether there is
    anything else.
    """
    if device.startswith("cuda") and torch.cuda.is_available():
        told = f" ({torch.cuda.get_device_name(torch.device(device))})"
    elif device == device_of(AUTO) == "cpu":
        told = " (no cuda or mps here)"
    else:
        told = ""
    return f"device {device}{told}, {dtype}"
