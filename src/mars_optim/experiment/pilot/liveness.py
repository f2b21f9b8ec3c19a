"""State of a pilot by its ``status.json``, without importing anything heavy."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any, Literal

STATUS = "status.json"  # in the pilot's folder
State = Literal["waiting", "running", "gone", "stopped", "ended"]
STATES = ("waiting", "running", "gone", "stopped", "ended")


def read_status(out: Path) -> dict[str, Any]:
    """Last words of the pilot in ``out``; empty if there are none, or they are damaged."""
    try:
        data = json.loads((out / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def state_of(status: dict[str, Any]) -> State:
    """State that the status tells; "gone" if the process of a running pilot is no more."""
    state: State = status.get("state", "waiting")
    here = status.get("host") == platform.node()
    if state == "running" and here and not is_alive(status.get("pid")):
        return "gone"
    return state


def is_alive(pid: object) -> bool:
    """Whether a process of this machine has this number."""
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True
