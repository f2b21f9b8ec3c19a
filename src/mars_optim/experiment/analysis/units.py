"""From costs back to the metric that decides: more of it may be better."""

from __future__ import annotations

from dataclasses import replace

from .arm_model import ArmResult, Curve, SeedResult
from .best_of import Tuned
from .model import Analysis
from .sensitivity import Line
from .stats import Interval


def in_units(analysis: Analysis) -> Analysis:
    """The analysis with the metric's own values where it has said loss."""
    if analysis.plan.decision.sign > 0:
        return analysis
    return replace(
        analysis,
        arms=tuple(map(_arm, analysis.arms)),
        ladder=_ladder(analysis.ladder),
        candidate_ladder=_ladder(analysis.candidate_ladder),
        against_control=_interval(analysis.against_control),
        sensitivity=tuple(map(_line, analysis.sensitivity)),
    )


def _ladder(rungs: tuple[tuple[int, int, float], ...]) -> tuple[tuple[int, int, float], ...]:
    return tuple((seed, tokens, -value) for seed, tokens, value in rungs)


def _arm(arm: ArmResult) -> ArmResult:
    return replace(
        arm,
        trials=tuple(replace(t, loss=_minus(t.loss)) for t in arm.trials),
        seeds=tuple(map(_seed, arm.seeds)),
        trials_pair=arm.trials_pair and _seed(arm.trials_pair),
        loss_difference=_interval(arm.loss_difference),
        tuned=arm.tuned and _tuned(arm.tuned),
        curves=tuple(map(_curve, arm.curves)),
    )


def _seed(seed: SeedResult) -> SeedResult:
    return replace(seed, loss=_minus(seed.loss), difference=_minus(seed.difference))


def _tuned(tuning: Tuned) -> Tuned:
    """The trials' ends; what is expected of k trials, too, unless that is a time."""
    best = tuning.best
    if tuning.reached is None:
        best = tuple(
            replace(at, loss=_minus(at.loss), off=tuple(-off for off in at.off)) for at in best
        )
    trials = tuple((values, _minus(end)) for values, end in tuning.trials)
    return replace(tuning, trials=trials, best=best)


def _curve(curve: Curve) -> Curve:
    return replace(curve, valid=tuple((tokens, -value) for tokens, value in curve.valid))


def _line(line: Line) -> Line:
    points = tuple((lr, _minus(value)) for lr, value in line.points)
    return replace(line, points=points, best=_minus(line.best))


def _interval(value: Interval | None) -> Interval | None:
    return value and value.map(lambda x: -x)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value
