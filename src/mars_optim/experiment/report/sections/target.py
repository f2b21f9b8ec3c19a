"""When the runs reached the target: a table, Kaplan and Meier's curves, the metric's own."""

from __future__ import annotations

from matplotlib.axes import Axes

from ...analysis import Analysis, ArmResult
from .. import numbers
from ..document import Block, Cell, Picture, Section, Table
from ..figures.draw import counts, legend, svg_element
from ..figures.theme import MIN_SAVING, colour, pictured
from ..messages import Messages
from ..savings import ends, saving_interval


def section(analysis: Analysis, say: Messages) -> Section:
    """Table and picture; empty without a target."""
    arms = [arm for arm in analysis.arms if arm.target]
    blocks: list[Block] = []
    if arms:
        blocks = [_table(analysis, arms, say), _picture(analysis, arms, say)]
    return Section("target", say("section.target") if arms else "", tuple(blocks))


def _table(analysis: Analysis, arms: list[ArmResult], say: Messages) -> Table:
    columns = ("arm", "target.reached", "target.tokens", "target.steps", "target.hours")
    return Table(
        say("table.target", baseline=analysis.baseline.name),
        say.each(*columns, "tokens-saved", "target.saved-hours"),
        tuple(_row(analysis, arm, say) for arm in arms),
    )


def _row(analysis: Analysis, arm: ArmResult, say: Messages) -> tuple[Cell, ...]:
    found, none = arm.target, say("none")
    assert found is not None
    missed = say("target.not-half") if 2 * found.reached < found.runs else none
    return (
        Cell(arm.name, say(f"role.{arm.role}"), arm=arm.name),
        Cell(say("target.of", reached=found.reached, runs=found.runs)),
        Cell(missed if found.tokens is None else numbers.count(round(found.tokens))),
        Cell(missed if found.steps is None else numbers.count(round(found.steps))),
        Cell(missed if found.seconds is None else say.duration(found.seconds)),
        Cell(saving_interval(arm, say) if arm.log_ratio else none),
        Cell(_hours(analysis, arm, say)),
    )


def _hours(analysis: Analysis, arm: ArmResult, say: Messages) -> str:
    """Hours that the candidate saves, by the ratio of the step times; none for a bound."""
    if analysis.money is None or arm.role != "candidate" or arm.bounds:
        return say("none")
    share = analysis.money.share
    return say("with-interval", value=say.percent(share.mean), ends=ends(share, say))


def _picture(analysis: Analysis, arms: list[ArmResult], say: Messages) -> Picture:
    rows = tuple(
        (Cell(arm.name, arm=arm.name), Cell(numbers.count(round(tokens))), Cell(f"{share:.2f}"))
        for arm in arms
        if arm.target
        for tokens, share in arm.target.curve
    )
    svgs = svg_element("target", lambda ax: _draw_share(ax, analysis, say))
    svgs += svg_element("metric", lambda ax: _draw_metric(ax, analysis, say))
    return Picture(
        "target",
        say("figure.target.text"),
        say("figure.target.caption"),
        Table(
            say("figure.target.data"),
            say.each("arm", "training-tokens", "figure.target.share"),
            rows,
        ),
        svgs,
    )


def _draw_share(ax: Axes, analysis: Analysis, say: Messages) -> None:
    for arm in pictured(analysis):
        if arm.target is None:
            continue
        tint, curve = colour(analysis, arm), arm.target.curve
        x, y = [0.0, *(t for t, _ in curve)], [1.0, *(share for _, share in curve)]
        ax.step([*x, analysis.unit_tokens], [*y, y[-1]], where="post", color=tint, label=arm.name)
        for end in arm.target.missed:
            height = min((share for t, share in curve if t <= end), default=1.0)
            ax.plot(end, height, "|", color=tint, ms=9, mew=1.6)
    ax.set_ylim(-0.02, 1.05)
    counts(ax.xaxis)
    ax.set_xlabel(say("figure.curves.x"))
    ax.set_title(say("figure.target.share"), fontsize=9.5)
    legend(ax)


def _draw_metric(ax: Axes, analysis: Analysis, say: Messages) -> None:
    for arm in pictured(analysis):
        for curve in arm.curves:
            if curve.valid:
                x, y = zip(*curve.valid, strict=True)
                ax.plot(x, y, color=colour(analysis, arm), lw=1.0, alpha=0.7)
    target = analysis.plan.decision.target
    if target is not None:
        ax.axhline(target, color=MIN_SAVING, lw=1.2, ls=(0, (4, 3)))
    counts(ax.xaxis)
    ax.set_xlabel(say("figure.curves.x"))
    ax.set_title(analysis.plan.decision.metric, fontsize=9.5)
