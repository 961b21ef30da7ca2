"""What a figure depends on besides the code."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

__all__ = ["environment"]

PACKAGES = ("sdeflow", "torch", "torchsde", "torchdiffeq", "numpy", "scipy", "torchode", "zuko", "flow_matching")


def environment() -> dict[str, Any]:
    """Versions, processor, cores and threads.

    Example:
        >>> sf.analysis.environment()["torch"] == torch.__version__
        True
    """

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    return {
        **{name: installed(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _processor() -> str:
    """Its model, where the system says so."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
