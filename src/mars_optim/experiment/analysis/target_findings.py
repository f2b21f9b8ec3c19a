"""Findings on times to a target: why they tell nothing, and what limits them."""

from __future__ import annotations

from statistics import median

from ..plan.decision import DecisionPlan
from ..plan.plan import EXTERNAL
from .arm_model import ArmResult, Reach
from .looks import HOPE
from .model import Finding
from .survival import LEAST_WHOLE

TOO_FEW = "target.too-few"
COARSE = 0.1
"""Steps between evaluations, as a share of the time to the target, that are worth a word."""


def obstacle(rule: DecisionPlan, baseline: ArmResult, candidate: ArmResult) -> Finding | None:
    """Why the times tell nothing of the candidate; None if they do, or there is no target."""
    if rule.goal is None or candidate.target is None or baseline.target is None:
        return None
    reaches = _reaches(baseline) + _reaches(candidate)
    early = [r for r in reaches if r.at_first]
    if early:
        code = "target.at-start" if all(r.steps == 0 for r in early) else "target.at-first"
        return Finding(code, dict(early=len(early), runs=len(reaches)))
    if not any(r.reached for r in reaches):
        costs = [s.loss for arm in (baseline, candidate) for s in arm.seeds if s.loss is not None]
        if not costs:
            return None  # all diverged
        return Finding("target.nobody", dict(runs=len(reaches), best=rule.sign * min(costs)))
    for arm in (baseline, candidate):
        if arm.tuned and not arm.regret:  # nobody knows in tokens what another choice had changed
            return Finding("target.no-trial", dict(arm=arm.name, trials=len(arm.tuned.trials)))
    if candidate.log_ratio is None and not candidate.diverged:
        return Finding(TOO_FEW)
    return None


def may_be_told(baseline: ArmResult, candidate: ArmResult, most: int) -> bool:
    """Whether enough pairs for the model of times may become whole, both runs at the target.

    With w of n pairs whole so far, and any share equally likely before, w' of the others are whole
    by the beta-binomial of (1 + w, 1 + n - w); w + w' is wanted to be LEAST_WHOLE with a chance
    of HOPE.

    Args:
        baseline: the arm in use today.
        candidate: the arm that is judged.
        most: pairs that the plan allows.
    """
    from scipy.stats import betabinom  # slow to import

    base = {s.seed: s.reach.reached for s in baseline.seeds if s.reach}
    whole = [
        s.reach.reached and base[s.seed] for s in candidate.seeds if s.reach and s.seed in base
    ]
    w, n = sum(whole), len(whole)
    short = LEAST_WHOLE - w
    return short <= 0 or float(betabinom.sf(short - 1, most - n, 1 + w, 1 + n - w)) >= HOPE


def target_reasons(baseline: ArmResult, candidate: ArmResult, kind: str = "gpt") -> list[Finding]:
    """Limits of a ratio of times: runs that missed, evaluations far apart.

    Args:
        baseline: the arm in use today.
        candidate: the arm that is judged.
        kind: of the task: only our own tasks evaluate as often as the plan says.
    """
    found = []
    for arm in (baseline, candidate):
        if arm.target and arm.target.reached < arm.target.runs:
            missed = arm.target.runs - arm.target.reached
            code = "target.missed" if arm.target.reached else "target.never"
            found.append(Finding(code, dict(arm=arm.name, missed=missed, runs=arm.target.runs)))
    gaps = [r.gap for r in _reaches(baseline) + _reaches(candidate) if r.reached]
    if gaps and median(gaps) > COARSE:
        code = "target.coarse.external" if kind in EXTERNAL else "target.coarse"
        found.append(Finding(code, dict(share=median(gaps))))
    return found


def _reaches(arm: ArmResult) -> list[Reach]:
    return [s.reach for s in arm.seeds if s.reach]
