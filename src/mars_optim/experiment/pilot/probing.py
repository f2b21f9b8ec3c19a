"""Time of a step and of a run of each arm, as the probe tells them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import read_json, write_json
from ..executors.base import Executor
from ..plan import Plan
from ..records import Failure
from .progress import Reporter
from .retries import Timing


def unknown_steps(probe: Mapping[str, Any]) -> str:
    """Sentence on the arms whose step time a probe could not tell; empty without any."""
    arms = [name for name, row in probe.items() if row.get("ratio", 1.0) is None]
    if not arms:
        return ""
    return (
        f"The step time of {' and '.join(arms)} cannot be told from the start of the command, so "
        "the report has no hours and no money of the job: write `seconds` of training so far in "
        "the rows, or write each row at once."
    )


def measured(plan: Plan, out: Path, executor: Executor, reporter: Reporter) -> dict[str, Timing]:
    """Measure the time of a step and of a run, for each arm."""
    path = out / "probe.json"
    failures: list[Failure] = []
    while not (timings := _probed(path)).keys() >= set(plan.arms):
        if not executor.busy:
            reporter.say("Timing one training step with each optimizer, in turn ...")
            executor.give("probe")
        for event in executor.events(timeout=1.0):
            if event.kind == "probed":
                write_json(path, event.value)
            elif event.kind == "failed":
                failures.append(event.value)
            elif event.kind == "waits":
                reporter.wait(event.run_id, event.value)
        hopeless = any(failure.again == "never" for failure in failures)
        if hopeless or len(failures) > plan.running.retries:
            details = failures[-1].details
            raise UserError(f"a training step cannot be timed: {failures[-1]} {details[-2000:]}")
    if unknown := unknown_steps(read_json(path)):
        reporter.say(unknown)
    return timings


def _probed(path: Path) -> dict[str, Timing]:
    try:
        return {
            arm: Timing(max(1e-9, float(row["seconds"])), float(row.get("outside", 0.0)))
            for arm, row in read_json(path).items()
        }
    except (UserError, AttributeError, KeyError, TypeError, ValueError):
        return {}  # not there yet, or damaged: a few seconds make it again
