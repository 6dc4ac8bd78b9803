"""What a measurement was made on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from tuckertree._base.version import __version__


def environment() -> dict[str, str | int]:
    """Versions, CPU and number of threads, as they go into every report."""
    found: dict[str, str | int] = {
        "tuckertree": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def has_vnni() -> bool | None:
    """Whether the CPU multiplies 8-bit integers without saturation, by VNNI instructions; None if that is not known.

    It is known on Linux on x86; other architectures have instructions of their own.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags)


def processor() -> str:
    """Name of the CPU's model, or an empty text."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
