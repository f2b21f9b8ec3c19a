"""The report, in the order of its reader's questions: analysis -> :class:`Page`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..._version import __version__
from ..analysis import Analysis, went_back
from ..analysis.action import action
from ..analysis.stats import saved
from .document import Page, Picture, Tile
from .messages import Messages
from .savings import ends, saving
from .sections import (
    answer,
    at_target,
    cause,
    cost,
    evidence,
    headline,
    repeat,
    rollout,
    sizes,
    target,
    tuning,
)
from .sections.action_line import action_line


def build_page(analysis: Analysis, say: Messages, out: Path) -> Page:
    """The page; a section is there only if there is something to say.

    Args:
        analysis: of a pilot.
        say: texts of the language.
        out: folder of the pilot, for the commands that the page names.
    """
    sections = (
        answer.section(analysis, say),
        target.section(analysis, say),
        at_target.section(analysis, say),
        cost.section(analysis, say, out),
        cause.section(analysis, say),
        sizes.section(analysis, say),
        tuning.section(analysis, say),
        evidence.section(analysis, say),
        rollout.section(analysis, say),
        repeat.section(analysis, say),
        repeat.limits(analysis, say),
    )
    verdict = analysis.verdict
    shown = tuple(section for section in sections if section.blocks)
    ids = {s.key for s in shown} | {
        f"figure-{b.name}" for s in shown for b in s.blocks if isinstance(b, Picture)
    }
    places = tuple(headline.place_of(reason.code) for reason in verdict.reasons)
    return Page(
        lang=say.lang,
        question=say(
            "question", candidate=analysis.candidate.name, baseline=analysis.baseline.name
        ),
        decision="no-go" if went_back(analysis.aftermath) else verdict.decision,
        title=say.title(analysis),
        lead=say.lead(analysis),
        action=action_line(analysis, action(analysis), say),
        numbers=headline.numbers_table(analysis, say),
        numbers_how=headline.STATISTICS,
        tiles=tuple(t if t.place in ids else replace(t, place="") for t in tiles(analysis, say)),
        reasons=tuple(say.finding(reason) for reason in verdict.reasons),
        reason_places=tuple(place if place in ids else "" for place in places),
        following=rollout.next_step_line(analysis, say),
        sections=shown,
        footer=say("footer", version=__version__),
    )


def tiles(analysis: Analysis, say: Messages) -> tuple[Tile, ...]:
    """Tokens, hours, money, how sure: what the first screen answers beside the verdict."""
    ratio = analysis.candidate.log_ratio
    return (
        Tile(
            say("tile.tokens"),
            saving(analysis.candidate, say),
            ends(ratio and ratio.map(saved), say, analysis.candidate.bounds),
            place="answer",
        ),
        cost.hours_tile(analysis, say),
        cost.money_tile(analysis, say),
        _sure_tile(analysis, say),
    )


def _sure_tile(analysis: Analysis, say: Messages) -> Tile:
    """How many seeds agree, and how often the rule decides so where it should not."""
    decision, candidate = analysis.plan.decision, analysis.candidate
    basis: str = analysis.verdict.decision
    if basis == "no-go" and candidate.diverged:
        basis = "diverged"
    ratios = [s.log_ratio for s in candidate.pairs if s.log_ratio is not None]
    above = sum(saved(ratio) > decision.min_saving for ratio in ratios)
    wrong = (1 - decision.confidence) / 2
    return Tile(
        say("tile.sure"),
        say("tile.seeds", above=above, seeds=len(ratios)) if ratios else say("none"),
        say(f"tile.sure.{basis}", min_saving=decision.min_saving, wrong=wrong),
        place="evidence",
    )
