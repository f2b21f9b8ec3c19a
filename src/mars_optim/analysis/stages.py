"""The staged way into production and back: conditions with the pilot's numbers, as plain data."""

from __future__ import annotations

import math

from ..guard.settings import GuardSettings
from .conditions import Condition, Stage, Status
from .model import Analysis
from .verdict import percent, saved

LEAST_HISTORY = 500  # steps; noise with a memory of ten steps needs as many to be known


def stages(analysis: Analysis, guard: GuardSettings | None = None) -> tuple[Stage, ...]:
    """The three stages, as the pilot's verdict leaves them.

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
    return (
        _pilot(analysis, pilot),
        _canary(analysis, canary),
        _production(analysis, production, guard or GuardSettings()),
    )


def next_stage(analysis: Analysis) -> Stage | None:
    """The stage to carry out now; None if the way ends here (no-go)."""
    return next((stage for stage in stages(analysis) if stage.status == "next"), None)


def _pilot(analysis: Analysis, status: Status) -> Stage:
    plan, candidate = analysis.plan, analysis.candidate
    edges = [arm.name for arm in (analysis.baseline, candidate) if arm.at_edge]
    changes = len(analysis.amendments)
    fixed = _condition("plan-amended", True, changes=str(changes))
    return Stage(
        number=1,
        key="pilot",
        title="Pilot: arm against arm at a small size",
        status=status,
        command="mars pilot",
        entry=(fixed if changes else _condition("plan-fixed", True),),
        exit=(
            _condition(
                "runs-complete", analysis.totals.missing == 0, missing=str(analysis.totals.missing)
            ),
            _saving(analysis),
            _condition(
                "rates-tuned", not edges, edges=f": {' and '.join(edges)} do" if edges else ""
            ),
            _condition(
                "none-diverged",
                candidate.diverged == 0,
                candidate=candidate.name,
                diverged=str(candidate.diverged),
                runs=str(len(candidate.seeds)),
            ),
        ),
        rollback=(
            _condition(
                "pilot-no-go",
                analysis.verdict.decision == "no-go",
                worth=f"{100 * plan.decision.worth:g} %",
                baseline=analysis.baseline.name,
            ),
            _condition("pilot-untouched", None),
        ),
    )


def _saving(analysis: Analysis) -> Condition:
    decision, interval = analysis.plan.decision, analysis.candidate.log_ratio
    rule = dict(level=f"{100 * decision.confidence:g} %", worth=f"{100 * decision.worth:g} %")
    if interval is None or not math.isfinite(interval.low):
        return _condition("saving-unknown", False, **rule)
    share = interval.map(saved)
    return _condition(
        "saving-sure",
        share.low > decision.worth,
        low=percent(share.low),
        high=percent(share.high),
        pairs=str(interval.n),
        **rule,
    )


def _canary(analysis: Analysis, status: Status) -> Stage:
    baseline, candidate, decision = analysis.baseline, analysis.candidate, analysis.verdict.decision
    names = dict(baseline=baseline.name)
    return Stage(
        number=2,
        key="canary",
        title="Canary: from your own AdamW checkpoint, against AdamW continued",
        status=status,
        command="mars canary CHECKPOINT --plan PILOT/plan.toml",
        entry=(
            _condition("pilot-go", decision == "go", decision=decision.replace("-", " ")),
            _same_moments(analysis),
            _condition("checkpoint", None, **names),
            _condition(
                "memory",
                None,
                bytes=_number(candidate.bytes_per_parameter, "unknown"),
                baseline_bytes=_number(baseline.bytes_per_parameter, "unknown"),
            ),
        ),
        exit=(
            _condition("no-spike", None, **names),
            _condition(
                "continued-better",
                None,
                level=f"{100 * analysis.plan.decision.confidence:g} %",
                candidate=candidate.name,
                pairs=str(len(analysis.plan.comparison.seeds)),
                **names,
            ),
            *_step_time(analysis),
        ),
        rollback=(
            _condition("canary-spike", None),
            _condition("canary-worse", None),
            _condition("canary-copy", None, **names),
        ),
    )


def _same_moments(analysis: Analysis) -> Condition:
    name, rule = analysis.candidate.name, analysis.candidate.arm.rule
    if rule == "adamw":
        return _condition("same-moments", True, candidate=name)
    return _condition("other-moments", False, candidate=name, rule=rule)


def _step_time(analysis: Analysis) -> tuple[Condition, ...]:
    """The step time at which the lower end of the saving is used up."""
    interval, measured = analysis.candidate.log_ratio, analysis.candidate.step_time
    if interval is None or not math.isfinite(interval.low):
        return ()
    limit = math.exp(interval.low)
    return (
        _condition(
            "step-time",
            None,
            limit=f"{limit:.2f}",
            baseline=analysis.baseline.name,
            low=percent(saved(interval.low)),
            ratio=_number(measured[0] if measured else None, "not measured", digits=2),
        ),
    )


def _production(analysis: Analysis, status: Status, guard: GuardSettings) -> Stage:
    names = dict(baseline=analysis.baseline.name)
    return Stage(
        number=3,
        key="production",
        title="Production, under a guard that can go back",
        status=status,
        command="mars_optim.Guard in the training script (docs/production.md)",
        entry=(
            _condition("canary-go", None),
            _condition("history", None, steps=str(LEAST_HISTORY), **names),
            _condition("drill", None),
        ),
        exit=_planned_end(analysis),
        rollback=_guard_conditions(guard),
    )


def _planned_end(analysis: Analysis) -> tuple[Condition, ...]:
    interval = analysis.candidate.log_ratio
    if interval is None or not math.isfinite(interval.low):
        return ()
    share = interval.map(lambda log_ratio: math.exp(-log_ratio))
    return (
        _condition(
            "planned-end",
            None,
            share=percent(share.mean),
            share_low=percent(share.low),
            share_high=percent(share.high),
            baseline=analysis.baseline.name,
        ),
    )


def _guard_conditions(guard: GuardSettings) -> tuple[Condition, ...]:
    """Of the signals that go back, and of going back."""
    of_signal = {
        "nonfinite": _condition("guard-nonfinite", None),
        "loss": _condition(
            "guard-loss",
            None,
            patience=str(guard.patience),
            window=str(guard.window),
            sigmas=f"{guard.loss_sigmas:g}",
            rise=f"{100 * guard.loss_rise:g} %",
        ),
        "drift": _condition("guard-drift", None, rise=f"{100 * guard.drift_rise:g} %"),
    }
    back = [condition for signal, condition in of_signal.items() if signal in guard.rollback_on]
    warned = _condition(
        "guard-warns",
        None,
        grad_norm=f"{guard.grad_norm_factor:g}",
        clip_share=f"{100 * guard.clip_share_rise:g} %",
        step_time=f"{guard.step_time_factor:g}",
    )
    lost = guard.checkpoint_every // 2 + guard.patience + guard.every
    action = _condition("guard-action", None, lost=str(lost), every=str(guard.checkpoint_every))
    return (*back, warned, action)


def _condition(key: str, met: bool | None, **numbers: str) -> Condition:
    return Condition(key=key, numbers=numbers, met=met)


def _number(value: float | None, unknown: str, digits: int = 1) -> str:
    return unknown if value is None else f"{value:.{digits}f}"
