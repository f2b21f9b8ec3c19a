"""Which rungs of the baseline's ladder are run: those between which a loss is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .trials_pair import losses

if TYPE_CHECKING:
    from .compared import Comparison


def rungs_due(at: Comparison) -> set[int]:
    """Steps of the common budget and of the rungs that are run.

    With ``comparison.rungs = "as-read"`` a rung below the common budget is run once an arm has
    ended above the baseline there, one above it once an arm has ended below. A rung that has run
    once stays.
    """
    unit = at.size.steps(1.0)
    rungs = {at.size.steps(budget) for budget in (1.0, *at.plan.ladder)}
    if at.plan.comparison.rungs == "always":
        return rungs
    sides = {loss < base for base, loss in _pairs(at)}
    run = {steps for _, _, steps in at.compared}
    return {n for n in rungs if n == unit or n in run or (n > unit) in sides}


def _pairs(at: Comparison) -> list[tuple[float, float]]:
    """Losses of the baseline and of another arm at the common budget, of each seed."""
    unit, baseline = at.size.steps(1.0), at.plan.comparison.baseline
    ended = {(a, s): r.final_loss for (a, s, n), r in at.compared.items() if n == unit}
    both = [(ended.get((baseline, s)), loss) for (a, s), loss in ended.items() if a != baseline]
    found = [(base, loss) for base, loss in both if base is not None and loss is not None]
    others = {arm for arm, _ in ended if arm != baseline}
    return found + [pair for arm in sorted(others) if (pair := losses(at, arm))]
