"""The decision, by a rule that was fixed in the plan before the runs: codes and numbers."""

from __future__ import annotations

import math
from functools import partial

from ..plan import Plan
from ..records.trials import AROUND
from .arm_model import ArmResult, side
from .choice import untuned
from .looks import hopeful, level_of
from .model import Decision, Finding, Verdict
from .stats import Interval, pairs_needed, saved
from .target_findings import TOO_FEW, may_be_told, obstacle, target_reasons
from .trust import refusal


def decide(plan: Plan, baseline: ArmResult, candidate: ArmResult, missing: int) -> Verdict:
    """Apply the plan's rule to the candidate.

    The interval is of the arms at their best rates: it holds what is not known of these. Go, if all
    of it lies above ``decision.min_saving``; no-go, if all of it lies below, or a run of the
    candidate diverged; else there are not enough runs to tell. No decision rests on what could
    overturn it: a bound (a reading outside the ladder) on the other side of it, or an arm that it
    judges by a learning rate at the edge of those tried. Results that cannot be what they seem
    decide nothing (:mod:`.trust`).

    Args:
        plan: with the rule.
        baseline: the arm in use today.
        candidate: the arm that is judged.
        missing: runs of baseline and candidate that have not finished.
    """
    if refused := refusal(baseline, candidate, missing):
        return refused
    if not missing and (why := obstacle(plan.decision, baseline, candidate)):
        reasons = target_reasons(baseline, candidate, plan.task.kind)
        if why.code == TOO_FEW:
            reasons += _stopped(plan, baseline, candidate, "not-enough-runs")
        return Verdict(
            decision="not-enough-runs",
            findings=(why,),
            reasons=tuple(reasons),
            pairs_needed=None,
            trusted=False,
        )
    threshold = -math.log1p(-plan.decision.min_saving)
    interval = candidate.log_ratio
    if candidate.diverged:
        diverged = Finding(
            "verdict.diverged",
            dict(arm=candidate.name, diverged=candidate.diverged, runs=len(candidate.seeds)),
        )
        return Verdict(decision="no-go", findings=(diverged,), reasons=(), pairs_needed=None)
    if interval is None or not math.isfinite(interval.low) or missing:
        too_few = Finding("verdict.too-few-pairs")
        if not plan.ladder and plan.decision.goal is None:
            too_few = Finding("verdict.no-ladder", dict(baseline=baseline.name))
        return Verdict(
            decision="not-enough-runs",
            findings=(Finding("verdict.missing", dict(missing=missing)) if missing else too_few,),
            reasons=_why_unread(plan, baseline, candidate, missing),
            pairs_needed=None,
        )
    decision = by_interval(interval, threshold, candidate.bounds)
    doubtful = {"go": baseline, "no-go": candidate}.get(decision)
    if doubtful and doubtful.at_edge:
        decision = "not-enough-runs"
    findings = [_effect(interval, candidate, baseline, plan)]
    if given := untuned((baseline, candidate)):
        findings.append(Finding("verdict.these-rates", dict(arms=", ".join(given))))
    needed = None
    spread = not candidate.all_bounds  # else it says nothing of what more seeds would tell
    if decision == "not-enough-runs" and spread and interval.low <= threshold <= interval.high:
        needed = pairs_needed(
            interval.mean,
            interval.sd,
            threshold,
            partial(level_of, plan.decision),
            rates=interval.rates,
        )
    if needed and needed > interval.n:
        findings.append(Finding("verdict.seeds-needed", dict(seeds=needed - plan.trials_pair)))
    return Verdict(
        decision=decision,
        findings=tuple(findings),
        reasons=_reasons(plan, baseline, candidate, decision),
        pairs_needed=needed,
    )


