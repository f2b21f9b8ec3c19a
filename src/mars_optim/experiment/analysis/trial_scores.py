"""The trials of an arm of which more than the rate is tuned, and what they are chosen by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ..plan.decision import DecisionPlan
from ..plan.tuning import Point
from ..records import Run
from ..records.metric import cost, judged
from .target import reach

LONGEST = math.log(100.0)
"""Log of how many times its length a trial that missed the target takes at the most."""


def trial_runs(runs: Iterable[Run], arm: str, steps: int, seed: int) -> dict[Point, Run]:
    """The finished trials of an arm at one budget."""
    return {
        Point(r.spec.arm, r.spec.lr): r
        for r in runs
        if r.spec.purpose == "tune"
        and r.outcome
        and (r.spec.arm_name, r.spec.steps, r.spec.seed) == (arm, steps, seed)
    }


def losses_of(
    runs: Mapping[Point, Run], decision: DecisionPlan, slope: float = 1.0
) -> dict[Point, float | None]:
    """Scores by which trials are chosen: the loss, the deciding metric or the time to the
    target.

    A time is the log of the tokens until then. A trial that missed the target comes after all that
    reached it: to the log of its length is added how far it ended from the target, over ``slope``,
    bent so that no time is more than a hundred times its run. Whatever the slope, the order is the
    same.

    Args:
        runs: the trials.
        decision: what decides.
        slope: fall of the cost per unit of log tokens.
    """
    return {at: _found(run, decision, slope) for at, run in runs.items()}


def _found(run: Run, decision: DecisionPlan, slope: float) -> float | None:
    end, goal = cost(run, decision), decision.goal
    if goal is None or end is None:
        return end
    if run.damaged:  # its curve is not whole
        return None
    when = reach(judged(run, decision), goal)
    late = 0.0 if when.reached else max(0.0, end - goal) / slope
    return math.log(max(when.tokens, 1.0)) + LONGEST * (1 - LONGEST / (LONGEST + late))
