"""verdict.json: what the report says, for programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any

from ..._version import __version__
from ..analysis import Analysis, ArmResult, Finding, Interval, RolloutStep, next_step, rollout_steps
from ..analysis.action import action
from ..analysis.aftermath import Aftermath
from ..analysis.at_target import AtTarget
from ..analysis.best_of import Tuned
from ..analysis.importances import importances
from ..analysis.stats import saved
from ..plan.any_arm import is_any
from ..scaling.answer import arms_as_json
from .messages import Messages, ticks
from .sections.action_line import action_line
from .sections.rollout import condition_text

VERDICT_FORMAT = 2


def verdict_data(analysis: Analysis) -> dict[str, Any]:
    """verdict.json: the decision, the numbers behind it, and the rule, for programs."""
    candidate, baseline = analysis.candidate, analysis.baseline
    english = Messages().about(analysis.plan.decision)
    verdict, following, made = analysis.verdict, next_step(analysis), action(analysis)
    return {
        "format": VERDICT_FORMAT,
        "mars_optim": __version__,
        "verdict": verdict.decision,
        "sentence": ticks(english.sentence(analysis)),
        "action": {
            "kind": made.kind,
            "text": ticks(action_line(analysis, made, english)),
            "decides": made.who,
            "pairs": made.pairs,
            "runs": made.runs,
            "hours": made.hours,
            "money": made.money,
            "currency": analysis.plan.cost.currency if made.money is not None else None,
        },
        "reasons": [ticks(english.finding(reason)) for reason in verdict.reasons],
        "findings": [_finding(f) for f in (*verdict.findings, *verdict.reasons)],
        "pairs_needed": verdict.pairs_needed,
        "baseline": baseline.name,
        "candidate": candidate.name,
        "rule": dataclasses.asdict(analysis.plan.decision),
        "tokens_saved": saved_data(candidate.log_ratio, candidate.bounds),
        "hours_saved": interval_data(
            analysis.money.share if analysis.money else None, analysis.real_bounds
        ),
        "control_share": analysis.control_share,
        "arms": {
            arm.name: {
                "role": arm.role,
                "lr": arm.lr,
                "lr_at_edge": arm.at_edge,
                "lr_range": list(arm.best_range) if arm.best_range else None,
                "lr_trials": len(arm.trials),
                "lr_regret": _few(arm.regret),
                "final_losses": {str(s.seed): s.loss for s in arm.seeds},
                "by_trials": _by_trials(arm),
                "mean_loss": arm.mean_loss,
                "loss_difference": interval_data(arm.loss_difference),
                "tokens_saved": saved_data(arm.log_ratio, arm.bounds),
                "tokens_saved_at_these_rates": saved_data(arm.log_ratio_here, arm.bounds),
                "outside_ladder": sorted(arm.bounds),
                "diverged": arm.diverged,
                "step_time_ratio": arm.step_time[0] if arm.step_time else None,
                "state_bytes_per_parameter": arm.bytes_per_parameter,
                "scores": dict(arm.scores),
                **_checked(arm, analysis),
                **_to_target(arm),
            }
            for arm in analysis.arms
        },
        "next_step": _stage(following) if following else None,
        "rollout": [_stage(stage) for stage in rollout_steps(analysis)],
        "canary": _canary(analysis.aftermath),
        "guard": _guard(analysis.aftermath),
        "refused": list(analysis.aftermath.refused),
        "pilot": dataclasses.asdict(analysis.totals),
        "parameters": analysis.parameters,
        "tokens_per_run": analysis.unit_tokens,
        "amendments": list(analysis.amendments),
        "environment": analysis.environment,
        **({"tuning": _tuning(analysis)} if analysis.plan.tuning.by_design else {}),
        **({"at_target": _at_target(analysis.at_target, analysis)} if analysis.at_target else {}),
    }


def _canary(found: Aftermath) -> dict[str, Any] | None:
    """Outcome of stage 2, as canary.json has it; null without one."""
    canary = found.canary
    if canary is None:
        return None
    orders = [{**dataclasses.asdict(o), "difference": o.difference} for o in canary.orders]
    told = {key: getattr(canary, key) for key in ("date", "recommendation", "sentence", "scales")}
    ends = dict(mean=canary.mean, low=canary.low, high=canary.high)
    steps = int(canary.settings["steps"])
    return {"path": canary.path.as_posix(), **told, "steps": steps} | {
        "difference": ends,
        "spikes": canary.spiked,
        "seeds": orders,
        "task_changes": list(found.canary_size),
    }


def _guard(found: Aftermath) -> dict[str, Any] | None:
    """Outcome of stage 3, as the guard's log has it; null without one."""
    guard = found.guard
    if guard is None:
        return None
    rows = {
        name: [dataclasses.asdict(row) for row in getattr(guard, name)]
        for name in ("trips", "rollbacks")
    }
    ends = {name: dataclasses.asdict(getattr(guard, name)) for name in ("start", "last")}
    return {"path": guard.path.as_posix(), "switches": guard.switches, **ends, **rows}


