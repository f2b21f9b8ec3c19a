"""Does the effect grow or shrink with the model?"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..analysis import Analysis
from ..analysis.sizes import SizeResult, Trend
from ..analysis.stats import saved
from ..plan.sizes import OWN_SIZE
from . import numbers
from .document import Block, Cell, Picture, Section, Table, Text
from .messages import Messages
from .savings import bounded, ends


def section(analysis: Analysis, words: Messages, svgs: Mapping[str, str]) -> Section:
    """The effect at each size and its trend; empty with one size."""
    if not analysis.sizes:
        return Section("sizes", words("section.sizes"), ())
    names = dict(candidate=analysis.candidate.name)
    columns = ("size", "parameters", "size.tokens", "tokens-saved", "size.control", "size.notes")
    table = Table(
        words("table.sizes", **names),
        tuple(words(column) for column in columns),
        tuple(_row(size, words) for size in analysis.sizes),
    )
    picture = Picture(
        "sizes",
        words("figure.sizes.text", **names),
        words("figure.sizes.caption", confidence=analysis.plan.decision.confidence),
        table,
        svgs["sizes"],
    )
    blocks: list[Block] = [picture]
    if analysis.trend:
        blocks.insert(0, Text(trend_text(analysis.trend, words)))
    return Section("sizes", words("section.sizes"), tuple(blocks))


def _row(size: SizeResult, words: Messages) -> tuple[Cell, ...]:
    share = size.log_ratio.map(saved)
    control = size.control.map(saved) if size.control else None
    name = words("size.main", name=size.name) if size.name == OWN_SIZE else size.name
    notes = []
    if size.at_edge:
        notes.append(words("size.note.edge", arms=", ".join(size.at_edge)))
    if size.diverged:
        notes.append(words("size.note.diverged", n=size.diverged))
    if size.missing:
        notes.append(words("size.note.missing", n=size.missing))
    if size.bounds:
        notes.append(words("size.note.bounds"))
    return (
        Cell(name),
        Cell(numbers.count(size.parameters)),
        Cell(numbers.count(size.tokens)),
        Cell(bounded(set(size.bounds)) + words.percent(share.mean), ends(share, words)),
        Cell(words.percent(control.mean), ends(control, words)) if control else Cell(words("none")),
        Cell(words("list-separator").join(notes)),
    )


def trend_text(trend: Trend, words: Messages) -> str:
    """Change for each doubling, and what it means."""
    change = trend.per_doubling()
    meaning = "sizes.open"
    if change.low > 0 or change.high < 0:
        meaning = "sizes.grows" if change.low > 0 else "sizes.shrinks"
    text = words(
        "sizes.trend",
        change=change.mean,
        low=change.low,
        high=change.high,
        meaning=words(meaning),
    )
    if trend.between and math.isfinite(trend.between.low):
        between = trend.between.map(lambda slope: slope * math.log(2))
        space = "" if words.lang == "ja" else " "
        text += space + words("sizes.between", low=between.low, high=between.high)
    return text
