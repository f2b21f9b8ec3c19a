"""A pilot without a finished run: why there is nothing to read, and the way on."""

from __future__ import annotations

from pathlib import Path

from ..plan import Plan
from ..records import read_runs


def no_runs(plan: Plan, out: Path) -> str:
    """Message that no run of a pilot has finished.

    Args:
        plan: of the pilot; with a budget, that may be what ended it.
        out: its folder.
    """
    text = f"{out} holds no finished run yet; `mars pilot --out {out}` makes them"
    if budget := plan.cost.budget:
        text += f" as far as cost.budget = {budget:g} pays for them: raise it if it is spent"
    failed = [r for r in read_runs(out / "runs") if r.outcome is None and r.failures]
    for run in [run for run in failed if plan.covers(run.spec)][:1]:
        text += f". {run.path.name} is missing: {run.failures[-1]}"
    return text
