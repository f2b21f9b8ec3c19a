"""Loss curves of every seed: all of training, and its end."""

from __future__ import annotations

from statistics import fmean

from matplotlib.axes import Axes

from ...analysis import ArmResult, Shown
from ...plan.decision import LOSS
from .. import numbers
from ..document import Cell, Picture, Table
from ..figures.draw import MARKERS, counts, legend, svg_element
from ..figures.theme import colour, pictured
from ..messages import Messages
from .arm_cells import evenly, of_pictured

MOST_MARKS = 12  # on a validation curve


def picture(
    analysis: Shown,
    say: Messages,
    *,
    tail: str = "",
    text: str = "figure.curves.text",
    caption: str = "figure.curves.caption",
) -> Picture:
    """Losses over tokens.

    Args:
        analysis: whose arms have curves.
        say: texts of the language.
        tail: of the figure's name.
        text: code of what it shows.
        caption: code of how to read it.
    """
    arms = [arm for arm in analysis.arms if any(curve.train for curve in arm.curves)]
    tokens = sorted({t for arm in arms for curve in arm.curves for t, _ in curve.train})

    def mean(arm: ArmResult, at: int) -> str:
        values = [value for curve in arm.curves for t, value in curve.train if t == at]
        return f"{fmean(values):.4f}" if values else say("none")

    data = Table(
        say("figure.curves.data"),
        (say("training-tokens"), *(arm.name for arm in arms)),
        tuple(
            (Cell(numbers.count(t)), *(Cell(mean(arm, t)) for arm in arms)) for t in evenly(tokens)
        ),
    )
    name, caption = f"curves{tail}", of_pictured(analysis, say, say(caption))
    svgs = svg_element(name, lambda ax: _draw(ax, analysis, say, close=False))
    svgs += svg_element(f"ends{tail}", lambda ax: _draw(ax, analysis, say, close=True))
    return Picture(name, say(text), caption, data, svgs)


def _draw(ax: Axes, analysis: Shown, say: Messages, *, close: bool) -> None:
    """All of training, or the last 40 % ``close``."""
    start = 0.6 * analysis.unit_tokens if close else 0
    for arm in pictured(analysis):
        tint, label = colour(analysis, arm), arm.name
        for curve in arm.curves:
            shown = curve.valid if arm.metric == LOSS else ()  # another metric has another scale
            train, valid = ([p for p in c if p[0] >= start] for c in (curve.train, shown))
            if train:
                line = dict(color=tint, lw=0.9, alpha=0.65, label=label)
                ax.plot(*zip(*train, strict=True), **line)  # type: ignore[arg-type]
                label = "_"  # one entry in the legend for all seeds
            if valid:
                marks = MARKERS[arm.role] if len(valid) <= MOST_MARKS else ""
                ax.plot(*zip(*valid, strict=True), marks + ":", color=tint, lw=1.2, ms=4)
                ax.plot(*valid[-1], MARKERS[arm.role], color=tint, ms=5)
    counts(ax.xaxis)
    ax.set_xlabel(say("figure.curves.x"))
    ax.set_ylabel(say("figure.curves.y"))
    ax.set_title(say("figure.curves.end" if close else "figure.curves.all"), fontsize=9.5)
    if not close:
        legend(ax)
