"""The verdict as a function of the tuning budget: what fewer trials of both arms would have told.

With k trials an arm is expected to have a loss above that of all n trials (:mod:`.best_of`). The
candidate's compared losses are raised by its difference less the baseline's, and read off the same
ladders: fewer trials of the baseline are taken to raise its whole ladder alike. With a target the
trials tell times, and these are moved by as much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from .arm_model import ArmResult
from .arm_results import seed_result
from .best_of import BestOf
from .choice import in_pairs, on_ladder
from .compared import Comparison
from .looks import interval
from .model import TuningBudget
from .stats import Interval, shifted
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
    if not (base.regret and arm.regret):
        return ()  # not a trial reached the target
    pairs = zip(arm.tuned.best, base.tuned.best, strict=False)
    return tuple(_budget(at, arm, base, *pair) for pair in pairs if pair[0].k == pair[1].k)


def _budget(
    at: Comparison, arm: ArmResult, base: ArmResult, mine: BestOf, theirs: BestOf
) -> TuningBudget:
    above = [_above(tuning, found) for tuning, found in ((arm, mine), (base, theirs))]
    if above[0] is None or above[1] is None:
        return TuningBudget(trials=mine.k, log_ratio=None, bounds=frozenset(), decision=None)
    more = above[0] - above[1]
    if at.plan.decision.goal is None:
        ratio, bounds = _along_ladder(at, arm, base, more, (mine, theirs))
    else:
        off = in_pairs(mine.off, 1.0, theirs.off, -1.0) - more
        ratio = arm.log_ratio_here and shifted(arm.log_ratio_here, off)
        bounds = frozenset(arm.bounds)
    threshold = -math.log1p(-at.plan.decision.min_saving)
    return TuningBudget(
        trials=mine.k,
        log_ratio=ratio,
        bounds=bounds,
        decision=by_interval(ratio, threshold, set(bounds)) if ratio else None,
    )


def _along_ladder(
    at: Comparison, arm: ArmResult, base: ArmResult, more: float, best: tuple[BestOf, BestOf]
) -> tuple[Interval | None, frozenset[str]]:
    """The log token ratio with the candidate's losses raised by ``more``, and its bounds."""
    unit, name = at.size.steps(1.0), at.plan.comparison.candidate
    runs = [run for (a, _, n), run in at.compared.items() if (a, n) == (name, unit)]
    seeds = [seed_result(at, run, more) for run in runs]
    measured = interval([s.log_ratio for s in seeds], at.plan.decision)
    assert arm.slope is not None
    assert base.slope is not None
    off = in_pairs(best[0].off, 1 / arm.slope, best[1].off, -1 / base.slope)
    bounds = frozenset(s.reading.bound for s in seeds if s.reading and s.reading.bound)
    return measured and shifted(measured, on_ladder(off, arm)), bounds


def _above(arm: ArmResult, found: BestOf) -> float | None:
    """The expected loss of k trials above that of all."""
    assert arm.tuned is not None
    whole = arm.tuned.whole.loss
    return None if found.loss is None or whole is None else found.loss - whole
