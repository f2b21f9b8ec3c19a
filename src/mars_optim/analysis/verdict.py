"""The decision, by a rule that was fixed in the plan before the runs."""

from __future__ import annotations

import math

from ..records import Plan
from .model import ArmResult, Decision, Verdict
from .stats import Interval, pairs_needed

MINUS = "\u2212"


def saved(log_ratio: float) -> float:
    """Share of tokens saved: 1 - (tokens taken / tokens the baseline needs)."""
    return 1.0 - math.exp(-log_ratio)


def decide(plan: Plan, candidate: ArmResult, missing: int) -> Verdict:
    """Apply the plan's rule to the candidate.

    Go, if the whole interval of the tokens saved lies above ``decision.worth``; no-go, if all of
    it lies below, or a run of the candidate diverged; else there are not enough runs to tell. A
    bound (a reading outside the ladder) may count against the candidate but never for a decision
    that it could overturn.

    Args:
        plan: with the rule.
        candidate: the arm that is judged.
        missing: comparison runs that have not finished.
    """
    threshold = -math.log1p(-plan.decision.worth)
    interval = candidate.log_ratio
    names = (candidate.name, plan.comparison.baseline)
    if candidate.diverged:
        sentence = (
            f"No-go: {candidate.name} diverged in {candidate.diverged} of "
            f"{len(candidate.seeds)} runs at its tuned learning rate."
        )
        return Verdict(decision="no-go", sentence=sentence, reasons=(), pairs_needed=None)
    if interval is None or interval.n < 2 or missing:
        what = "too few pairs"
        if missing:
            what = f"{missing} run{'s' if missing > 1 else ''} of the comparison still missing"
        return Verdict(
            decision="not-enough-runs",
            sentence=f"Not enough runs to tell: {what}.",
            reasons=("The same command goes on where the pilot stopped.",) if missing else (),
            pairs_needed=None,
        )
    decision = _by_interval(interval, threshold, candidate.bounds)
    reasons = _reasons(plan, candidate, decision)
    if decision != "not-enough-runs":
        head = {"go": "Go", "no-go": "No-go"}[decision]
        sentence = f"{head}: {_effect(interval, names, candidate.bounds, plan)}"
        return Verdict(decision=decision, sentence=sentence, reasons=reasons, pairs_needed=None)
    needed = pairs_needed(interval.mean, interval.sd, threshold, plan.decision.confidence)
    sentence = f"Not enough runs to tell: {_effect(interval, names, candidate.bounds, plan)}"
    if needed and needed > interval.n:
        sentence += f" About {needed} seeds would settle it, if the effect is what it looks like."
    return Verdict(decision=decision, sentence=sentence, reasons=reasons, pairs_needed=needed)


def _by_interval(interval: Interval, threshold: float, bounds: set[str]) -> Decision:
    if interval.low > threshold and "at most" not in bounds:
        return "go"
    if interval.high < threshold and "at least" not in bounds:
        return "no-go"
    return "not-enough-runs"


def _effect(interval: Interval, names: tuple[str, str], bounds: set[str], plan: Plan) -> str:
    candidate, baseline = names
    share = interval.map(saved)
    bound = {"at least": "at least ", "at most": "at most "}.get(min(bounds, default=""), "")
    if interval.mean >= 0:
        effect = f"takes {bound}{percent(share.mean)} fewer tokens than {baseline}"
    else:
        more = math.exp(-interval.mean) - 1
        effect = f"takes {percent(more)}{' or more' if bound else ''} more tokens than {baseline}"
    level = f"{100 * plan.decision.confidence:g} %"
    return (
        f"{candidate} {effect} for the same loss (tokens saved: {level} interval "
        f"{percent(share.low)} to {percent(share.high)}, {interval.n} paired seeds)."
    )


def _reasons(plan: Plan, candidate: ArmResult, decision: Decision) -> tuple[str, ...]:
    worth = f"{100 * plan.decision.worth:g} %"
    reasons = {
        "go": [f"The whole interval lies above the {worth} that the plan asks for."],
        "no-go": [f"The whole interval lies below the {worth} that the plan asks for."],
        "not-enough-runs": [f"The {worth} that the plan asks for cannot be told from the result."],
    }[decision]
    if candidate.log_ratio and candidate.log_ratio.high < 0:
        reasons = ["The whole interval lies below zero: it takes more tokens, not fewer."]
    if "at least" in candidate.bounds:
        reasons.append(
            "Some of its losses are below the whole ladder: the saving is larger than shown. A "
            "higher rung in comparison.ladder would tell."
        )
    if "at most" in candidate.bounds:
        reasons.append(
            "Some of its losses are above the whole ladder: the saving is smaller than shown. A "
            "lower rung in comparison.ladder would tell."
        )
    if candidate.at_edge:
        reasons.append(
            "Its best learning rate is at the edge of those tried: raise tuning.max_trials."
        )
    return tuple(reasons)


def percent(share: float) -> str:
    """A share as text: "12 %", with one decimal below ten, and a real minus sign."""
    if not math.isfinite(share):
        return "unknown"
    value = 100 * share
    text = f"{abs(value):.{0 if abs(value) >= 9.95 else 1}f}"
    sign = MINUS if value < 0 and float(text) != 0 else ""
    return f"{sign}{text} %"
