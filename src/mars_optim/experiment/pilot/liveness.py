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

SAID: dict[str, Any] = {
    **dict(state=str, host=str, pid=int, beat=int, planned_runs=int, running=dict, waiting=dict),
    **dict(done_runs=int, share=int | float, seconds_left=int | float),
    **dict(steps_per_second=int | float),
}
"""Fields of a pilot's sign of life, with their types; a file by another hand may hold anything."""


def read_status(out: Path) -> dict[str, Any]:
    """Last words of the pilot in ``out``; empty if there are none, or they are damaged."""
    try:
        data = json.loads((out / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    found = data if isinstance(data, dict) else {}
    if found.get("state") not in STATES:
        return {}
    known = {key: found[key] for key, kind in SAID.items() if isinstance(found.get(key), kind)}
    steps = known.get("running", {}).items()
    return known | {"running": {run: step for run, step in steps if isinstance(step, int)}}


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
