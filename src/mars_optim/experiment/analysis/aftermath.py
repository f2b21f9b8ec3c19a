"""Outcomes of stages 2 and 3: found beside the pilot or named, and held against its plan."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..plan import Plan
from ..records.production import CanaryRecord, GuardRecord, read_canary, read_guard

CANARY_PLACES = ("canary.json", "canary/canary.json", "mars-canary/canary.json")
GUARD_PLACES = ("guard.jsonl",)
DATA = ("kind", "corpus", "source", "command")
"""Keys of a task that say what is trained on; the others are its size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """Events after the pilot.

    Args:
        canary: of this pilot's candidate; None without one.
        canary_size: keys of its task that differ from the pilot's, as "key old → new".
        guard: the log of production; None without one.
        refused: a sentence for each file beside the pilot that cannot be read or is not of it.
    """

    canary: CanaryRecord | None = None
    canary_size: tuple[str, ...] = ()
    guard: GuardRecord | None = None
    refused: tuple[str, ...] = ()


def aftermath(
    plan: Plan, out: Path, canary: Path | None = None, guard: Path | None = None
) -> Aftermath:
    """Read what is there.

    Args:
        plan: of the pilot.
        out: its folder, in which both files are looked for.
        canary: file or folder of a canary elsewhere (default: None, those of ``out``).
        guard: log of a guard elsewhere (default: None, that of ``out``).

    Raises:
        UserError: if a file that was named cannot be read or is not of this pilot. A file that
            was only found is told in ``refused`` instead.
    """
    refused: list[str] = []
    tested = logged = None
    if where := canary or _found(out, CANARY_PLACES):
        try:
            tested = _of_pilot(plan, read_canary(where))
        except UserError as error:
            if canary:
                raise
            refused.append(str(error))
    if where := guard or _found(out, GUARD_PLACES):
        try:
            logged = read_guard(where)
        except UserError as error:
            if guard:
                raise
            refused.append(str(error))
    return Aftermath(
        canary=tested,
        canary_size=_size(plan, tested) if tested else (),
        guard=logged,
        refused=tuple(refused),
    )


def _found(out: Path, places: tuple[str, ...]) -> Path | None:
    return next((out / place for place in places if (out / place).is_file()), None)


def _of_pilot(plan: Plan, found: CanaryRecord) -> CanaryRecord:
    """The record, if it is of this plan's candidate and data.

    Raises:
        UserError: naming what differs.
    """
    name = plan.comparison.candidate
    arm, task = plan.arm[name], _task(plan)
    pairs: list[tuple[str, Any, Any]] = [("candidate", found.candidate or name, name)]
    pairs += [(key, found.settings[key], float(getattr(arm, key))) for key in ("gamma", "clip")]
    pairs += [(key, found.task.get(key, task.get(key)), task.get(key)) for key in DATA]
    for key, theirs, ours in pairs:
        if theirs != ours:
            raise UserError(
                f"{found.path} belongs to another pilot: its {key} is {theirs!r}, and this "
                f"pilot's is {ours!r}; `mars canary --plan` with this pilot's plan.toml makes "
                "a matching one"
            )
    return found


def _task(plan: Plan) -> dict[str, Any]:
    """As JSON gives it back."""
    return dict(json.loads(json.dumps(dataclasses.asdict(plan.task))))


def _size(plan: Plan, found: CanaryRecord) -> tuple[str, ...]:
    task = _task(plan)
    changed = {k: v for k, v in found.task.items() if k in task and task[k] != v}
    return tuple(f"{key} {task[key]} → {value}" for key, value in changed.items())