def _why_unread(
    plan: Plan, baseline: ArmResult, candidate: ArmResult, missing: int
) -> tuple[Finding, ...]:
    """Why there is no interval yet, and a way out."""
    if missing:
        return (Finding("reason.goes-on"),)
    if not _ladderless(plan, candidate):
        return ()
    values = dict[str, str | int | float](
        baseline=baseline.name, seeds=plan.comparison.ladder_seeds
    )
    return (Finding("reason.ladder-lost", values),)


def _stopped(
    plan: Plan, baseline: ArmResult, candidate: ArmResult, decision: Decision
) -> list[Finding]:
    """Why a pilot that looks at every pair has made fewer than it might."""
    interval, seeds = candidate.log_ratio, plan.most_pairs
    pairs = interval.n if interval else len(candidate.pairs)
    if plan.decision.looks == "once" or pairs >= seeds:
        return []
    values = dict[str, str | int | float](pairs=pairs, seeds=seeds)
    if decision != "not-enough-runs":
        spared = len(plan.comparison.judged) * (seeds - pairs)
        return [Finding("reason.stopped", values | dict(runs=spared))]
    if not _goes_on(plan, baseline, candidate):
        return [Finding("reason.no-more-pairs", values)]
    waits = candidate.target is not None and candidate.target.waits
    return [Finding("reason.next-pair", values)] if waits else []


def settles_more(plan: Plan, baseline: ArmResult, candidate: ArmResult, verdict: Verdict) -> bool:
    """Whether one more pair may change an open verdict.

    Not where something else than the spread of the pairs keeps it open (a bound, a rate at the edge
    of those tried, results that cannot be what they seem), and not where even all the plan's seeds
    would hardly decide (:func:`.looks.hopeful`).

    Args:
        plan: with the rule and the most seeds.
        baseline: the arm in use today.
        candidate: the arm that is judged.
        verdict: on these two, at the pairs so far.
    """
    waits = any(found.code == TOO_FEW for found in verdict.findings)
    if verdict.decision != "not-enough-runs" or not (verdict.trusted or waits):
        return False
    return _goes_on(plan, baseline, candidate)


def _goes_on(plan: Plan, baseline: ArmResult, candidate: ArmResult) -> bool:
    """Whether more pairs may settle what the interval, or the lack of one, leaves open."""
    interval, target = candidate.log_ratio, candidate.target
    known = interval is not None and math.isfinite(interval.low)
    if interval is not None and known and _may_settle(plan, interval):
        return True
    if target and target.waits:
        at_edge = baseline.at_edge or candidate.at_edge
        return not at_edge and may_be_told(baseline, candidate, len(plan.comparison.seeds))
    return not known and bool(plan.ladder) and not _ladderless(plan, candidate)


def _ladderless(plan: Plan, candidate: ArmResult) -> bool:
    """Whether only some seeds have a ladder, and no pair can be read off it."""
    pairs = [pair for pair in candidate.pairs if pair.loss is not None]
    few = bool(plan.ladder) and bool(plan.comparison.ladder_seeds)
    return few and bool(pairs) and all(pair.reading is None for pair in pairs)


def _may_settle(plan: Plan, interval: Interval) -> bool:
    threshold, most = -math.log1p(-plan.decision.min_saving), plan.most_pairs
    inside = interval.low <= threshold <= interval.high
    return inside and hopeful(interval, threshold, plan.decision.confidence, most)


def by_interval(interval: Interval, threshold: float, bounds: set[str]) -> Decision:
    """The rule itself: where the interval lies, and which side of it is known."""
    if interval.low > threshold and "at most" not in bounds:
        return "go"
    if interval.high < threshold and "at least" not in bounds:
        return "no-go"
    return "not-enough-runs"


def _narrowing(plan: Plan, interval: Interval, choice: float) -> dict[str, str | int | float]:
    """Share of the choice of rates in an interval's variance, and runs that narrow it.

    Another tuning seed repeats the trials around every arm's best. More pairs would not narrow it.

    Args:
        plan: with its seeds.
        interval: of the log token ratio.
        choice: variance that the choice of rates adds to it.
    """
    further = plan.tuning.more_seeds
    used = (plan.tuning.seed, *further, *plan.comparison.seeds)
    return dict(
        share=choice / (interval.rates**2 + interval.error**2),
        seeds=", ".join(map(str, (*further, max(used) + 1))),
        runs=AROUND * len(plan.comparison.at_first(plan.arms)),
    )


