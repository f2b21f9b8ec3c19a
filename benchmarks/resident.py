"""How far a process's resident memory rises while something runs (Linux)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# glibc keeps freed blocks below a threshold that grows up to 32 MiB, so that later steps reuse
# what an earlier one had faulted in and no rise is seen. A fixed one gives each back at once.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(64 * 1024), "MALLOC_TRIM_THRESHOLD_": "0"}
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def supported() -> bool:
    """Whether the kernel tells the peak of resident memory and lets it be reset."""
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return "VmHWM:" in _STATUS.read_text()


def rise(action: Callable[[], object]) -> int:
    """Bytes by which the peak during ``action`` lies above what is resident before it."""
    _RESET.write_text("5")  # VmHWM <- VmRSS
    before = _read("VmRSS")
    action()
    return _read("VmHWM") - before


def now() -> int:
    """Resident bytes."""
    return _read("VmRSS")


def in_fresh_process(module: str, *arguments: str) -> dict[str, Any]:
    """Last line that ``python -m module arguments`` prints, a JSON object.

    In its own process, so that no earlier variant's memory is reused.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ENVIRONMENT},
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": f"exit code {done.returncode}: {last}"}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _read(key: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{_STATUS} has no {key}")
