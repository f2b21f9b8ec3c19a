"""The machine of the measurements, and its speed of copying memory."""

from __future__ import annotations

import datetime
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

_COPIED = 64 * 1024 * 1024  # float32 elements, 256 MiB: far above any cache


def describe() -> dict[str, Any]:
    """Processor, threads, versions and date."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def sentence(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"torch {machine['torch']}, Python {machine['python']}, {machine['date']}, "
        f"load at the start {machine['load']}"
    )


class Copy:
    """``torch.Tensor.copy_`` of a large float32 array, to be timed."""

    def __init__(self, elements: int = _COPIED) -> None:
        self._source, self._target = torch.ones(elements), torch.zeros(elements)
        self.seconds()  # pages are mapped at the first touch
        self.bytes = 2 * self._source.nbytes  # read and written

    def seconds(self) -> float:
        """Seconds of one copy."""
        start = time.perf_counter()
        self._target.copy_(self._source)
        return time.perf_counter() - start


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
