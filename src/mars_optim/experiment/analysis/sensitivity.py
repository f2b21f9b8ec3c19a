"""How much the learning rate matters: the loss over it, and how wide the good range is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..plan import Arm, Plan
from ..plan.any_arm import is_any
from ..records import Run
from ..records.trials import Trials, best_lr

WITHIN = 0.01  # of the best loss: where a learning rate still counts as safe


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Learning rates around the best that stay below a loss, among and between those tried.

    Args:
        low: lower end.
        high: upper end.
        low_bound: "" where a worse rate was tried below; "at most" where none was: it may go on.
        high_bound: "" where a worse rate was tried above; "at least" where none was.
        diverged_above: the end is the last rate that trained, since the next one tried diverged.
    """

    low: float
    high: float
    low_bound: str
    high_bound: str
    diverged_above: bool

    @property
    def factor(self) -> float:
        """Width: highest over lowest rate."""
        return self.high / self.low

    @property
    def censored(self) -> bool:
        """Whether the factor is a lower bound."""
        return bool(self.low_bound or self.high_bound or self.diverged_above)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One arm at one gamma, over the learning rate; one seed, fully decayed.

    Args:
        arm: name in the plan.
        gamma: of the arm, or of the sensitivity runs; None where the optimizer is not ours.
        points: (learning rate, final loss), rising; None for a run that diverged.
        best: lowest loss; None if all diverged.
        safe: rates within :data:`WITHIN` of the line's own best loss.
        beats_baseline: rates at which the loss is no higher than the baseline's best; None if
            there are none, and for the baseline itself.
    """

    arm: str
    gamma: float | None
    points: tuple[tuple[float, float | None], ...]
    best: float | None
    safe: Range | None
    beats_baseline: Range | None


def lines(plan: Plan, runs: Iterable[Run]) -> tuple[Line, ...]:
    """The lines of the plan's arms at their own gamma, then of the candidate's other gammas.

    Args:
        plan: of the pilot.
        runs: finished runs of one size: those of one unit budget at the tuning seed count.
    """
    trials: dict[tuple[str, float | None], dict[float, float | None]] = {
        (name, _gamma(plan.arm[name])): {} for name in plan.arms
    }
    for run in runs:
        spec = run.spec
        if spec.purpose in ("tune", "sensitivity") and spec.seed == plan.tuning.seed:
            key = (spec.arm_name, _gamma(spec.arm))
            trials.setdefault(key, {})[spec.lr] = run.final_loss
    name = plan.comparison.baseline
    baseline = trials[name, _gamma(plan.arm[name])]
    target = _best(baseline)
    return tuple(
        _line(arm, gamma, found, None if arm == plan.comparison.baseline else target)
        for (arm, gamma), found in trials.items()
        if found
    )


def _gamma(arm: Arm) -> float | None:
    return None if arm.optimizer == "external" or is_any(arm.optimizer) else arm.gamma


def _line(arm: str, gamma: float | None, trials: Trials, target: float | None) -> Line:
    best = _best(trials)
    beats = best is not None and target is not None and best <= target
    return Line(
        arm=arm,
        gamma=gamma,
        points=tuple(sorted(trials.items())),
        best=best,
        safe=None if best is None else range_below(trials, best + WITHIN * abs(best)),
        beats_baseline=range_below(trials, target) if beats and target is not None else None,
    )


def _best(trials: Mapping[float, float | None]) -> float | None:
    return min((loss for loss in trials.values() if loss is not None), default=None)


def range_below(trials: Trials, limit: float) -> Range:
    """The range around the best trial in which the loss stays at or below ``limit``.

    Between trials the loss is a straight line over log learning rate. Next to a run that diverged
    there is nothing to draw a line to: there the range ends at the last rate that trained.

    Args:
        trials: at least one that did not diverge.
        limit: at or above the best loss.
    """
    lrs = sorted(trials)
    start = lrs.index(best_lr(trials))
    low, low_open, low_gone = _walk(trials, lrs[start::-1], limit)
    high, high_open, high_gone = _walk(trials, lrs[start:], limit)
    return Range(
        low=low,
        high=high,
        low_bound="at most" if low_open or low_gone else "",
        high_bound="at least" if high_open or high_gone else "",
        diverged_above=high_gone,
    )


def _walk(trials: Trials, lrs: list[float], limit: float) -> tuple[float, bool, bool]:
    """From the best outwards: where it ends, whether no worse was tried, whether one diverged."""
    here = lrs[0]
    for there in lrs[1:]:
        loss, last = trials[there], trials[here]
        assert last is not None
        if loss is None:
            return here, False, True
        if loss > limit:
            share = (limit - last) / (loss - last)
            return math.exp(math.log(here) + share * math.log(there / here)), False, False
        here = there
    return here, True, False