def _at_target(found: AtTarget, analysis: Analysis) -> dict[str, Any]:
    """The forecast for the real job, as ``mars forecast --json`` has it, and its fan."""
    return {
        "target": dataclasses.asdict(analysis.plan.target),
        **arms_as_json(found.arms, found.forms, one_run=found.one_run),
        "tokens_saved": saved_data(found.log_ratio),
        "fan": dataclasses.asdict(found.fan) if found.fan else None,
    }


def _tuning(analysis: Analysis) -> dict[str, Any]:
    """Every arm's trials and what they tell, and the verdict by the number of trials."""
    confidence, plan = analysis.plan.decision.confidence, analysis.plan.tuning
    arms = {arm.name: arm.tuned for arm in analysis.arms if arm.tuned}

    def tokens(log: float | None) -> float | None:
        return None if log is None else math.exp(log)

    def time(tuned: Tuned, i: int) -> dict[str, Any]:
        if tuned.reached is None:
            return {}
        return {"tokens_to_target": tokens(tuned.found[i]) if tuned.reached[i] else None}

    def of(tuned: Tuned) -> dict[str, Any]:
        """Expected result of k trials: the loss or the metric or, with a target, its tokens."""
        spans = [(at, at.low_high(confidence) or (None, None)) for at in tuned.best]
        shown = tokens if tuned.reached is not None else lambda value: value
        return {
            "trials": [
                {**dict(zip(tuned.over, values, strict=True)), "loss": loss} | time(tuned, i)
                for i, (values, loss) in enumerate(tuned.trials)
            ],
            "chosen": dict(zip(tuned.over, tuned.chosen, strict=True)) if tuned.chosen else None,
            "loss_after_trials" if tuned.reached is None else "tokens_after_trials": [
                {"trials": at.k, "mean": shown(at.loss), "low": shown(low), "high": shown(high)}
                for at, (low, high) in spans
            ],
            "importances": importances(tuned),
        }

    return {
        "over": list(plan.over),
        "sampler": plan.sampler,
        "arms": {name: of(tuned) for name, tuned in arms.items()},
        "verdict_by_trials": [
            {
                "trials": at.trials,
                "verdict": at.decision,
                "tokens_saved": saved_data(at.log_ratio, at.bounds),
                "outside_ladder": sorted(at.bounds),
            }
            for at in analysis.budgets
        ],
    }


def _checked(arm: ArmResult, analysis: Analysis) -> dict[str, Any]:
    """Record of an arm that names a class: which, its source, and what the check found."""
    if not is_any(arm.arm.optimizer):
        return {}
    check = analysis.checks.get(arm.name)
    found = [{"name": name, "text": text} for name, text in check.found] if check else None
    return {"optimizer": arm.arm.optimizer, "source": arm.arm.source, "found": found}


def _by_trials(arm: ArmResult) -> dict[str, Any] | None:
    """The tuning seed as a pair, by the fits of the trials."""
    if (pair := arm.trials_pair) is None:
        return None
    return {"seed": pair.seed, "loss": pair.loss, "loss_difference": pair.difference}


def _to_target(arm: ArmResult) -> dict[str, Any]:
    """Times to the target, if there is one."""
    if arm.target is None:
        return {}
    told = {key: getattr(arm.target, key) for key in ("runs", "reached", "tokens", "steps")}
    seeds = {
        str(s.seed): {"reached": s.reach.reached, "tokens": s.reach.tokens, "steps": s.reach.steps}
        for s in arm.seeds
        if s.reach
    }
    return {"to_target": told | {"seconds": arm.target.seconds, "seeds": seeds}}


def _few(regret: Sequence[float]) -> list[float] | None:
    """Sixteen equally likely values of what an arm's rate loses against its best."""
    regret, each = sorted(regret), len(regret) // 16
    return [sum(regret[i : i + each]) / each for i in range(0, 16 * each, each)] if each else None


def _finding(finding: Finding) -> dict[str, Any]:
    return {"code": finding.code} | {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in finding.values.items()
    }


def _stage(stage: RolloutStep) -> dict[str, Any]:
    """A stage with its title, each condition with its text."""
    english = Messages()
    lists = {
        kind: [
            {**dataclasses.asdict(c), "text": ticks(condition_text(c, english))}
            for c in getattr(stage, kind)
        ]
        for kind in ("entry", "exit", "rollback", "happened")
    }
    return {**dataclasses.asdict(stage), "title": english(f"stage.{stage.key}"), **lists}


def saved_data(log_ratio: Interval | None, bounds: Collection[str] = ()) -> dict[str, Any] | None:
    """As :func:`interval_data`, of the share saved."""
    return interval_data(log_ratio.map(saved) if log_ratio else None, bounds)


def interval_data(value: Interval | None, bounds: Collection[str] = ()) -> dict[str, Any] | None:
    """Mean, ends and number of pairs; null for what is not bounded.

    A mean that is a bound itself has ``bound``, too: "at least", "at most", or "unknown" if it is
    one on both sides.
    """
    if value is None:
        return None
    low = -math.inf if "at most" in bounds else value.low
    high = math.inf if "at least" in bounds else value.high
    data = {"mean": value.mean, "low": low, "high": high, "pairs": value.n}
    told = {key: end if math.isfinite(end) else None for key, end in data.items()}
    if not bounds:
        return told
    return told | {"bound": "unknown" if len(bounds) > 1 else next(iter(bounds))}
