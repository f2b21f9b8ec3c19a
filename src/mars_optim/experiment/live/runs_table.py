"""The table of all runs: which, how far, how good and how quick."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

from ..pilot.standing import RunProgress
from ..pilot.status import Snapshot
from ..plan.decision import LOSS
from ..plan.sizes import OWN_SIZE
from ..records import Run
from ..records.metric import cost
from ..report import Messages
from ..report.document import Cell, Table

MOST = 300
"""Rows that are shown."""
LONGEST = 200
"""Characters of a reason."""

UNDER_WAY, WAITS, FAILED, BEGUN, ENDED = range(5)
"""Order of the rows."""


def runs_table(snapshot: Snapshot, say: Messages) -> Table:
    """A row a run: those under way first, then those that failed, then ended ones, newest first."""
    ended = {run.spec.run_id: i for i, run in enumerate(snapshot.done)}
    running = {p.spec.run_id: p for p in snapshot.running}
    found = []
    for run in snapshot.runs:
        rank, state = _state(run, running.get(run.spec.run_id), snapshot, say)
        found.append(((rank, -ended.get(run.spec.run_id, 0), run.path.name), run, state))
    found.sort(key=lambda row: row[0])
    caption = say("live.runs" if len(found) <= MOST else "live.runs-some", n=len(found), most=MOST)
    columns = say.each("arm", "live.state", "live.loss", "live.budget", "seed", "lr", "live.pace")
    rows = tuple(_row(run, state, snapshot, say) for _, run, state in found[:MOST])
    return Table(caption, columns, rows)


def _row(run: Run, state: Cell, snapshot: Snapshot, say: Messages) -> tuple[Cell, ...]:
    spec = run.spec
    return (
        Cell(spec.arm_name, say(f"live.purpose.{spec.purpose}"), arm=spec.arm_name),
        state,
        _loss(run, snapshot, say),
        _budget(run, snapshot, say),
        Cell(str(spec.seed)),
        Cell(f"{spec.lr:.2g}"),
        Cell(say("live.tokens-a-second", n=pace) if (pace := _pace(run)) else say("none")),
    )


def _state(
    run: Run, progress: RunProgress | None, snapshot: Snapshot, say: Messages
) -> tuple[int, Cell]:
    """Where a run stands, and its row in the table."""
    outcome, why = run.outcome, snapshot.waiting.get(run.spec.run_id, "")
    if outcome and outcome.status == "diverged":
        return ENDED, Cell(say("diverged"), one_line(outcome.reason))
    if outcome:
        return ENDED, Cell(say("live.done"))
    if why:
        return WAITS, Cell(say("live.waits"), one_line(why))
    if progress:
        steps = dict(step=progress.step, steps=run.spec.steps)
        share = say.level(math.floor(100 * min(1.0, progress.share)) / 100)
        return UNDER_WAY, Cell(share, say("live.step", **steps))
    if run.failures:
        tries = say("live.tries", n=len(run.failures))
        reason = one_line(str(run.failures[-1]))
        return FAILED, Cell(say("live.failed"), say.listed((tries, reason)))
    return BEGUN, Cell(say("live.begun"))


def _budget(run: Run, snapshot: Snapshot, say: Messages) -> Cell:
    """Length in units of the common budget, the steps, and the size where it is another one."""
    spec = run.spec
    size = snapshot.plan.size_of(spec)
    steps = say("live.steps", n=spec.steps)
    if size is None:
        return Cell(steps)
    other = (size.name,) if size.name != OWN_SIZE else ()
    times = f"{spec.steps / size.steps(1.0):.3g}\u00d7"
    return Cell(times, say.listed((*other, steps)))


def _loss(run: Run, snapshot: Snapshot, say: Messages) -> Cell:
    """The deciding metric of a finished run; of others the last training loss."""
    rule = snapshot.plan.decision
    if run.outcome:
        value = cost(run, rule)
        name = say("live.valid") if rule.metric == LOSS else rule.metric
        return Cell(say("none")) if value is None else Cell(f"{rule.sign * value:.4f}", name)
    losses = [row["loss"] for row in run.rows if number(row.get("loss"))]
    return Cell(f"{losses[-1]:.4f}", say("live.train")) if losses else Cell(say("none"))


def _pace(run: Run) -> float | None:
    """Tokens a second: of the last row that says so, else between the first and the last row."""
    told = [r["tokens_per_second"] for r in run.rows if number(r.get("tokens_per_second"))]
    if told:
        return float(told[-1])
    timed = [r for r in run.rows if number(r.get("tokens")) and number(r.get("seconds"))]
    if len(timed) < 2 or timed[-1]["seconds"] <= timed[0]["seconds"]:
        return None
    first, last = timed[0], timed[-1]
    return float((last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"]))


def number(value: Any) -> TypeGuard[float]:
    """Whether a row's value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def one_line(text: str) -> str:
    """A reason, without line breaks, cut where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "\u2026"
