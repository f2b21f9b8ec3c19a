"""The next action, and who decides it: one line from numbers that are there already."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from .arm_model import ArmResult
from .cost import pilot_price
from .hours import hours_lost
from .model import Analysis, Finding
from .stats import MOST_PAIRS, Interval
from .target_findings import TOO_FEW

Kind = Literal["switch", "do-not-switch", "spend", "no-runs-help"]
Who = Literal["budget", "engineer"]
RATES = "reason.rates-dominate"
"""Code of the reason that the choice of the rates is most of the interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One line at the top of a report.

    Args:
        kind: "switch", "do-not-switch", "spend" (this much more to know), or "no-runs-help": more
            runs would not tell, and something else must come first.
        code: of its text, ``action.CODE`` in ``experiment/report/messages/en.toml``.
        who: decides: "budget" (whoever pays for the training) or "engineer".
        values: names and numbers of the text.
        pairs: of runs to add; None where that is not what is to be done.
        runs: to make; None likewise.
        hours: of training that they take, one after another, as the runs so far took; None if not
            known.
        money: that these cost; None without a price.
    """

    kind: Kind
    code: str
    who: Who
    values: Mapping[str, str | int | float]
    pairs: int | None = None
    runs: int | None = None
    hours: float | None = None
    money: float | None = None


def action(analysis: Analysis) -> Action:
    """The next action: production's word comes first, then the canary's, then the pilot's.

    Args:
        analysis: of the pilot, with what happened since.
    """
    if (went := _after_production(analysis)) is not None:
        return went
    if analysis.verdict.decision == "go":
        return _after_go(analysis)
    if analysis.verdict.decision == "no-go":
        return Action(kind="do-not-switch", code="do-not", who="engineer", values=_names(analysis))
    return _undecided(analysis)


def _names(analysis: Analysis) -> dict[str, str | int | float]:
    return dict(candidate=analysis.candidate.name, baseline=analysis.baseline.name)


def _after_production(analysis: Analysis) -> Action | None:
    guard, names = analysis.aftermath.guard, _names(analysis)
    if guard is None:
        return None
    if guard.rollbacks:
        back = guard.rollbacks[-1]
        values = names | dict(step=back.step, signal=back.signal)
        return Action(kind="do-not-switch", code="do-not.guard", who="engineer", values=values)
    if analysis.verdict.decision != "go":
        return None  # a run that was begun is no evidence
    values = names | dict(step=guard.last.step)
    if guard.ended:
        return Action(kind="switch", code="switch.ended", who="budget", values=values)
    return Action(kind="switch", code="switch.guard", who="engineer", values=values)


def _after_go(analysis: Analysis) -> Action:
    canary, names = analysis.aftermath.canary, _names(analysis)
    if canary is not None and canary.recommendation == "back":
        return Action(kind="do-not-switch", code="do-not.canary", who="engineer", values=names)
    if lost := hours_lost(analysis):
        code = f"do-not.hours-{lost.values['place']}"
        return Action(kind="do-not-switch", code=code, who="engineer", values=lost.values)
    if canary is None:
        return Action(kind="switch", code="switch", who="budget", values=names)
    if canary.recommendation == "production":
        return Action(kind="switch", code="switch.canary", who="budget", values=names)
    values = names | dict(orders=len(canary.orders))
    return Action(kind="spend", code="spend.orders", who="engineer", values=values)


def _undecided(analysis: Analysis) -> Action:
    """Why the pilot does not decide, the strongest cause first, and what would."""
    verdict, candidate, names = analysis.verdict, analysis.candidate, _names(analysis)
    code = verdict.findings[0].code if verdict.findings else ""
    if any(reason.code == "reason.next-pair" for reason in verdict.reasons):
        return _spend(analysis, "spend.next", analysis.pair_seconds, pairs=1)
    if code == TOO_FEW:
        return _no_runs_help("target", names)
    if not verdict.trusted:
        return _no_runs_help("fix", names)
    if any(reason.code == "reason.ladder-lost" for reason in verdict.reasons):
        return _no_runs_help("ladder-lost", names)
    if code == "verdict.missing":
        missing = int(verdict.findings[0].values["missing"])
        return _spend(analysis, "spend.missing", missing * analysis.run_seconds, runs=missing)
    if code == "verdict.no-ladder":
        return _no_runs_help("no-ladder", names)
    if code == "verdict.too-few-pairs" or candidate.log_ratio is None:
        return _pairs(analysis, 1, "spend.first")
    if doubtful := _doubtful(analysis, candidate.log_ratio):
        return _at_edge(analysis, doubtful)
    if candidate.all_bounds or (candidate.bounds and not _inside(analysis)):
        return _no_runs_help("target" if candidate.target else "rung", names)
    if verdict.pairs_needed:
        more = max(1, verdict.pairs_needed - candidate.log_ratio.n)
        return _pairs(analysis, more, "spend.pairs")
    if why := next((f for f in verdict.reasons if f.code.startswith(RATES)), None):
        return _more_trials(analysis, why)
    return Action(
        kind="no-runs-help", code="never", who="budget", values=names | dict(most=MOST_PAIRS)
    )


def _doubtful(analysis: Analysis, interval: Interval) -> ArmResult | None:
    """The arm against which nothing is decided, as its best rate is at the edge of those tried.

    Where what pays lies inside the interval, that is the arm which the estimate speaks against.
    """
    arms: tuple[ArmResult, ...] = (analysis.baseline, analysis.candidate)
    if _inside(analysis):
        favours = interval.mean >= -math.log1p(-analysis.plan.decision.min_saving)
        arms = arms[:1] if favours else arms[1:]
    return next((arm for arm in arms if arm.at_edge), None)


def _inside(analysis: Analysis) -> bool:
    """Whether what pays lies inside the interval."""
    return any(f.code == "reason.min-saving-inside" for f in analysis.verdict.reasons)


def _no_runs_help(code: str, values: Mapping[str, str | int | float]) -> Action:
    return Action(kind="no-runs-help", code=code, who="engineer", values=values)


def _pairs(analysis: Analysis, more: int, code: str) -> Action:
    """More seeds, each of all compared arms."""
    have = analysis.candidate.log_ratio.n if analysis.candidate.log_ratio else 0
    if analysis.plan.task.kind == "imported":
        code += ".imported"
    seconds, seeds = more * analysis.pair_seconds, max(have + more - analysis.plan.trials_pair, 2)
    return _spend(analysis, code, seconds, pairs=more, seeds=seeds)


def _at_edge(analysis: Analysis, arm: ArmResult) -> Action:
    """The tuning was too narrow, which another pilot mends: it costs what this one did."""
    code = "edge.design" if analysis.plan.tuning.by_design else "edge"
    made = _spend(analysis, code, analysis.totals.seconds, arm=arm.name)
    return replace(made, kind="no-runs-help")


def _more_trials(analysis: Analysis, why: Finding) -> Action:
    """The choice of the rates is most of the interval: another tuning seed narrows it."""
    share, kind = float(why.values["share"]), why.code.removeprefix(RATES)
    if kind:
        return _no_runs_help(f"trials{kind}", _names(analysis) | dict(share=share))
    runs = int(why.values["runs"])
    return _spend(analysis, "trials", runs * analysis.run_seconds, runs=runs, share=share)


def _spend(
    analysis: Analysis,
    code: str,
    seconds: float,
    *,
    pairs: int | None = None,
    runs: int | None = None,
    **values: str | int | float,
) -> Action:
    price, hours = pilot_price(analysis.plan.cost), seconds / 3600
    told = {key: n for key, n in (("pairs", pairs), ("runs", runs)) if n is not None}
    return Action(
        kind="spend",
        code=code,
        who="budget",
        values=_names(analysis) | told | values,
        pairs=pairs,
        runs=runs,
        hours=hours or None,
        money=hours * price if price and hours else None,
    )
