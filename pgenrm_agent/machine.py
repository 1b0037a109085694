"""What a figure was measured on, in words that say nothing of whose machine it is."""

from __future__ import annotations

import os
import platform
import sys


def describe_machine() -> str:
    """Processor cores this process may use, GPUs, architecture, system and Python version.

    GPUs are named where torch is loaded already; it is not loaded for that.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    parts = [f"{cores} CPU core{'s' if cores > 1 else ''}"]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        count = torch.cuda.device_count()
        parts.append(f"{count} x {torch.cuda.get_device_name(0)}")
    return ", ".join(
        [*parts, platform.machine(), platform.system(), f"Python {platform.python_version()}"]
    )
