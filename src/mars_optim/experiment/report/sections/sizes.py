"""Does the effect grow or shrink with the model?"""

from __future__ import annotations

import math

from matplotlib.axes import Axes

from ...analysis import Analysis
from ...analysis.sizes import SizeResult, Trend
from ...analysis.stats import saved
from ...plan.sizes import OWN_SIZE
from .. import numbers
from ..document import Block, Cell, Picture, Section, Table, Text
from ..figures.draw import svg_element, ticks_at
from ..figures.theme import ARMS, AXIS, CARD, INK, MIN_SAVING
from ..messages import Messages
from ..savings import bounded, closed_part, ends


def section(analysis: Analysis, say: Messages) -> Section:
    """The effect at each size and its trend; empty with one size."""
    blocks: list[Block] = []
    if analysis.sizes and analysis.trend:
        blocks.append(Text(_trend(analysis.trend, say)))
    if analysis.sizes:
        blocks.append(_picture(analysis, say))
    return Section("sizes", say("section.sizes"), tuple(blocks))


def _picture(analysis: Analysis, say: Messages) -> Picture:
    candidate = analysis.candidate.name
    columns = ("size", "parameters", "size.tokens", "tokens-saved", "size.control", "size.notes")
    return Picture(
        "sizes",
        say("figure.sizes.text", candidate=candidate),
        say("figure.sizes.caption", confidence=analysis.plan.decision.confidence),
        Table(
            say("table.sizes", candidate=candidate),
            say.each(*columns),
            tuple(_row(size, say) for size in analysis.sizes),
        ),
        svg_element("sizes", lambda ax: _draw(ax, analysis, say), height=2.8),
    )


def _row(size: SizeResult, say: Messages) -> tuple[Cell, ...]:
    share = size.log_ratio.map(saved)
    control = size.control.map(saved) if size.control else None
    name = say("size.main", name=size.name) if size.name == OWN_SIZE else size.name
    notes = []
    if size.at_edge:
        notes.append(say("size.note.edge", arms=", ".join(size.at_edge)))
    if size.diverged:
        notes.append(say("size.note.diverged", n=size.diverged))
    if size.missing:
        notes.append(say("size.note.missing", n=size.missing))
    if size.bounds:
        notes.append(say("size.note.bounds"))
    return (
        Cell(name),
        Cell(numbers.count(size.parameters)),
        Cell(numbers.count(size.tokens)),
        Cell(bounded(set(size.bounds)) + say.percent(share.mean), ends(share, say, size.bounds)),
        Cell(say.percent(control.mean), ends(control, say)) if control else Cell(say("none")),
        Cell(say.listed(notes)),
    )


def _trend(trend: Trend, say: Messages) -> str:
    """Change for each doubling, and what it means."""
    change = trend.per_doubling()
    meaning = "sizes.open"
    if change.low > 0 or change.high < 0:
        meaning = "sizes.grows" if change.low > 0 else "sizes.shrinks"
    values = dict(change=change.mean, low=change.low, high=change.high, meaning=say(meaning))
    sentences = [say("sizes.trend", **values)]
    if trend.between and math.isfinite(trend.between.low):
        between = trend.between.map(lambda slope: slope * math.log(2))
        sentences.append(say("sizes.between", low=between.low, high=between.high))
    return say.prose(*sentences)


def _draw(ax: Axes, analysis: Analysis, say: Messages) -> None:
    """Tokens saved over the parameters, with intervals and seeds."""
    tint = ARMS["candidate"]
    for size in analysis.sizes:
        share = size.log_ratio.map(saved)
        if math.isfinite(share.low):
            x = [size.parameters] * 2
            ax.plot(x, closed_part(share, size.bounds), color=tint, lw=7, alpha=0.3)
        values = [100 * saved(ratio) for ratio in size.ratios]
        ax.plot([size.parameters] * len(values), values, "o", ms=6, mec=tint, mfc=CARD)
        ax.plot(size.parameters, 100 * share.mean, "_", color=tint, ms=18, mew=3)
    ax.axhline(0, color=AXIS, lw=1)
    min_saving = 100 * analysis.plan.decision.min_saving
    ax.axhline(min_saving, color=MIN_SAVING, lw=1.2, ls=(0, (4, 3)))
    ticks = [size.parameters for size in analysis.sizes]
    ticks_at(ax, ticks)
    ax.set_xlim(min(ticks) / 1.3, max(ticks) * 1.3)
    ax.tick_params(colors=INK)
    ax.set_xlabel(say("figure.sizes.x"))
    ax.set_ylabel(say("figure.sizes.y"))
