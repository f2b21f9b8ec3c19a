"""How a pilot in another process stands, read from its folder; nothing there is locked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError, check_folder
from ..analysis import Analysis, analyse
from ..plan import Plan
from ..plan.plan_file import load_plan, plan_of
from ..records import Run, read_run
from ..records.trials import Trials
from .agenda import agenda, tuning_trials
from .liveness import read_status, state_of
from .standing import RunProgress, Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Standing):
    """A pilot in another process: how it stands, and its results so far.

    Args:
        plan: of the pilot.
        beat: changes while the pilot lives; None before its first word.
        runs: all that the plan covers and that can be read, under way and failed ones too.
        done: finished runs, in the order of their ends.
        trials: loss by learning rate of each arm's tuning runs.
        interim: analysis of what is there; None before the first finished run.
        unreadable: what could not be read.
    """

    plan: Plan
    beat: int | None
    runs: tuple[Run, ...]
    done: tuple[Run, ...]
    trials: dict[str, Trials]
    interim: Analysis | None
    unreadable: tuple[str, ...]

    @property
    def out_of_budget(self) -> bool:
        """Whether it ended before all its runs were made, and nothing but the budget ended it."""
        if self.state != "ended" or not self.plan.cost.budget or self.unreadable:
            return False
        failed = any(run.outcome is None and run.failures for run in self.runs)
        found = self.interim
        missing = found.totals.missing if found else self.planned_runs - self.done_runs
        return missing > 0 and not failed


def take(out: Path) -> Snapshot:
    """Read the pilot in ``out`` as it stands.

    Raises:
        UserError: if there is no pilot.
    """
    check_folder(out, "a pilot")
    if not (out / "plan.toml").exists():
        raise UserError(f"{out} holds no pilot (no plan.toml); `mars pilot --out {out}` makes one")
    plan, status = load_plan(plan_of(out)), read_status(out)
    runs, unreadable = _runs(out / "runs")
    covered = [run for run in runs if plan.covers(run.spec)]
    done = sorted((r for r in covered if r.outcome), key=_ended)
    interim = _interim(out)
    state = state_of(status)
    if state == "waiting" and interim and not interim.totals.missing:
        state = "ended"  # by a pilot that left no word, or in a copy of its folder
    data = covered[0].spec.data if covered else ""
    planned = status.get("planned_runs") or agenda(plan, data, done).planned_runs
    told = status if state == "running" else {}
    steps = told.get("running", {})
    return Snapshot(
        plan=plan,
        state=state,
        beat=status.get("beat"),
        runs=tuple(covered),
        done=tuple(done),
        done_runs=len(done),
        planned_runs=max(planned, len(done)),
        share=told.get("share"),
        seconds_left=told.get("seconds_left"),
        rate=told.get("steps_per_second"),
        running=tuple(
            _progress(r, steps) for r in covered if not r.outcome and r.spec.run_id in steps
        ),
        waiting=dict(told.get("waiting", {})),
        trials=tuning_trials(plan, done),
        interim=interim,
        unreadable=tuple(unreadable),
    )


def _runs(folder: Path) -> tuple[list[Run], list[str]]:
    runs, unreadable = [], []
    for manifest in sorted(folder.glob("*/manifest.json")):
        try:
            runs.append(read_run(manifest.parent))
        except UserError as error:
            unreadable.append(str(error))
    return runs, unreadable


def _ended(run: Run) -> float:
    try:
        return (run.path / "manifest.json").stat().st_mtime
    except OSError:
        return 0.0


def _progress(run: Run, steps: dict[str, int]) -> RunProgress:
    losses = [row["loss"] for row in run.rows if isinstance(row.get("loss"), int | float)]
    rows = [row["step"] for row in run.rows[-1:] if isinstance(row.get("step"), int)]
    step = max([steps[run.spec.run_id], *rows])
    return RunProgress(run.spec, step, losses[-1] if losses else None)


def _interim(out: Path) -> Analysis | None:
    try:
        return analyse(out, forecast=False)
    except UserError:
        return None
