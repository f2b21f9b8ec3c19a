"""A pilot at one moment, in words: snapshot -> :class:`View`."""

from __future__ import annotations

from dataclasses import dataclass

from ..analysis import Analysis
from ..analysis.cost import pilot_price
from ..analysis.looks import FIRST
from ..pilot.status import Snapshot
from ..plan.cost import CostPlan
from ..report import Messages, numbers
from ..report.document import Table, Tile
from ..report.page import tiles
from .curves import Curves, curves_of, in_words, last_losses, tints
from .runs_table import one_line, runs_table
from .spent import spent

QUIET = 60.0
"""Seconds without a word from the pilot that are worth a word."""


@dataclass(frozen=True, slots=True)
class VerdictSoFar:
    """Answer to the question at this moment.

    Args:
        kind: "go", "no-go" or "not-enough-runs"; "later" where nothing may be decided yet.
        title: in a word or two.
        lead: sentences below it.
        reasons: a list below these.
        tiles: tokens, hours and money saved; empty where there is no verdict.
    """

    kind: str
    title: str
    lead: str
    reasons: tuple[str, ...] = ()
    tiles: tuple[Tile, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture of the page.

    Args:
        curves: to be drawn.
        caption: how to read it.
        words: the picture in words.
        data: its numbers.
    """

    curves: Curves
    caption: str
    words: str
    data: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The page, in words.

    Args:
        lang: of the words.
        question: that the pilot asks.
        state: of the pilot, in a sentence.
        share: of all steps that is done; of the runs, where that is not known.
        notes: what could not be read, and silence of the pilot.
        progress: runs, time left and cost so far.
        verdict: so far, or why not yet.
        figures: loss curves.
        runs: all of them.
        tints: colour of each arm.
        ended: whether the pilot has ended, so that nothing here will change.
        reports: names of the reports that are there, once it has ended.
        problem: why the folder cannot be read at this moment, in one line.
    """

    lang: str
    question: str
    state: str
    share: float
    notes: tuple[str, ...]
    progress: tuple[Tile, ...]
    verdict: VerdictSoFar
    figures: tuple[Shown, ...]
    runs: Table
    tints: dict[str, str]
    ended: bool = False
    reports: tuple[str, ...] = ()
    problem: str = ""


def view_of(
    snapshot: Snapshot,
    say: Messages,
    *,
    quiet: float = 0.0,
    paid: float = 0.0,
    reports: tuple[str, ...] = (),
    ended: bool = False,
) -> View:
    """The page of a snapshot.

    Args:
        snapshot: of the pilot.
        say: texts of the language.
        quiet: seconds since the pilot's last word.
        paid: seconds that count for the budget.
        reports: as in :class:`View`.
        ended: likewise.
    """
    plan = snapshot.plan
    say = say.about(plan.decision)
    names = dict(candidate=plan.comparison.candidate, baseline=plan.comparison.baseline)
    silent = snapshot.state == "running" and quiet > QUIET
    return View(
        lang=say.lang,
        question=say("question", **names),
        state=say("live.out-of-budget" if snapshot.out_of_budget else f"live.is.{snapshot.state}"),
        share=_share(snapshot),
        notes=(
            *([say("live.quiet", seconds=quiet)] if silent else []),
            *(one_line(text) for text in snapshot.unreadable),
        ),
        progress=_progress(snapshot, paid, say),
        verdict=verdict_of(snapshot, say),
        figures=tuple(
            Shown(c, say(f"live.figure.{c.name}"), in_words(c, say), last_losses(c, say))
            for c in curves_of(snapshot)
        ),
        runs=runs_table(snapshot, say),
        tints=tints(plan),
        ended=ended,
        reports=reports,
    )


def _share(snapshot: Snapshot) -> float:
    if snapshot.share is not None and snapshot.state != "ended":
        return min(1.0, snapshot.share)
    return snapshot.done_runs / max(1, snapshot.planned_runs)


def verdict_of(snapshot: Snapshot, say: Messages) -> VerdictSoFar:
    """The verdict so far, where an interval of this moment holds; else why there is none.

    It holds when the plan looks at every pair, and at the one look of a plan that looks once: when
    no run of the comparison is missing, or the pilot has ended without it.
    """
    plan, found = snapshot.plan, snapshot.interim
    once, over = plan.decision.looks == "once", snapshot.state == "ended"
    if found and (over or (once and not found.totals.missing)):
        return _told(found, say(f"title.{found.verdict.decision}"), say)
    if once:
        lead = say.prose(say("live.later-lead"), say("live.later-why"))
        return VerdictSoFar("later", say("live.later"), lead)
    if found and _pairs(found) >= FIRST:
        title = say("live.so-far-title", verdict=say(f"title.{found.verdict.decision}"))
        told = _told(found, title, say)
        return VerdictSoFar(
            told.kind,
            title,
            say.prose(told.lead, say("live.every-look")),
            told.reasons,
            told.tiles,
        )
    pairs = _pairs(found) if found else 0
    return VerdictSoFar(
        "later", say("live.first-look"), say("live.pairs", pairs=pairs, first=FIRST)
    )


def _told(found: Analysis, title: str, say: Messages) -> VerdictSoFar:
    """The verdict of an analysis, in the report's words."""
    verdict = found.verdict
    reasons = tuple(say.finding(reason) for reason in verdict.reasons)
    known = tiles(found, say) if found.candidate.log_ratio and verdict.trusted else ()
    return VerdictSoFar(verdict.decision, title, say.lead(found), reasons, known)


def _pairs(found: Analysis) -> int:
    """Pairs of baseline and candidate whose saving is known."""
    ratio = found.candidate.log_ratio
    return ratio.n if ratio else 0


def _progress(snapshot: Snapshot, paid: float, say: Messages) -> tuple[Tile, ...]:
    """Runs done, time left, and what it has cost."""
    cost, left = spent(snapshot), snapshot.seconds_left
    runs = say("live.of", done=snapshot.done_runs, planned=snapshot.planned_runs)
    return (
        Tile(say("live.tile.runs"), runs, say("live.under-way", n=len(snapshot.running))),
        Tile(
            say("live.tile.left"),
            say("none") if left is None else say.duration(left),
            say("live.left-unknown" if left is None else "live.left-detail"),
        ),
        Tile(say("live.tile.hours"), say.duration(cost.seconds), say("tokens", n=cost.tokens)),
        _money_tile(snapshot.plan.cost, cost.money, paid, say),
    )


def _money_tile(cost: CostPlan, money: float | None, paid: float, say: Messages) -> Tile:
    """Price of the training so far; with a budget, what the clock has counted of it."""
    label = say("live.tile.money")
    if money is None:
        return Tile(label, say("none"), say("tile.no-price"))
    detail = say("live.money-detail")
    if cost.budget:
        counted = pilot_price(cost) * paid / 3600
        amounts = (numbers.money(amount, cost.currency) for amount in (counted, cost.budget))
        detail = say("live.budget-detail", **dict(zip(("paid", "budget"), amounts, strict=True)))
    return Tile(label, numbers.money(money, cost.currency), detail)
