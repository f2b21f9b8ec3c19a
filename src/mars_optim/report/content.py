"""What the report says, in the order of its reader's questions: analysis -> :class:`Page`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from .._version import __version__
from ..analysis import Analysis, ArmResult, Interval
from ..analysis.verdict import saved
from . import evidence, numbers, repeat
from .document import Block, Cell, Page, Picture, Section, Table, Text, Tile
from .words import Words


def build_page(analysis: Analysis, words: Words, svgs: Mapping[str, str], out: Path) -> Page:
    """The page in the words' language; a section is there only if there is something to say.

    Args:
        analysis: of a pilot.
        words: of the language.
        svgs: figures by name.
        out: folder of the pilot, for the commands that the page names.
    """
    sections = (
        _answer(analysis, words, svgs),
        _cost(analysis, words, out),
        _cause(analysis, words),
        evidence.section(analysis, words, svgs),
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
        sections=tuple(section for section in sections if section.blocks),
        footer=words("footer", version=__version__),
    )


def tiles(analysis: Analysis, words: Words) -> tuple[Tile, ...]:
    """Tokens, hours, money, how sure: what the first screen answers beside the verdict."""
    candidate, hours = analysis.candidate, hours_saved(analysis)
    unknown = words("none")
    tokens = candidate.log_ratio.map(saved) if candidate.log_ratio else None
    return (
        Tile(
            words("tile.tokens"),
            saving(candidate, words) if tokens else unknown,
            _ends(tokens, words),
        ),
        Tile(
            words("tile.hours"),
            words.percent(hours.mean) if hours else unknown,
            _hours_detail(analysis, hours, words),
        ),
        _money_tile(analysis, hours, words),
        _sure_tile(analysis, words),
    )


def _ends(value: Interval | None, words: Words) -> str:
    if value is None:
        return words("tile.not-known")
    if not math.isfinite(value.low):
        return words("one-pair")
    return words.between(value, words.percent)


def _hours_detail(analysis: Analysis, hours: Interval | None, words: Words) -> str:
    if hours is None:
        return words("tile.not-known")
    planned = analysis.plan.cost.planned_hours
    return words(
        "tile.hours-of", hours=planned * hours.mean, planned=planned, ends=_ends(hours, words)
    )


def _money_tile(analysis: Analysis, hours: Interval | None, words: Words) -> Tile:
    cost = analysis.plan.cost
    total = cost.price_per_hour * cost.planned_hours
    if not total:
        return Tile(words("tile.money"), words("none"), words("tile.no-price"))
    if hours is None:
        return Tile(words("tile.money"), words("none"), words("tile.not-known"))
    value = numbers.money(total * hours.mean, cost.currency)
    if not math.isfinite(hours.low):
        return Tile(words("tile.money"), value, words("one-pair"))
    ends = words(
        "between", low=numbers.whole(total * hours.low), high=numbers.whole(total * hours.high)
    )
    return Tile(words("tile.money"), value, ends)


def _sure_tile(analysis: Analysis, words: Words) -> Tile:
    """How many seeds agree, and how often the rule decides so where it should not."""
    decision, candidate = analysis.plan.decision, analysis.candidate
    basis = "diverged" if candidate.diverged else analysis.verdict.decision
    ratios = [s.log_ratio for s in candidate.seeds if s.log_ratio is not None]
    above = sum(saved(ratio) > decision.worth for ratio in ratios)
    return Tile(
        words("tile.sure"),
        words("tile.seeds", above=above, seeds=len(ratios)) if ratios else words("none"),
        words(f"tile.sure.{basis}", worth=decision.worth, wrong=(1 - decision.confidence) / 2),
    )


def saving(arm: ArmResult, words: Words) -> str:
    """Tokens saved, or the bound that is known of it."""
    if arm.log_ratio is None:
        return words("none")
    bound = {"at least": "\u2265 ", "at most": "\u2264 "}.get("/".join(arm.bounds), "")
    return bound + words.percent(saved(arm.log_ratio.mean))


def saving_interval(arm: ArmResult, words: Words) -> str:
    """Tokens saved with the interval, as far as it is known."""
    if arm.log_ratio is None or not math.isfinite(arm.log_ratio.low):
        return saving(arm, words)
    ends = words.between(arm.log_ratio.map(saved), words.percent)
    return words("with-interval", value=saving(arm, words), ends=ends)


def hours_saved(analysis: Analysis) -> Interval | None:
    """Share of hours saved: tokens saved, with the measured step time on top."""
    return analysis.money.share if analysis.money else None


def _answer(analysis: Analysis, words: Words, svgs: Mapping[str, str]) -> Section:
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
                Cell(saving(arm, words), _ends(arm.log_ratio and arm.log_ratio.map(saved), words)),
                *(Cell(_seed_saving(arm, seed, words)) for seed in analysis.plan.comparison.seeds),
            )
            for arm in arms
        ),
    )
    values = dict(
        baseline=analysis.baseline.name,
        confidence=analysis.plan.decision.confidence,
        worth=analysis.plan.decision.worth,
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


def _seed_saving(arm: ArmResult, seed: int, words: Words) -> str:
    found = next((s for s in arm.seeds if s.seed == seed), None)
    if found is None or found.log_ratio is None or found.reading is None:
        return words("missing" if found is None else "none")
    bound = {"": "", "at least": "\u2265 ", "at most": "\u2264 "}[found.reading.bound]
    return bound + words.percent(saved(found.log_ratio))


def _cost(analysis: Analysis, words: Words, out: Path) -> Section:
    rows = tuple((Cell(label), Cell(value)) for label, value in cost_rows(analysis, words))
    blocks: list[Block] = [Table(words("table.cost"), (), rows), Text(words("cost.how"))]
    if not analysis.plan.cost.price_per_hour:
        blocks.append(Text(words("cost.give-a-price", out=out.as_posix())))
    return Section("cost", words("section.cost"), tuple(blocks))


def cost_rows(analysis: Analysis, words: Words) -> list[tuple[str, str]]:
    """Hours, memory and, at a price, money: label and value."""
    cost, hours, candidate = analysis.plan.cost, hours_saved(analysis), analysis.candidate
    price, currency = cost.price_per_hour, cost.currency
    rows = []
    if hours and math.isfinite(hours.low):
        planned = cost.planned_hours
        ends = words.between(hours.map(lambda share: planned * share), numbers.whole)
        value = words("with-interval", value=numbers.whole(planned * hours.mean), ends=ends)
        rows.append((words("cost.hours", planned=planned), value))
        if total := planned * price:
            ends = words.between(
                hours.map(lambda share: total * share), lambda x: numbers.money(x, currency)
            )
            value = words(
                "with-interval", value=numbers.money(total * hours.mean, currency), ends=ends
            )
            rows.append((words("cost.money", total=numbers.money(total, currency)), value))
    if candidate.step_time:
        rows.append((words("cost.step-time"), evidence.step_time(candidate, words)))
    if candidate.bytes_per_parameter:
        memory = words(
            "cost.memory-value",
            candidate=candidate.bytes_per_parameter,
            baseline=analysis.baseline.name,
            theirs=analysis.baseline.bytes_per_parameter or 0.0,
        )
        rows.append((words("cost.memory"), memory))
    seconds = analysis.totals.seconds
    rows.append((words("cost.pilot-time"), words.duration(seconds)))
    if price:
        spent = numbers.money(price * seconds / 3600, currency)
        rows.append((words("cost.pilot-money"), spent))
    return rows


def control_note(analysis: Analysis, words: Words) -> str:
    """What the control arm says about the effect's cause."""
    control, candidate = analysis.control, analysis.candidate
    if control is None:
        return ""
    names = dict(control=control.name, candidate=candidate.name)
    parts = [words("control.what", **names)]
    if analysis.control_share is not None:
        parts.append(words("control.share", **names, share=analysis.control_share))
    elif candidate.log_ratio is not None:
        parts.append(words("control.none", **names, saving=saving_interval(control, words)))
    difference = analysis.against_control
    if difference is not None:
        parts.append(
            words(
                "control.lower" if difference.mean < 0 else "control.higher",
                **names,
                size=abs(difference.mean),
                ends=words("control.ends", low=difference.low, high=difference.high)
                if math.isfinite(difference.low)
                else words("one-pair"),
            )
        )
        if not (difference.low > 0 or difference.high < 0):
            parts.append(words("control.holds-zero"))
    return ("" if words.lang == "ja" else " ").join(parts)


def _cause(analysis: Analysis, words: Words) -> Section:
    note = control_note(analysis, words)
    return Section("cause", words("section.cause"), (Text(note),) if note else ())
