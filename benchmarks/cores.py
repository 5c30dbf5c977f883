"""Cores: the server and the workers each keep to one of their own, where there are two."""

import os
import platform
from pathlib import Path

SERVER = 0
WORKER = -1


def pin(place: int) -> None:
    """Keeps this process to the first (`SERVER`) or last (`WORKER`) core it may use."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[place]})


def machine() -> dict[str, object]:
    """Returns what the figures depend on: the interpreter, the processor, its cores."""
    return {
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
    }


def _cpu_model() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
