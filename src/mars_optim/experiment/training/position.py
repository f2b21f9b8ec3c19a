"""Where a run is: plain values from which its loop goes on, and whether they are whole."""

from __future__ import annotations

import math
from typing import Any

POSITION = "position.json"


def beginning() -> dict[str, Any]:
    """Where a run is before its first step: plain values, as checkpoints hold them.

    ``losses`` and ``window``, seconds of steps and of the optimizer, are since the last row.
    """
    return dict(
        step=0,
        seconds=0.0,
        trunk_seconds=0.0,
        lr=0.0,
        losses=[],
        window=[0.0, 0.0],
        first_loss=math.inf,
        valid_loss=math.nan,
        scores={},
        best_loss=math.inf,
        best_step=0,
    )


def fault_of(position: Any, steps: int) -> str:
    """Why a run cannot go on from a position that was read back; empty if it can.

    Args:
        position: with the keys of :func:`beginning`, ``rows`` and, of a MARS, ``memory``.
        steps: of the run.
    """
    if not isinstance(position, dict):
        return "position is no table"
    forms = {**beginning(), "rows": [{}]}
    for key, form in forms.items():
        if key in position:
            if not _is_like(position[key], form):
                return f"{key} = {repr(position[key])[:40]}"
        elif key != "trunk_seconds":  # a run from before there were trunks has none
            return f"position has no {key!r}"
    if not 0 < position["step"] <= steps:
        return f"step = {position['step']} is none of the run's {steps} steps"
    if not _is_memory(position.get("memory")):
        return "memory is not what an optimizer keeps"
    return ""


def _is_like(value: Any, form: Any) -> bool:
    """Whether it has the type of ``form``; lists and tables of numbers, but for rows."""
    if form == [{}]:
        return isinstance(value, list) and all(isinstance(row, dict) for row in value)
    if isinstance(form, list):
        whole = isinstance(value, list) and (not form or len(value) == len(form))
        return whole and all(map(_is_number, value))
    if isinstance(form, dict):
        return isinstance(value, dict) and all(map(_is_number, value.values()))
    return type(value) is int and value >= 0 if type(form) is int else _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_memory(memory: Any) -> bool:
    """Whether it can be what ``MARS.memory`` gave, or nothing."""
    if not memory:
        return True
    if not isinstance(memory, dict) or not {"gamma", "telemetry"} <= memory.keys():
        return False
    gamma, telemetry = memory["gamma"], memory["telemetry"]
    groups = isinstance(gamma, list) and all(isinstance(group, dict) for group in gamma)
    return groups and (telemetry is None or isinstance(telemetry, dict))
