"""What a pilot lacks, and why: one line a run."""

from __future__ import annotations

from pathlib import Path

from ..records import Plan, Run, read_runs
from ..records.run import damaged_runs


def missing_lines(plan: Plan, out: Path) -> tuple[str, ...]:
    """Runs that were tried and came to nothing, and files that can no longer be read.

    Args:
        plan: whose runs are meant.
        out: folder of the pilot.
    """
    runs = [run for run in read_runs(out / "runs") if plan.covers(run.spec)]
    failed = [_failed(run) for run in runs if run.outcome is None and run.failures]
    damaged = [
        f"{path.name}: its manifest.json is damaged; the same command makes the run again."
        for path in damaged_runs(out / "runs")
    ]
    cut = [f"{run.path.name}: its curve lacks {run.damaged}." for run in runs if run.damaged]
    return (*failed, *damaged, *cut)


def _failed(run: Run) -> str:
    last, tries = run.failures[-1], len(run.failures)
    times = "once" if tries == 1 else f"{tries} times"
    return f"{run.path.name} is missing: tried {times}, {last}."
