"""Gain on the real job: the forecast, over sizes and over lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from ...analysis import Analysis, Interval
from ...analysis.at_target import AtTarget
from ...analysis.stats import saved
from ...scaling.design import SHORT
from ...scaling.fan import Band, Fan
from ...scaling.forecast import TokenRatio
from .. import numbers
from ..document import Block, Bullets, Cell, Picture, Section, Table, Text
from ..figures.draw import counts, svg_element
from ..figures.theme import ARMS, AXIS, CARD, MIN_SAVING
from ..messages import Messages
from ..savings import closed_part

Measured = tuple[float, float, Interval, Collection[str]]  # parameters, tokens, log ratio, bounds


def section(analysis: Analysis, say: Messages) -> Section:
    """Forecast, next run, picture and caveats; empty without a target."""
    found = analysis.at_target
    if found is None:
        return Section("at-target", "", ())
    blocks = [*_ratios(analysis, found, say), *_refusals(found, say)]
    if found.fan and (run := found.arms[analysis.candidate.name].next_run):
        baseline, arm = run.arms
        numbers_of = dict(parameters=run.parameters, tokens=run.tokens, flop=run.flop)
        blocks.append(Text(say("at-target.next", baseline=baseline, arm=arm, **numbers_of)))
    if found.fan:
        sentences = ["at-target.caveats.one-run" if found.one_run else "at-target.caveats"]
        if len({parameters for parameters, *_ in _measured(analysis)}) == 1:
            sentences.append("at-target.size")
        if _times_longer(analysis) > SHORT:
            sentences.append("at-target.length")
        blocks += [_picture(analysis, found.fan, say), Text(say.prose(*map(say, sentences)))]
    return Section("at-target", say("section.at-target"), tuple(blocks))


def _ratios(analysis: Analysis, found: AtTarget, say: Messages) -> list[Block]:
    told = {name: arm.token_ratio for name, arm in found.arms.items()}
    rows = tuple(_row(name, ratio, say) for name, ratio in told.items() if ratio)
    levels = (say("at-target.within", level=level) for level in (0.8, 0.95))
    head = (say("arm"), say("tokens-saved"), *levels)
    caption = say("table.at-target", baseline=analysis.baseline.name)
    return [Table(caption, head, rows)] if rows else []


def _refusals(found: AtTarget, say: Messages) -> list[Block]:
    refused = {name: arm.refusal for name, arm in found.arms.items() if arm.refusal}
    items = tuple(say("at-target.refusal", arm=name, why=why) for name, why in refused.items())
    return [Bullets(items, say("at-target.refusals"))] if items else []


def _row(name: str, ratio: TokenRatio, say: Messages) -> tuple[Cell, ...]:
    ends = ((ratio.low80, ratio.high80), (ratio.low95, ratio.high95))
    within = (say("between", low=_share(low, say), high=_share(high, say)) for low, high in ends)
    return Cell(name, arm=name), Cell(_share(ratio.mean, say)), *map(Cell, within)


def _share(ratio: float, say: Messages) -> str:
    return say.percent(saved(math.log(ratio)))


def _measured(analysis: Analysis) -> list[Measured]:
    """The candidate's at each size and length that was run."""
    if analysis.sizes:
        return [(s.parameters, s.tokens, s.log_ratio, s.bounds) for s in analysis.sizes]
    own, bounds = analysis.candidate.log_ratio, analysis.candidate.bounds
    return [(analysis.parameters, analysis.unit_tokens, own, bounds)] if own else []


def _times_longer(analysis: Analysis) -> float:
    """Tokens per parameter of the real job over those of the longest runs."""
    target, measured = analysis.plan.target, _measured(analysis)
    lengths = (tokens / size for size, tokens, *_ in measured if size)
    return target.tokens / target.parameters / max(lengths, default=math.inf)


def _picture(analysis: Analysis, way: Fan, say: Messages) -> Picture:
    target, candidate = analysis.plan.target, analysis.candidate.name
    svgs = svg_element("at-target-sizes", lambda ax: _draw_sizes(ax, analysis, way, say))
    svgs += svg_element("at-target-lengths", lambda ax: _draw_lengths(ax, analysis, way, say))
    bands = (*way.sizes, *way.lengths)
    return Picture(
        "at-target",
        say("figure.at-target.text", candidate=candidate),
        say(
            "figure.at-target.caption",
            length=target.tokens / target.parameters,
            parameters=target.parameters,
            confidence=analysis.plan.decision.confidence,
        ),
        Table(
            say("table.at-target", baseline=analysis.baseline.name),
            (
                *say.each("parameters", "training-tokens", "tokens-saved"),
                say("at-target.within", level=0.95),
            ),
            tuple(_point(band, say) for band in bands),
        ),
        svgs,
    )


def _point(band: Band, say: Messages) -> tuple[Cell, ...]:
    ratio = band.ratio
    low, high = _share(ratio.low95, say), _share(ratio.high95, say)
    return (
        Cell(numbers.count(band.parameters)),
        Cell(numbers.count(band.tokens)),
        Cell(_share(ratio.mean, say)),
        Cell(say("between", low=low, high=high)),
    )


def _draw_sizes(ax: Axes, analysis: Analysis, way: Fan, say: Messages) -> None:
    _draw(ax, analysis, way.sizes, lambda parameters, tokens: parameters)
    ax.set_xlabel(say("figure.sizes.x"))
    ax.set_ylabel(say("figure.sizes.y"))
    counts(ax.xaxis)


def _draw_lengths(ax: Axes, analysis: Analysis, way: Fan, say: Messages) -> None:
    _draw(ax, analysis, way.lengths, lambda parameters, tokens: tokens / parameters)
    ax.set_xlabel(say("figure.at-target.length"))
    counts(ax.xaxis)


def _draw(
    ax: Axes, analysis: Analysis, bands: tuple[Band, ...], along: Callable[[float, float], float]
) -> None:
    """The fan, what was measured, and the target."""
    tint, target = ARMS["candidate"], analysis.plan.target
    x = [along(band.parameters, band.tokens) for band in bands]

    def ends(name: str) -> list[float]:
        return [_percent(band.ratio, name) for band in bands]

    ax.fill_between(x, ends("low95"), ends("high95"), color=tint, alpha=0.15, lw=0)
    ax.fill_between(x, ends("low80"), ends("high80"), color=tint, alpha=0.25, lw=0)
    ax.plot(x, ends("mean"), color=tint, lw=1.8)
    for parameters, tokens, log_ratio, bounds in _measured(analysis):
        at, share = along(parameters, tokens), log_ratio.map(saved)
        if math.isfinite(share.low):
            ax.plot([at, at], closed_part(share, bounds), color=tint, lw=2)
        ax.plot(at, 100 * share.mean, "o", ms=7, mec=tint, mfc=CARD, mew=1.6)
    there = along(target.parameters, target.tokens)
    ax.axvline(there, color=AXIS, lw=1, ls=(0, (2, 3)))
    mean = next(_percent(b.ratio, "mean") for b in bands if _is_target(b, analysis))
    ax.plot(there, mean, "D", ms=8, color=tint)
    ax.axhline(0, color=AXIS, lw=1)
    ax.axhline(100 * analysis.plan.decision.min_saving, color=MIN_SAVING, lw=1.2, ls=(0, (4, 3)))
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())


def _percent(ratio: TokenRatio, name: str) -> float:
    return 100 * saved(math.log(getattr(ratio, name)))


def _is_target(band: Band, analysis: Analysis) -> bool:
    target = analysis.plan.target
    return math.isclose(band.parameters, target.parameters) and math.isclose(
        band.tokens, target.tokens
    )
