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


def decide(plan: Plan, baseline: ArmResult, candidate: ArmResult, missing: int) -> Verdict:
    """Apply the plan's rule to the candidate.

    Go, if the whole interval of the tokens saved lies above ``decision.worth``; no-go, if all of
    it lies below, or a run of the candidate diverged; else there are not enough runs to tell. No
    decision rests on what could overturn it: a bound (a reading outside the ladder) on the other
    side of it, or an arm that it judges by a learning rate at the edge of those tried.

    Args:
        plan: with the rule.
        baseline: the arm in use today.
        candidate: the arm that is judged.
        missing: comparison runs that have not finished.
    """
    threshold = -math.log1p(-plan.decision.worth)
    interval = candidate.log_ratio
    names = (candidate.name, baseline.name)
    if candidate.diverged:
        sentence = (
            f"No-go: {candidate.name} diverged in {candidate.diverged} of "
            f"{len(candidate.seeds)} runs at its tuned learning rate."
        )
        return Verdict(decision="no-go", sentence=sentence, reasons=(), pairs_needed=None)
    if interval is None or interval.n < 2 or missing:
        what = "too few pairs"
        if not plan.comparison.ladder:
            what = (
                f"the runs of {baseline.name} are all equally long, so losses can be compared, but "
                "no tokens be read off"
            )
        if missing:
            what = f"{missing} run{'s' if missing > 1 else ''} of the comparison still missing"
        return Verdict(
            decision="not-enough-runs",
            sentence=f"Not enough runs to tell: {what}.",
            reasons=("The same command goes on where the pilot stopped.",) if missing else (),
            pairs_needed=None,
        )
    decision = by_interval(interval, threshold, candidate.bounds)
    untuned = {"go": baseline, "no-go": candidate}.get(decision)
    if untuned and untuned.at_edge:
        decision = "not-enough-runs"
    reasons = _reasons(plan, baseline, candidate, decision)
    if decision != "not-enough-runs":
        head = {"go": "Go", "no-go": "No-go"}[decision]
        sentence = f"{head}: {_effect(interval, names, candidate.bounds, plan)}"
        return Verdict(decision=decision, sentence=sentence, reasons=reasons, pairs_needed=None)
    needed = None
    if interval.low <= threshold <= interval.high:
        needed = pairs_needed(interval.mean, interval.sd, threshold, plan.decision.confidence)
    sentence = f"Not enough runs to tell: {_effect(interval, names, candidate.bounds, plan)}"
    if needed and needed > interval.n:
        sentence += (
            f" About {needed} seeds would settle it in four of five cases, if the effect is what "
            "it looks like."
        )
    return Verdict(decision=decision, sentence=sentence, reasons=reasons, pairs_needed=needed)


def by_interval(interval: Interval, threshold: float, bounds: set[str]) -> Decision:
    """The rule itself: where the interval lies, and which side of it is known."""
    if interval.low > threshold and "at most" not in bounds:
        return "go"
    if interval.high < threshold and "at least" not in bounds:
        return "no-go"
    return "not-enough-runs"


def _effect(interval: Interval, names: tuple[str, str], bounds: set[str], plan: Plan) -> str:
    candidate, baseline = names
    share = interval.map(saved)
    more, fewer = math.exp(-interval.mean) - 1, share.mean
    # readings bound the saving; turned into tokens spent, the bound turns round
    bound = f"{next(iter(bounds))} " if len(bounds) == 1 else ""
    turned = {"at least ": "at most ", "at most ": "at least "}.get(bound, "")
    if interval.mean >= 0:
        effect = f"takes {bound}{percent(fewer)} fewer tokens than {baseline}"
    else:
        effect = f"takes {turned}{percent(more)} more tokens than {baseline}"
    level = f"{100 * plan.decision.confidence:g} %"
    return (
        f"{candidate} {effect} for the same loss (tokens saved: {level} interval "
        f"{percent(share.low)} to {percent(share.high)}, {interval.n} paired seeds)."
    )


def _reasons(
    plan: Plan, baseline: ArmResult, candidate: ArmResult, decision: Decision
) -> tuple[str, ...]:
    worth = f"{100 * plan.decision.worth:g} %"
    interval, threshold = candidate.log_ratio, -math.log1p(-plan.decision.worth)
    reasons = {
        "go": [f"The whole interval lies above the {worth} that the plan asks for."],
        "no-go": [f"The whole interval lies below the {worth} that the plan asks for."],
        "not-enough-runs": [],
    }[decision]
    if interval and interval.low <= threshold <= interval.high:
        reasons.append(f"The {worth} that the plan asks for lies inside the interval.")
    if interval and interval.high < 0:
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
    if interval and interval.n < len(candidate.seeds):
        lost = len(candidate.seeds) - interval.n
        reasons.append(f"{lost} of its seeds have no pair: runs of {baseline.name} diverged.")
    if plan.task.kind == "imported":
        reasons.append(
            "These runs were made elsewhere: that both arms were tuned alike, on the same data and "
            "each decayed to the end, is for you to know."
        )
    for arm in (baseline, candidate):
        if arm.at_edge:
            reasons.append(
                f"The best learning rate of {arm.name} is at the edge of those tried, so it may do "
                "better than shown: raise tuning.max_trials, in another --out."
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
