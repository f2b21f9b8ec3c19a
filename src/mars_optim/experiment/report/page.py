"""What the report says, in the order of its reader's questions: analysis -> :class:`Page`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..._version import __version__
from ..analysis import Analysis, ArmResult
from ..analysis.stats import saved
from . import causes, evidence, money, repeat, rollout, sizes
from .document import Cell, Page, Picture, Section, Table, Tile
from .messages import Messages
from .savings import BOUNDS, ends, saving, saving_interval


def build_page(analysis: Analysis, words: Messages, svgs: Mapping[str, str], out: Path) -> Page:
    """The page in the words' language; a section is there only if there is something to say.

    Args:
        analysis: of a pilot.
        words: of the language.
        svgs: figures by name.
        out: folder of the pilot, for the commands that the page names.
    """
    sections = (
        _answer(analysis, words, svgs),
        money.section(analysis, words, out),
        causes.section(analysis, words),
        sizes.section(analysis, words, svgs),
        evidence.section(analysis, words, svgs),
        rollout.section(analysis, words),
        repeat.section(analysis, words),
        repeat.limits(words),
    )
    verdict = analysis.verdict
    return Page(
        lang=words.lang,
        question=words(
            "question", candidate=analysis.candidate.name, baseline=analysis.baseline.name
        ),
        decision=verdict.decision,
        title=words.title(analysis),
        lead=words.lead(analysis),
        tiles=tiles(analysis, words),
        reasons=tuple(words.finding(reason) for reason in verdict.reasons),
        following=rollout.next_step_line(analysis, words),
        sections=tuple(section for section in sections if section.blocks),
        footer=words("footer", version=__version__),
    )


def tiles(analysis: Analysis, words: Messages) -> tuple[Tile, ...]:
    """Tokens, hours, money, how sure: what the first screen answers beside the verdict."""
    candidate = analysis.candidate
    tokens = candidate.log_ratio.map(saved) if candidate.log_ratio else None
    return (
        Tile(
            words("tile.tokens"),
            saving(candidate, words) if tokens else words("none"),
            ends(tokens, words),
        ),
        _hours_tile(analysis, words),
        money.tile(analysis, words),
        _sure_tile(analysis, words),
    )


def _hours_tile(analysis: Analysis, words: Messages) -> Tile:
    label, known = words("tile.hours"), analysis.money
    if known is None:
        return Tile(label, words("none"), words("tile.not-known"))
    detail = words(
        "tile.hours-of",
        hours=known.hours.mean,
        planned=known.job.hours,
        ends=ends(known.share, words),
    )
    return Tile(label, words.percent(known.share.mean), detail)


def _sure_tile(analysis: Analysis, words: Messages) -> Tile:
    """How many seeds agree, and how often the rule decides so where it should not."""
    decision, candidate = analysis.plan.decision, analysis.candidate
    basis: str = analysis.verdict.decision
    if basis == "no-go" and candidate.diverged:
        basis = "diverged"
    ratios = [s.log_ratio for s in candidate.seeds if s.log_ratio is not None]
    above = sum(saved(ratio) > decision.min_saving for ratio in ratios)
    return Tile(
        words("tile.sure"),
        words("tile.seeds", above=above, seeds=len(ratios)) if ratios else words("none"),
        words(
            f"tile.sure.{basis}",
            min_saving=decision.min_saving,
            wrong=(1 - decision.confidence) / 2,
        ),
    )


def _answer(analysis: Analysis, words: Messages, svgs: Mapping[str, str]) -> Section:
    arms = [a for a in analysis.arms if a.log_ratio]
    data = Table(
        words("figure.saving.data"),
        (
            words("arm"),
            words("tokens-saved"),
            *(words("seed-number", seed=seed) for seed in analysis.plan.comparison.seeds),
        ),
        tuple(
            (
                Cell(arm.name, arm=arm.name),
                Cell(saving(arm, words), ends(arm.log_ratio and arm.log_ratio.map(saved), words)),
                *(Cell(_seed_saving(arm, seed, words)) for seed in analysis.plan.comparison.seeds),
            )
            for arm in arms
        ),
    )
    values = dict(
        baseline=analysis.baseline.name,
        confidence=analysis.plan.decision.confidence,
        min_saving=analysis.plan.decision.min_saving,
        arms=words("list-separator").join(
            f"{arm.name}: {saving_interval(arm, words)}" for arm in arms
        ),
    )
    picture = Picture(
        "saving",
        words("figure.saving.text", **values),
        words("figure.saving.caption", **values),
        data,
        svgs["saving"],
    )
    return Section("answer", words("section.answer"), (picture,) if arms else ())


def _seed_saving(arm: ArmResult, seed: int, words: Messages) -> str:
    found = next((s for s in arm.seeds if s.seed == seed), None)
    if found is None or found.log_ratio is None or found.reading is None:
        return words("missing" if found is None else "none")
    return BOUNDS[found.reading.bound] + words.percent(saved(found.log_ratio))
