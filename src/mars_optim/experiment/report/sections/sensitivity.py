"""How much the learning rate matters, for each arm and gamma."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from ...analysis import Analysis
from ...analysis.sensitivity import Line, Range
from ...plan.decision import LOSS
from ..document import Cell, Picture, Table
from ..figures.draw import powers, svg_element
from ..figures.theme import AXIS, BINS, MIN_SAVING, colour
from ..messages import Messages

EDGES = (0.01, 0.02, 0.05, 0.10)  # of the squares' shades: loss above the line's best, relative


def picture(analysis: Analysis, say: Messages) -> Picture:
    """The map of losses, with the safe ranges as a table."""
    kind = "" if analysis.plan.decision.metric == LOSS else "-metric"
    data = Table(
        say("figure.sensitivity.data" + kind),
        say.each("arm", "gamma", "best-loss", "safe-range", "beats-range"),
        tuple(_row(line, say) for line in analysis.sensitivity),
    )
    ranges = say.listed(
        say(
            "figure.sensitivity.range",
            line=_label(line, analysis.sensitivity),
            bound=_bound(line.safe),
            factor=line.safe.factor,
        )
        for line in analysis.sensitivity
        if line.safe
    )
    return Picture(
        "sensitivity",
        say("figure.sensitivity.text" + kind, ranges=ranges),
        say("figure.sensitivity.caption" + kind),
        data,
        svg_element(
            "sensitivity",
            lambda ax: _draw(ax, analysis, say),
            height=0.9 + 0.55 * len(analysis.sensitivity),
        ),
    )


def _label(line: Line, lines: Sequence[Line]) -> str:
    """The arm; with its gamma, if it has one or was run at several."""
    if line.gamma is None:
        return line.arm
    several = sum(other.arm == line.arm for other in lines) > 1
    return f"{line.arm}, \u03b3 {line.gamma:.3g}" if line.gamma or several else line.arm


def _row(line: Line, say: Messages) -> tuple[Cell, ...]:
    return (
        Cell(line.arm, arm=line.arm),
        Cell(say("none") if line.gamma is None else f"{line.gamma:.3g}"),
        Cell(say("diverged") if line.best is None else f"{line.best:.4f}"),
        _range(line.safe, say),
        _range(line.beats_baseline, say),
    )


def _range(value: Range | None, say: Messages) -> Cell:
    if value is None:
        return Cell(say("none"))
    factor = say("range.factor", bound=_bound(value), factor=value.factor)
    return Cell(say("range", low=value.low, high=value.high), factor)


def _bound(value: Range) -> str:
    return "\u2265 " if value.censored else ""


def _draw(ax: Axes, analysis: Analysis, say: Messages) -> None:
    """Learning rate across, a row for each arm and gamma: squares shaded by the loss."""
    rows = analysis.sensitivity
    for y, line in enumerate(reversed(rows)):
        for lr, loss in line.points:
            if loss is None or line.best is None:
                ax.plot(lr, y, "x", color=MIN_SAVING, ms=6, mew=1.6)
            else:
                excess = abs(loss - line.best) / max(abs(line.best), 1e-12)
                shade = BINS[sum(excess > edge for edge in EDGES)]
                ax.plot(lr, y, "s", ms=11, mfc=shade, mec=AXIS, mew=0.6)
        _draw_safe(ax, line, y - 0.33, colour(analysis, analysis.arm(line.arm)))
        # above its row, from the left: a long name must not take the room of the map
        at = ax.get_yaxis_transform()
        ax.text(0.01, y + 0.36, _label(line, rows), transform=at, fontsize=8.5, va="center")
    ax.set_yticks([])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.margins(x=0.08)
    ax.set_xscale("log")
    powers(ax.xaxis)
    ax.set_xlabel(say("figure.sensitivity.x"))
    ax.grid(axis="y", visible=False)


def _draw_safe(ax: Axes, line: Line, y: float, tint: str) -> None:
    """The safe range, with an arrow where it may go on."""
    if line.safe is None:
        return
    ax.plot([line.safe.low, line.safe.high], [y, y], color=tint, lw=3)
    for end, bound, marker in (
        (line.safe.low, line.safe.low_bound, "<"),
        (line.safe.high, line.safe.high_bound, ">"),
    ):
        ax.plot(end, y, marker if bound else "|", color=tint, ms=6 if bound else 5, mew=1.5)
