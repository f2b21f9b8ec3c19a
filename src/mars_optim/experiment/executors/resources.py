"""The machine divided among workers: threads, and accelerators in turn."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
VISIBLE = ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources of one worker.

    Args:
        threads: of the CPU.
        environment: that shows its accelerators to it and to what it starts, and no others.
    """

    threads: int
    environment: tuple[tuple[str, str], ...] = ()

    def take(self) -> None:
        """Set it in this process, before an accelerator is first used."""
        os.environ.update(self.environment)
        os.environ["OMP_NUM_THREADS"] = str(self.threads)


def divided(count: int) -> list[Resources]:
    """This machine for ``count`` workers: accelerators dealt out in turn, threads divided.

    One worker gets everything. With fewer accelerators than workers, some share one.
    """
    threads = max(1, cores() // count)
    variable, devices = accelerators(os.environ) if count > 1 else ("", [])
    if not devices:
        return [Resources(threads)] * count
    dealt = [devices[i::count] or [devices[i % len(devices)]] for i in range(count)]
    return [Resources(threads, ((variable, ",".join(mine)),)) for mine in dealt]


def accelerators(environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """The variable that shows accelerators to a process, and those that it shows to this one."""
    for variable in VISIBLE:
        if variable in environment:
            names = (name.strip() for name in environment[variable].split(","))
            return variable, [name for name in names if name and name != "-1"]
    if sys.platform == "linux" and not any(Path(device).exists() for device in DEVICES):
        return VISIBLE[1], []
    import torch  # takes seconds, so only where it can find something

    variable = "HIP_VISIBLE_DEVICES" if torch.version.hip else "CUDA_VISIBLE_DEVICES"
    return variable, [str(i) for i in range(torch.cuda.device_count())]


def cores() -> int:
    """Those that this process may use, and no more than OMP_NUM_THREADS if that is set."""
    here = hasattr(os, "sched_getaffinity")  # on Linux
    usable = len(os.sched_getaffinity(0)) if here else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable, int(wanted)) if wanted.isdigit() and int(wanted) else usable


def automatic_workers() -> int:
    """One for each accelerator; without one, one per core, four at the most."""
    _, devices = accelerators(os.environ)
    return len(devices) or max(1, min(4, cores()))
