"""The staged way into production and back: conditions with the pilot's numbers, as plain data."""

from __future__ import annotations

import math
from collections.abc import Collection

from ...guard.settings import GuardSettings
from ..plan.any_arm import is_any
from ..plan.plan import EXTERNAL
from .arm_model import side
from .conditions import Condition, RolloutStep, Status
from .happened import (
    canary_events,
    canary_says_go,
    canary_status,
    canary_step_time,
    guard_events,
    guard_status,
    spike_free,
    surely_better,
)
from .hours import hours_lost
from .model import Analysis
from .stats import saved

LEAST_HISTORY = 500  # steps; noise with a memory of ten steps needs as many to be known


def rollout_steps(
    analysis: Analysis, guard: GuardSettings | None = None
) -> tuple[RolloutStep, ...]:
    """The three steps, as the pilot's verdict and what happened since leave them.

    Args:
        analysis: of the pilot.
        guard: agreed for production (default: None, the defaults).
    """
    statuses: dict[str, tuple[Status, Status, Status]] = {
        "go": ("done", "next", "later"),
        "no-go": ("done", "closed", "closed"),
        "not-enough-runs": ("next", "later", "later"),
    }
    pilot, canary, production = statuses[analysis.verdict.decision]
    canary = canary_status(analysis.aftermath, canary)
    if canary in ("done", "failed") and production != "closed":
        production = "next" if canary == "done" else "closed"
    if production == "next" and hours_lost(analysis):
        production = "later"  # the action says: not yet
    production = guard_status(analysis.aftermath, production)
    return (
        _pilot(analysis, pilot),
        _canary(analysis, canary),
        _production(analysis, production, guard or GuardSettings()),
    )


def next_step(analysis: Analysis) -> RolloutStep | None:
    """The step to carry out now; None if the way ends here: a no-go, or a step that costs hours."""
    return next((step for step in rollout_steps(analysis) if step.status == "next"), None)


def _pilot(analysis: Analysis, status: Status) -> RolloutStep:
    plan, candidate = analysis.plan, analysis.candidate
    edges = [arm.name for arm in (analysis.baseline, candidate) if arm.at_edge]
    changes = len(analysis.amendments)
    fixed = _condition("plan-amended", True, changes=changes)
    return RolloutStep(
        number=1,
        key="pilot",
        status=status,
        command="mars pilot",
        entry=(fixed if changes else _condition("plan-fixed", True),),
        exit=(
            _condition(
                "runs-complete", analysis.totals.missing == 0, missing=analysis.totals.missing
            ),
            _saving(analysis),
            _condition("rates-at-edge", False, arms=", ".join(edges))
            if edges
            else _condition("rates-tuned", True),
            _condition(
                "none-diverged",
                candidate.diverged == 0,
                candidate=candidate.name,
                diverged=candidate.diverged,
                runs=len(candidate.seeds),
            ),
        ),
        rollback=(
            _condition(
                "pilot-no-go",
                analysis.verdict.decision == "no-go",
                min_saving=plan.decision.min_saving,
                baseline=analysis.baseline.name,
            ),
            _condition("pilot-untouched", None),
        ),
    )


def _saving(analysis: Analysis) -> Condition:
    decision, interval = analysis.plan.decision, analysis.candidate.log_ratio
    rule = dict(level=decision.confidence, min_saving=decision.min_saving)
    if interval is None or not math.isfinite(interval.low):
        return _condition("saving-unknown", False, **rule)
    share, bounds = interval.map(saved), analysis.candidate.bounds
    return _condition(
        _coded("saving-sure", bounds),
        share.low > decision.min_saving and "at most" not in bounds,
        low=None if "at most" in bounds else share.low,
        high=None if "at least" in bounds else share.high,
        pairs=interval.n,
        **rule,
    )


def _canary(analysis: Analysis, status: Status) -> RolloutStep:
    baseline, candidate, decision = analysis.baseline, analysis.candidate, analysis.verdict.decision
    names = dict(baseline=baseline.name)
    return RolloutStep(
        number=2,
        key="canary",
        status=status,
        command=_canary_command(analysis),
        entry=(
            _condition("pilot-go", decision == "go"),
            _same_moments(analysis),
            _condition("checkpoint", None, **names),
            _condition(
                "memory",
                None,
                bytes=candidate.bytes_per_parameter,
                baseline_bytes=baseline.bytes_per_parameter,
            ),
        ),
        exit=(
            _condition("no-spike", spike_free(analysis.aftermath), **names),
            _condition(
                "continued-better",
                surely_better(analysis.aftermath),
                level=analysis.plan.decision.confidence,
                candidate=candidate.name,
                pairs=len(analysis.plan.comparison.seeds),
                **names,
            ),
            *_step_time(analysis),
        ),
        rollback=(
            _condition("canary-spike", None),
            _condition("canary-worse", None),
            _condition("canary-copy", None, **names),
        ),
        happened=canary_events(analysis.aftermath, baseline.name, candidate.name),
    )


