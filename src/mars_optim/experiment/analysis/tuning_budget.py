"""The verdict as a function of the tuning budget: what fewer trials of both arms would have told.

With k trials an arm is expected to have a loss above that of all n trials (:mod:`.best_of`). The
candidate's compared losses are raised by its difference less the baseline's, and read off the same
ladders: fewer trials of the baseline are taken to raise its whole ladder alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from .arm_results import seed_result
from .best_of import BestOf
from .choice import in_pairs
from .comparison import Comparison
from .looks import interval
from .model import ArmResult, TuningBudget
from .stats import shifted
from .verdict import by_interval


def tuning_budgets(at: Comparison, arms: Mapping[str, ArmResult]) -> tuple[TuningBudget, ...]:
    """For 1, 2, 4, ... trials and all; empty unless both arms' tuning is whole.

    Args:
        at: the comparison at the plan's own size.
        arms: its results.
    """
    roles = at.plan.comparison
    base, arm = arms[roles.baseline], arms[roles.candidate]
    if not (base.tuned and arm.tuned and arm.log_ratio and arm.slope and base.slope):
        return ()
    pairs = zip(arm.tuned.best, base.tuned.best, strict=False)
    return tuple(_budget(at, arm, base, *pair) for pair in pairs if pair[0].k == pair[1].k)


def _budget(
    at: Comparison, arm: ArmResult, base: ArmResult, mine: BestOf, theirs: BestOf
) -> TuningBudget:
    above = [_above(tuning, found) for tuning, found in ((arm, mine), (base, theirs))]
    if above[0] is None or above[1] is None:
        return TuningBudget(trials=mine.k, log_ratio=None, bounds=frozenset(), decision=None)
    unit, name = at.size.steps(1.0), at.plan.comparison.candidate
    runs = [run for (a, _, n), run in at.compared.items() if (a, n) == (name, unit)]
    seeds = [seed_result(at, run, above[0] - above[1]) for run in runs]
    measured = interval([s.log_ratio for s in seeds], at.plan.decision)
    assert arm.slope is not None
    assert base.slope is not None
    off = in_pairs(mine.off, 1 / arm.slope, theirs.off, -1 / base.slope)
    bounds = frozenset(s.reading.bound for s in seeds if s.reading and s.reading.bound)
    ratio = measured and shifted(measured, off)
    threshold = -math.log1p(-at.plan.decision.min_saving)
    return TuningBudget(
        trials=mine.k,
        log_ratio=ratio,
        bounds=bounds,
        decision=by_interval(ratio, threshold, set(bounds)) if ratio else None,
    )


def _above(arm: ArmResult, found: BestOf) -> float | None:
    """The expected loss of k trials above that of all."""
    assert arm.tuned is not None
    whole = arm.tuned.whole.loss
    return None if found.loss is None or whole is None else found.loss - whole
