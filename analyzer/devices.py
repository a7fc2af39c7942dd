"""Decide where the arithmetic runs. Imports torch only where a GPU is in question."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

from analyzer.errors import DeviceError

_DIGITS = 4  # of a device's number; Python refuses to read one of thousands
Notify = Callable[[str], None]


def resolve_device(name: str, *, notify: Notify = lambda _: None) -> str:
    """Which of "cpu" and "cuda:N" stands for what a user wrote: auto, cpu, cuda, cuda:N or mps.

    "auto" takes the first CUDA device there is, else the CPU. "mps" has no fp64, so it measures on
    the CPU and says so through `notify`. Raises DeviceError for a device that is not there.
    """
    if name == "cpu":
        return "cpu"
    if name == "mps":
        notify("mps has no 64-bit floats: measuring on the CPU instead")
        return "cpu"
    if name == "auto":
        return "cuda:0" if _nvidia_driver_present() and _cuda_devices() else "cpu"
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if not match:
        raise DeviceError(f"unknown device {name!r}: write auto, cpu, cuda, cuda:N or mps")
    digits, count = match[1] or "0", _cuda_devices()
    if len(digits) > _DIGITS or int(digits) >= count:
        found = "no CUDA device" if count == 0 else f"{count} CUDA device{'s' if count > 1 else ''}"
        raise DeviceError(f"device {name!r} is not there: torch sees {found}; use --device cpu")
    return f"cuda:{int(digits)}"


def _nvidia_driver_present() -> bool:
    """Whether asking torch is worth its import, which takes seconds and most machines have no GPU."""
    if importlib.util.find_spec("torch") is None:
        return False
    linux = any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"))
    windows = Path(r"C:\Windows\System32\nvcuda.dll").exists()
    return linux or windows


def _cuda_devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
