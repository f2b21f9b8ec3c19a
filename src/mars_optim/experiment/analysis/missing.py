"""Missing runs of a pilot, and why: one finding a run."""

from __future__ import annotations

from pathlib import Path

from ..plan import Plan
from ..plan.decision import LOSS
from ..records import Run, read_runs
from ..records.metric import cost
from ..records.run import damaged_runs
from .model import Finding


def missing_findings(plan: Plan, out: Path) -> tuple[Finding, ...]:
    """Runs that were tried and came to nothing, and files that can no longer be read.

    Args:
        plan: whose runs are meant.
        out: folder of the pilot.
    """
    runs = [run for run in read_runs(out / "runs") if plan.covers(run.spec)]
    failed = [_failed(run) for run in runs if run.outcome is None and run.failures]
    damaged = [
        Finding("missing.damaged", dict(run=path.name)) for path in damaged_runs(out / "runs")
    ]
    cut = [
        Finding("missing.cut", dict(run=run.path.name, what=run.damaged))
        for run in runs
        if run.damaged
    ]
    if plan.decision.metric != LOSS:
        ended = [run for run in runs if run.outcome and run.outcome.status != "diverged"]
        cut += [
            Finding("missing.metric", dict(run=run.path.name))
            for run in ended
            if cost(run, plan.decision) is None
        ]
    return (*failed, *damaged, *cut)


def _failed(run: Run) -> Finding:
    return Finding(
        "missing.failed",
        dict(run=run.path.name, tries=len(run.failures), failure=str(run.failures[-1])),
    )
