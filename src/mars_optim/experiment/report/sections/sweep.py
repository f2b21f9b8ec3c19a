"""The learning rates that were tried, and the final loss of each."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes

from ...analysis import ArmResult, Shown
from ..document import Cell, Picture, Table
from ..figures.draw import MARKERS, legend, powers, svg_element
from ..figures.theme import colour, pictured
from ..messages import Messages
from .arm_cells import loss, of_pictured


def picture(
    analysis: Shown, say: Messages, *, name: str = "sweep", code: str = "figure.sweep"
) -> Picture:
    """Final loss over the learning rate.

    Args:
        analysis: whose arms have trials.
        say: texts of the language.
        name: of the figure.
        code: of its messages.
    """
    rows = tuple(
        (
            Cell(arm.name, arm=arm.name),
            Cell(f"{trial.lr:.2g}", say("chosen") if trial.lr == arm.lr else ""),
            Cell(loss(trial.loss, say)),
        )
        for arm in analysis.arms
        for trial in arm.trials
    )
    best = say.listed(
        say("figure.sweep.best", arm=arm.name, lr=arm.lr) for arm in analysis.arms if arm.lr
    )
    return Picture(
        name,
        say("figure.sweep.text", best=best),
        of_pictured(analysis, say, say(f"{code}.caption")),
        Table(say(f"{code}.data"), say.each("arm", "lr", "final-loss"), rows),
        svg_element(name, lambda ax: _draw(ax, analysis, say, say(f"{code}.x"))),
    )


def _draw(ax: Axes, analysis: Shown, say: Messages, x_label: str) -> None:
    up = any(arm.sign < 0 for arm in analysis.arms)  # what diverged stands on the bad side
    top = _end(analysis, up=up)
    for arm in pictured(analysis):
        tint = colour(analysis, arm)
        label = arm.name
        for seed in sorted({t.seed for t in arm.trials}):
            finite = [(t.lr, t.loss) for t in arm.trials if t.loss is not None and t.seed == seed]
            if finite:
                lrs, losses = zip(*finite, strict=True)
                joined = "-" if label == arm.name else ":"
                line = MARKERS[arm.role] + ("" if arm.tuned else joined)
                ax.plot(lrs, losses, line, color=tint, ms=5, lw=1.4, label=label)
                label = "_"  # one entry in the legend for all seeds
        _draw_chosen(ax, arm, tint)
        for trial in arm.trials:
            if trial.loss is None:
                ax.plot(trial.lr, top, "x", color=tint, ms=8, mew=2, clip_on=False)
    if up:
        ax.set_ylim(bottom=top)
    else:
        ax.set_ylim(top=top)
    ax.set_xscale("log")
    powers(ax.xaxis)
    ax.set_xlabel(x_label)
    ax.set_ylabel(say("figure.y"))
    legend(ax)


def _draw_chosen(ax: Axes, arm: ArmResult, tint: str) -> None:
    """A ring at the rate that was chosen, on the line through the trials; a bar over its range."""
    first = min((t.seed for t in arm.trials), default=0)
    finite = sorted((t.lr, t.loss) for t in arm.trials if t.loss is not None and t.seed == first)
    if not finite:
        return
    lrs, losses = zip(*finite, strict=True)
    lr = arm.lr or min(finite, key=lambda point: arm.sign * point[1])[0]
    height = float(np.interp(math.log(lr), [math.log(x) for x in lrs], losses))
    ax.plot(lr, height, MARKERS[arm.role], ms=11, mec=tint, mfc="none", mew=1.6)
    if arm.best_range:
        ax.plot(arm.best_range, [height, height], "-", color=tint, lw=4, alpha=0.3)


def _end(analysis: Shown, *, up: bool) -> float:
    """The bad end of the loss axis: bad trials must not flatten the good ones."""
    losses = sorted(t.loss for a in analysis.arms for t in a.trials if t.loss is not None)
    if not losses:
        return 0.0 if up else 1.0
    span = max(losses[-1] - losses[0], 1e-3)
    return losses[0] - 0.08 * span if up else losses[-1] + 0.08 * span