def _dominated(plan: Plan, interval: Interval, choice: float) -> Finding:
    """That the choice is most of the interval's variance, and what narrows it."""
    values = _narrowing(plan, interval, choice)
    if plan.tuning.by_design:
        share = values["share"]
        return Finding("reason.rates-dominate.design", dict(share=share, trials=plan.tuning.trials))
    theirs = plan.task.kind == "imported"
    return Finding("reason.rates-dominate.imported" if theirs else "reason.rates-dominate", values)


def _effect(interval: Interval, candidate: ArmResult, baseline: ArmResult, plan: Plan) -> Finding:
    share = interval.map(saved)
    fewer = interval.mean >= 0
    # readings bound the saving; turned into tokens spent, the bound turns round
    bound = side(candidate.bounds)
    turned = {"at-least": "at-most", "at-most": "at-least"}
    suffix = bound if fewer else turned.get(bound, bound)
    return Finding(
        ("verdict.fewer" if fewer else "verdict.more") + (f".{suffix}" if suffix else ""),
        dict(
            candidate=candidate.name,
            baseline=baseline.name,
            share=share.mean if fewer else math.exp(-interval.mean) - 1,
            low=-math.inf if "at most" in candidate.bounds else share.low,
            high=math.inf if "at least" in candidate.bounds else share.high,
            confidence=plan.decision.confidence,
            pairs=interval.n,
        ),
    )


def _reasons(
    plan: Plan, baseline: ArmResult, candidate: ArmResult, decision: Decision
) -> tuple[Finding, ...]:
    interval, threshold = candidate.log_ratio, -math.log1p(-plan.decision.min_saving)
    min_saving = dict(min_saving=plan.decision.min_saving)
    reasons = {
        "go": [Finding("reason.above-min-saving", min_saving)],
        "no-go": [Finding("reason.below-min-saving", min_saving)],
        "not-enough-runs": [],
    }[decision]
    if interval and interval.low <= threshold <= interval.high:
        reasons.append(Finding("reason.min-saving-inside", min_saving))
    if interval and interval.high < 0 and "at least" not in candidate.bounds:
        reasons = [Finding("reason.below-zero")]
    reasons += target_reasons(baseline, candidate, plan.task.kind)
    if candidate.target is None and "at least" in candidate.bounds:
        reasons.append(Finding("reason.below-ladder"))
    if candidate.target is None and "at most" in candidate.bounds:
        reasons.append(Finding("reason.above-ladder"))
    if interval and interval.n > 1 and not candidate.all_bounds:
        ladder = candidate.ladder_error**2  # which no tuning narrows
        choice = interval.rates**2 - ladder
        if choice > interval.error**2 + ladder:
            reasons.append(_dominated(plan, interval, choice))
    if interval and candidate.target is None and interval.n < len(candidate.pairs):
        ended = {seed.seed for seed in baseline.seeds if seed.loss is not None}
        unread = [s.seed for s in candidate.pairs if s.log_ratio is None]
        short = sum(seed in ended for seed in unread)  # no ladder to read them on
        for code, lost in (("no-pair", len(unread) - short), ("no-ladder", short)):
            if lost:
                reasons.append(Finding(f"reason.{code}", dict(seeds=lost, baseline=baseline.name)))
    if plan.task.kind == "imported":
        reasons.append(Finding("reason.imported"))
    if interval:
        reasons += _stopped(plan, baseline, candidate, decision)
    reasons += [
        Finding("reason.at-edge.design" if arm.tuned else "reason.at-edge", dict(arm=arm.name))
        for arm in (baseline, candidate)
        if arm.at_edge
    ]
    return tuple(reasons)