def _canary_command(analysis: Analysis) -> str:
    """The command of stage 2, where it goes on from AdamW to such a candidate; else the way."""
    arm = analysis.candidate.arm
    if analysis.plan.task.kind in EXTERNAL or (arm.optimizer, arm.rule) != ("mars", "adamw"):
        return "by hand, two copies of the training from one checkpoint (docs/production.md)"
    return "mars canary CHECKPOINT --plan PILOT/plan.toml --out PILOT/canary"


def _same_moments(analysis: Analysis) -> Condition:
    name, arm = analysis.candidate.name, analysis.candidate.arm
    if arm.optimizer == "external":
        return _condition("same-moments", None, candidate=name)
    rule = arm.optimizer if is_any(arm.optimizer) else arm.rule
    if rule == "adamw":
        return _condition("same-moments", True, candidate=name)
    return _condition("other-moments", False, candidate=name, rule=rule)


def _step_time(analysis: Analysis) -> tuple[Condition, ...]:
    """The step time at which the lower end of the saving is used up."""
    interval, measured = analysis.real_log_ratio, analysis.candidate.step_time
    if interval is None or not math.isfinite(interval.low) or "at most" in analysis.real_bounds:
        return ()
    limit = math.exp(interval.low)
    rule: dict[str, str | float | None]
    rule = dict(limit=limit, baseline=analysis.baseline.name, low=saved(interval.low))
    there = canary_step_time(analysis.aftermath)
    if there is not None:
        return (_condition("step-time-canary", there <= limit, **rule, ratio=there),)
    return (_condition("step-time", None, **rule, ratio=measured[0] if measured else None),)


def _production(analysis: Analysis, status: Status, guard: GuardSettings) -> RolloutStep:
    names = dict(baseline=analysis.baseline.name)
    return RolloutStep(
        number=3,
        key="production",
        status=status,
        command="mars_optim.Guard in the training script (docs/production.md)",
        entry=(
            _condition("canary-go", canary_says_go(analysis.aftermath)),
            _condition("history", None, steps=LEAST_HISTORY, **names),
            _condition("drill", None),
        ),
        exit=_planned_end(analysis),
        rollback=_guard_conditions(guard),
        happened=guard_events(analysis.aftermath, analysis.baseline.name),
    )


def _planned_end(analysis: Analysis) -> tuple[Condition, ...]:
    interval, bounds = analysis.real_log_ratio, analysis.real_bounds
    if interval is None or not math.isfinite(interval.low) or len(bounds) > 1:
        return ()
    share = interval.map(lambda log_ratio: math.exp(-log_ratio))
    return (
        _condition(
            _coded("planned-end", bounds),
            None,
            share=share.mean,
            share_low=None if "at least" in bounds else share.low,
            share_high=None if "at most" in bounds else share.high,
            baseline=analysis.baseline.name,
        ),
    )


def _guard_conditions(guard: GuardSettings) -> tuple[Condition, ...]:
    """Conditions of the signals that go back, and of going back."""
    of_signal = {
        "nonfinite": _condition("guard-nonfinite", None),
        "loss": _condition(
            "guard-loss",
            None,
            patience=guard.patience,
            window=guard.window,
            sigmas=guard.loss_sigmas,
            rise=guard.loss_rise,
        ),
        "drift": _condition("guard-drift", None, rise=guard.drift_rise),
    }
    back = [condition for signal, condition in of_signal.items() if signal in guard.rollback_on]
    warned = _condition(
        "guard-warns",
        None,
        grad_norm=guard.grad_norm_factor,
        clip_share=guard.clip_share_rise,
        step_time=guard.step_time_factor,
    )
    lost = guard.checkpoint_every // 2 + guard.patience + guard.every
    action = _condition("guard-action", None, lost=lost, every=guard.checkpoint_every)
    return (*back, warned, action)


def _coded(key: str, bounds: Collection[str]) -> str:
    """Key of a condition whose numbers may be bounds."""
    return f"{key}.{side(bounds)}" if bounds else key


def _condition(key: str, met: bool | None, **numbers: str | float | None) -> Condition:
    return Condition(key=key, numbers=numbers, met=met)
